//! How long a message waits before its next delivery, as its group says. Pure.

use std::collections::BTreeMap;

/// The group attribute with the waits before the first, the second, … retry, as `1s,5s,1m`; the last one
/// goes on.
pub(crate) const ATTRIBUTE: &str = "retry.backoff";

/// Waits in an attribute.
const STEPS_MAX: usize = 64;

/// The longest wait.
const STEP_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// RocketMQ's delay levels from the third on, seconds: what its classic clients begin with.
const DEFAULT_SECONDS: [u64; 16] = [
    10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1_200, 1_800, 3_600, 7_200,
];

/// How long to wait after so many deliveries have failed, in milliseconds. What cannot be read as waits is
/// taken for the default.
pub(super) fn delay_ms(attributes: &BTreeMap<String, String>, failed: u32) -> u64 {
    let step = failed.saturating_sub(1) as usize;
    match own(attributes) {
        Some(steps) => steps[step.min(steps.len() - 1)],
        None => DEFAULT_SECONDS[step.min(DEFAULT_SECONDS.len() - 1)] * 1_000,
    }
}

/// The waits that a group names itself, in milliseconds; at least one.
pub(crate) fn own(attributes: &BTreeMap<String, String>) -> Option<Vec<u64>> {
    parse(attributes.get(ATTRIBUTE)?)
}

/// Reads waits, at least one: a whole number and `ms`, `s`, `m`, `h` or `d`, separated by commas.
pub(crate) fn parse(text: &str) -> Option<Vec<u64>> {
    let steps: Option<Vec<u64>> = text
        .split(',')
        .map(|step| parse_step(step.trim()))
        .collect();
    steps.filter(|steps| steps.len() <= STEPS_MAX)
}

fn parse_step(step: &str) -> Option<u64> {
    let unit = step.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = step.split_at(unit);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let wait = number.parse::<u64>().ok()?.checked_mul(milliseconds)?;
    (wait <= STEP_MS_MAX).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(text: Option<&str>) -> Vec<u64> {
        let attributes = text.map(|text| (ATTRIBUTE.to_owned(), text.to_owned()));
        let attributes = attributes.into_iter().collect();
        [1, 2, 3, 16, 99, u32::MAX]
            .map(|failed| delay_ms(&attributes, failed))
            .to_vec()
    }

    /// Would catch a first retry that does not wait as classic clients do, a step past the end, and
    /// nonsense that is taken for a wait.
    #[test]
    fn steps_are_those_of_the_group_or_else_the_classic_ones() {
        let classic = [10_000, 30_000, 60_000, 7_200_000, 7_200_000, 7_200_000];
        assert_eq!(waits(None), classic);
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
            assert_eq!(parse(nonsense), None, "{nonsense:?}");
            assert_eq!(waits(Some(nonsense)), classic, "{nonsense:?}");
        }
        assert_eq!(parse(&"1s,".repeat(STEPS_MAX)), None);
    }
}
