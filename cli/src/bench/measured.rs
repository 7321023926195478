//! What a load adds up to: a count, a time, and how long each request took.

use std::time::Duration;

use serde_json::{Value, json};

use crate::times::Times;

/// Counts and times of one load.
#[derive(Default)]
pub struct Measured {
    /// Messages that were answered OK, or received.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// The same with those before and after the measurement, which the processes worked for too.
    pub all_bytes: u64,
    /// Requests that were refused; their messages do not count.
    pub refused: u64,
    /// How long it took.
    pub elapsed: Duration,
    times: Times,
}

impl Measured {
    /// A load that is measured for this long.
    pub fn over(elapsed: Duration) -> Measured {
        Measured {
            elapsed,
            ..Measured::default()
        }
    }

    /// One request took this long.
    pub fn took(&mut self, time: Duration) {
        self.times.took(time);
    }

    /// `messages` of `message_bytes` each were answered OK.
    pub fn count(&mut self, messages: u64, message_bytes: usize) {
        self.messages += messages;
        self.bytes += messages * message_bytes as u64;
        self.all_bytes += messages * message_bytes as u64;
    }

    /// The same before the measurement began or after it ended.
    pub fn count_outside(&mut self, messages: u64, message_bytes: usize) {
        self.all_bytes += messages * message_bytes as u64;
    }

    /// Takes over what another part of the same load measured.
    pub fn merge(&mut self, other: &Measured) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.all_bytes += other.all_bytes;
        self.refused += other.refused;
        self.times.merge(&other.times);
    }

    /// Messages a second.
    pub fn messages_per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// Millions of bytes a second.
    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON) / 1e6
    }

    /// The time that a share of the requests did not exceed, milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.times.quantile_us(share) as f64 / 1e3
    }

    /// The figures that every load has.
    pub fn as_json(&self) -> Value {
        let mut value = json!({
            "messages": self.messages,
            "seconds": round(self.elapsed.as_secs_f64()),
            "messages_per_second": self.messages_per_second().round(),
            "megabytes_per_second": round(self.megabytes_per_second()),
        });
        if self.times.count() > 0 {
            merge(&mut value, self.times_as_json());
        }
        if self.refused > 0 {
            merge(&mut value, json!({ "refused": self.refused }));
        }
        value
    }

    /// How long requests took, milliseconds.
    pub fn times_as_json(&self) -> Value {
        json!({
            "p50_ms": self.quantile_ms(0.5),
            "p99_ms": self.quantile_ms(0.99),
            "p99_9_ms": self.quantile_ms(0.999),
            "max_ms": self.times.max_us() as f64 / 1e3,
        })
    }
}

/// Adds the keys of `more` to the object `value`.
pub fn merge(value: &mut Value, more: Value) {
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
}

/// Two digits after the point are enough for people and for machines.
pub fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
