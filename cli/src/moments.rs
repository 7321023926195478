//! Points in time and ages, as people write and read them.
//!
//! A time on the command line is RFC 3339 (`2026-01-31T08:00:00Z`), milliseconds since the Unix epoch, or
//! an age (`90s`, `10m`, `2h`, `3d`: that long ago). Output is RFC 3339 in UTC.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A point in time that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Milliseconds since the Unix epoch.
    AtMs(u64),
    /// So many milliseconds before now.
    AgoMs(u64),
}

impl Moment {
    /// For clap: reads a time.
    ///
    /// # Errors
    ///
    /// What can be written in its place.
    pub fn parse(text: &str) -> Result<Moment, String> {
        if let Ok(at_ms) = text.parse() {
            return Ok(Moment::AtMs(at_ms));
        }
        if let Ok(age) = parse_age(text) {
            return Ok(Moment::AgoMs(milliseconds(age)));
        }
        let time = DateTime::parse_from_rfc3339(text).ok();
        let at_ms = time.and_then(|time| u64::try_from(time.timestamp_millis()).ok());
        at_ms.map(Moment::AtMs).ok_or_else(|| {
            "expected a time as 2026-01-31T08:00:00Z, milliseconds since 1970, or an age as 10m"
                .into()
        })
    }

    /// Milliseconds since the Unix epoch.
    pub fn at_ms(self, now_ms: u64) -> u64 {
        match self {
            Moment::AtMs(at_ms) => at_ms,
            Moment::AgoMs(ago_ms) => now_ms.saturating_sub(ago_ms),
        }
    }
}

/// For clap: a duration as `250ms`, `90s`, `10m`, `2h` or `3d`.
///
/// # Errors
///
/// What can be written in its place.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit_ms = match unit {
        "ms" => 1,
        "s" => SECOND_MS,
        "m" => MINUTE_MS,
        "h" => HOUR_MS,
        "d" => DAY_MS,
        _ => return Err("expected a number and ms, s, m, h or d, as in 10m".to_owned()),
    };
    let number = number.parse::<u64>().ok();
    let age_ms = number.and_then(|number| number.checked_mul(unit_ms));
    age_ms
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text} is no duration"))
}

/// A time as people and programs read it.
pub fn shown(at_ms: u64) -> String {
    let time = i64::try_from(at_ms)
        .ok()
        .and_then(DateTime::from_timestamp_millis);
    time.map_or_else(
        || format!("{at_ms} ms"),
        |time| time.to_rfc3339_opts(SecondsFormat::Millis, true),
    )
}

/// An age or a duration in the unit that reads best.
pub fn shown_age(age_ms: u64) -> String {
    match age_ms {
        0..SECOND_MS => format!("{age_ms} ms"),
        SECOND_MS..MINUTE_MS => format!("{:.1} s", age_ms as f64 / SECOND_MS as f64),
        MINUTE_MS..HOUR_MS => {
            format!(
                "{} min {} s",
                age_ms / MINUTE_MS,
                age_ms % MINUTE_MS / SECOND_MS
            )
        }
        HOUR_MS..DAY_MS => format!(
            "{} h {} min",
            age_ms / HOUR_MS,
            age_ms % HOUR_MS / MINUTE_MS
        ),
        _ => format!("{} d {} h", age_ms / DAY_MS, age_ms % DAY_MS / HOUR_MS),
    }
}

fn milliseconds(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

/// Bytes in the unit that reads best.
pub fn shown_bytes(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.iter().find(|(_, size)| bytes >= *size);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, size)| format!("{:.1} {name}", bytes as f64 / *size as f64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a reset to another time than the one that was written.
    #[test]
    fn times_are_read_in_each_form() {
        assert_eq!(
            Moment::parse("1700000000123"),
            Ok(Moment::AtMs(1_700_000_000_123))
        );
        let zulu = Moment::parse("2023-11-14T22:13:20.123Z");
        assert_eq!(zulu, Ok(Moment::AtMs(1_700_000_000_123)));
        assert_eq!(Moment::parse("2023-11-15T00:13:20.123+02:00"), zulu);
        assert_eq!(Moment::parse("10m").unwrap().at_ms(700_000), 100_000);
        assert_eq!(Moment::parse("3d").unwrap().at_ms(1), 0);
        for text in [
            "",
            "yesterday",
            "10",
            "m",
            "10x",
            "-5m",
            "2023-11-14",
            "99999999999999999999d",
        ] {
            let parsed = Moment::parse(text);
            assert!(parsed.is_err() || text == "10", "{text}: {parsed:?}");
        }
        assert_eq!(parse_age("250ms"), Ok(Duration::from_millis(250)));
    }

    /// Catches a time that cannot be given back to the program that printed it.
    #[test]
    fn what_is_shown_can_be_read() {
        let at_ms = 1_700_000_000_123;
        assert_eq!(Moment::parse(&shown(at_ms)), Ok(Moment::AtMs(at_ms)));
        assert_eq!(shown(u64::MAX), format!("{} ms", u64::MAX));
        let ages = [
            (999, "999 ms"),
            (1_500, "1.5 s"),
            (61_000, "1 min 1 s"),
            (3_600_000, "1 h 0 min"),
        ];
        for (age_ms, text) in ages {
            assert_eq!(shown_age(age_ms), text);
        }
        assert_eq!(shown_age(90_000_000), "1 d 1 h");
        assert_eq!(shown_bytes(1_023), "1023 B");
        assert_eq!(shown_bytes(1 << 30), "1.0 GiB");
    }
}
