//! How often a message is delivered to a consumer group, and how long it waits before each further delivery.
//!
//! What brokers do, what they tell clients (`Settings.backoff_policy`) and what consumers that count for themselves do is this.

use std::collections::BTreeMap;

/// Deliveries of a message to a group that names no number: one, and 16 retries, as RocketMQ's `retryMaxTimes` has it.
pub const ATTEMPTS_DEFAULT: u32 = 17;

/// Most deliveries that a group may ask for.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// The group attribute with the waits before the first, the second, … retry, as `1s,5s,1m`; the last one
/// goes on.
pub const WAITS_ATTRIBUTE: &str = "retry.backoff";

/// Waits in an attribute.
const WAITS_MAX: usize = 64;

/// The longest wait.
const WAIT_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// RocketMQ's delay levels, seconds.
const DEFAULT_SECONDS: [u64; 18] = [
    1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1_200, 1_800, 3_600, 7_200,
];

/// What a group does with a message whose processing fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    attempts_max: u32,
    /// At least one.
    waits_ms: Vec<u64>,
}

impl RetryPolicy {
    /// That of a group with these settings: 0 or less attempts are none that it names, and so are waits that cannot be read.
    pub fn of(max_attempts: i32, attributes: &BTreeMap<String, String>) -> RetryPolicy {
        let named = attributes.get(WAITS_ATTRIBUTE);
        let waits = named.and_then(|text| parse_waits(text));
        RetryPolicy {
            attempts_max: match u32::try_from(max_attempts) {
                Ok(0) | Err(_) => ATTEMPTS_DEFAULT,
                Ok(attempts) => attempts,
            },
            waits_ms: waits.unwrap_or_else(|| DEFAULT_SECONDS.map(|wait| wait * 1_000).to_vec()),
        }
    }

    /// Most deliveries of one message, the first included; it is dead after that. At least 1.
    pub fn attempts_max(&self) -> u32 {
        self.attempts_max
    }

    /// The waits before the first, the second, … retry, in milliseconds; the last one goes on. At least one.
    pub fn waits_ms(&self) -> &[u64] {
        &self.waits_ms
    }

    /// How long to wait after so many deliveries have failed, in milliseconds.
    pub fn wait_ms(&self, failed: u32) -> u64 {
        let retry = failed.saturating_sub(1) as usize;
        self.waits_ms[retry.min(self.waits_ms.len() - 1)]
    }
}

impl Default for RetryPolicy {
    /// That of a group that has no settings.
    fn default() -> RetryPolicy {
        RetryPolicy::of(0, &BTreeMap::new())
    }
}

/// Reads waits, in milliseconds and at least one: a whole number and `ms`, `s`, `m`, `h` or `d`, separated by commas.
pub fn parse_waits(text: &str) -> Option<Vec<u64>> {
    let waits = text.split(',').map(|wait| parse_wait(wait.trim()));
    let waits: Option<Vec<u64>> = waits.collect();
    waits.filter(|waits| waits.len() <= WAITS_MAX)
}

fn parse_wait(wait: &str) -> Option<u64> {
    let unit = wait.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = wait.split_at(unit);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let wait = number.parse::<u64>().ok()?.checked_mul(milliseconds)?;
    (wait <= WAIT_MS_MAX).then_some(wait)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(waits: Option<&str>) -> RetryPolicy {
        let attributes = waits.map(|text| (WAITS_ATTRIBUTE.to_owned(), text.to_owned()));
        RetryPolicy::of(0, &attributes.into_iter().collect())
    }

    fn waits(text: Option<&str>) -> Vec<u64> {
        let policy = policy(text);
        [1, 2, 3, 18, 99, u32::MAX]
            .map(|failed| policy.wait_ms(failed))
            .to_vec()
    }

    /// Catches a first retry that comes at another time than clients are told, a step past the end, and nonsense that is
    /// taken for a wait.
    #[test]
    fn waits_are_those_of_the_group_or_else_rocketmq_s() {
        let levels = [1_000, 5_000, 10_000, 7_200_000, 7_200_000, 7_200_000];
        assert_eq!(waits(None), levels);
        assert_eq!(
            waits(Some("1s, 250ms,2m")),
            [1_000, 250, 120_000, 120_000, 120_000, 120_000]
        );
        for nonsense in [
            "",
            "1",
            "s",
            "1s,",
            "1 s",
            "-1s",
            "1s;2s",
            "31d",
            "99999999999999999999s",
        ] {
            assert_eq!(parse_waits(nonsense), None, "{nonsense:?}");
            assert_eq!(waits(Some(nonsense)), levels, "{nonsense:?}");
        }
        assert_eq!(parse_waits(&"1s,".repeat(WAITS_MAX)), None);
    }

    proptest! {
        /// Catches a policy of no attempt, or of another number than the group's, and a wait that is not the group's.
        #[test]
        fn a_message_is_tried_so_often_and_no_more(
            max_attempts in any::<i32>(),
            waits in proptest::collection::vec(0_u64..100_000, 1..WAITS_MAX),
            failed in any::<u32>(),
        ) {
            let text: Vec<String> = waits.iter().map(|wait| format!("{wait}ms")).collect();
            let attributes = [(WAITS_ATTRIBUTE.to_owned(), text.join(","))].into();
            let policy = RetryPolicy::of(max_attempts, &attributes);
            let named = u32::try_from(max_attempts).ok().filter(|named| *named > 0);
            prop_assert_eq!(policy.attempts_max(), named.unwrap_or(ATTEMPTS_DEFAULT));
            prop_assert_eq!(policy.waits_ms(), &*waits);
            let at = (failed.max(1) as usize - 1).min(waits.len() - 1);
            prop_assert_eq!(policy.wait_ms(failed), waits[at]);
        }
    }
}
