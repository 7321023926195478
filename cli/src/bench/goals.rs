//! The figures that the project set itself, held against what was measured.
//!
//! A missed goal is said, and changes nothing: whoever reads the table must be able to trust it.

use serde_json::{Value, json};

struct Goal {
    what: &'static str,
    measure: &'static str,
    /// Which measurements count.
    holds_for: fn(&Value) -> bool,
    figure: &'static str,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    /// The smallest of the figures that count.
    AtLeast(f64),
    /// The largest of them.
    AtMost(f64),
    /// The best of them: the goal does not say at which number of requests in flight.
    BestAtLeast(f64),
}

const GOALS: &[Goal] = &[
    Goal {
        what: "1 KiB in batches of 32 and more, share of the ceiling",
        measure: "send",
        holds_for: |row| {
            row["message_bytes"] == 1024
                && number(row, "/batch") >= 32.0
                && number(row, "/in_flight") > 1.0
        },
        figure: "/share_of_ceiling",
        bound: Bound::AtLeast(0.5),
    },
    Goal {
        what: "128 B in batches of 256, messages/s",
        measure: "send",
        holds_for: |row| row["message_bytes"] == 128 && row["batch"] == 256,
        figure: "/messages_per_second",
        bound: Bound::BestAtLeast(300_000.0),
    },
    Goal {
        what: "1 KiB one by one through the SDK, 256 in flight, messages/s",
        measure: "sdk_send",
        holds_for: |row| row["message_bytes"] == 1024 && row["in_flight"] == 256,
        figure: "/messages_per_second",
        bound: Bound::AtLeast(60_000.0),
    },
    Goal {
        what: "1 KiB raw calls of one message, messages/s",
        measure: "send",
        holds_for: |row| row["message_bytes"] == 1024 && row["batch"] == 1,
        figure: "/messages_per_second",
        bound: Bound::BestAtLeast(25_000.0),
    },
    Goal {
        what: "1 KiB consumed when catching up, messages/s",
        measure: "catch_up",
        holds_for: |row| row["message_bytes"] == 1024,
        figure: "/messages_per_second",
        bound: Bound::AtLeast(200_000.0),
    },
    Goal {
        what: "1 KiB, bytes written to the log per payload byte",
        measure: "send",
        holds_for: |row| row["message_bytes"] == 1024 && number(row, "/batch") >= 32.0,
        figure: "/usage/brokers/0/log_bytes_per_payload_byte",
        bound: Bound::AtMost(1.1),
    },
    Goal {
        what: "1 KiB, bytes written to the disk per payload byte, tables included",
        measure: "written",
        holds_for: |_| true,
        figure: "/disk_bytes_per_payload_byte_max",
        bound: Bound::AtMost(1.3),
    },
    Goal {
        what: "cost of a leader's death, p99 ms",
        measure: "failover",
        holds_for: |_| true,
        figure: "/p99_ms",
        bound: Bound::AtMost(2_000.0),
    },
    Goal {
        what: "from start to an elected leader, max ms",
        measure: "start",
        holds_for: |_| true,
        figure: "/max_ms",
        bound: Bound::AtMost(3_000.0),
    },
    Goal {
        what: "a broker with 10 GiB of log, from start to ready to vote, max ms",
        measure: "large_log",
        holds_for: |row| number(row, "/log_gib") >= 10.0,
        figure: "/to_vote/max_ms",
        bound: Bound::AtMost(2_000.0),
    },
    Goal {
        what: "an idle broker, resident MiB",
        measure: "idle",
        holds_for: |_| true,
        figure: "/resident_mib_max",
        bound: Bound::AtMost(60.0),
    },
];

/// Each goal that something was measured for: what was found, what was wanted, and whether it is met.
pub fn judge(measurements: &[Value]) -> Vec<Value> {
    GOALS
        .iter()
        .filter_map(|goal| judge_one(goal, measurements))
        .collect()
}

fn judge_one(goal: &Goal, measurements: &[Value]) -> Option<Value> {
    let figures: Vec<f64> = measurements
        .iter()
        .filter(|row| {
            row["measure"] == goal.measure && row["replicas"] != 2 && (goal.holds_for)(row)
        })
        .filter_map(|row| row.pointer(goal.figure)?.as_f64())
        .collect();
    let largest = figures.iter().copied().reduce(f64::max)?;
    let smallest = figures.iter().copied().reduce(f64::min)?;
    let (found, wanted, met) = match goal.bound {
        Bound::AtLeast(bound) => (smallest, format!(">= {bound}"), smallest >= bound),
        Bound::BestAtLeast(bound) => (largest, format!(">= {bound}"), largest >= bound),
        Bound::AtMost(bound) => (largest, format!("<= {bound}"), largest <= bound),
    };
    Some(json!({
        "measure": "goal",
        "goal": goal.what,
        "found": found,
        "wanted": wanted,
        "verdict": if met { "met" } else { "missed" },
    }))
}

fn number(row: &Value, pointer: &str) -> f64 {
    row.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::judge;

    /// Catches a goal that is called met by its best row although it is meant for every row.
    #[test]
    fn the_worst_row_decides_where_each_must_reach_it() {
        let row = |share: f64| {
            json!({
                "measure": "send", "message_bytes": 1024, "batch": 32, "in_flight": 64,
                "share_of_ceiling": share, "replicas": 3,
            })
        };
        let verdicts = judge(&[row(0.9), row(0.4)]);
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        assert_eq!(verdicts[0]["verdict"], "missed");
        assert_eq!(judge(&[row(0.9)])[0]["verdict"], "met");
    }
}
