//! Which terms a replica believes.
//!
//! A term grows by one with each election and never comes back: whoever takes over a term that elections cannot have
//! reached takes the group there, at the highest number for ever. So a term that leaps is refused, whoever says it.
//!
//! The bound can refuse nobody who speaks the truth: a replica that was away for a thousand years while its group
//! elected thirty leaders a second, or whose group was restored from copies a million times (each skips a million
//! terms), would still be within it.

use thiserror::Error;

/// Most terms between what a replica knows and what it is told.
pub(crate) const LEAP_MAX: u64 = 1 << 40;

/// Highest term: far above what steps of [`LEAP_MAX`] reach by accident, and far below where counting ends.
pub(crate) const TERM_MAX: u64 = 1 << 62;

/// A term that elections cannot have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("term {told} cannot follow term {known}: no elections reach it")]
pub(crate) struct Leap {
    known: u64,
    told: u64,
}

/// Refuses a term that elections cannot have reached since `known`.
pub(crate) fn check(known: u64, told: u64) -> Result<(), Leap> {
    if told > TERM_MAX || told.saturating_sub(known) > LEAP_MAX {
        return Err(Leap { known, told });
    }
    Ok(())
}

impl From<Leap> for tonic::Status {
    fn from(leap: Leap) -> tonic::Status {
        tonic::Status::invalid_argument(leap.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a leap that is believed, and an ordinary election, or a long absence, that is not.
    #[test]
    fn terms_go_on_in_steps() {
        for (known, told) in [
            (0, 0),
            (0, 1),
            (7, 3),
            (5, 5 + 1_000_000),
            (0, LEAP_MAX),
            (TERM_MAX - 1, TERM_MAX),
        ] {
            assert_eq!(check(known, told), Ok(()), "{known} {told}");
        }
        for (known, told) in [
            (0, LEAP_MAX + 1),
            (5, u64::MAX),
            (TERM_MAX, TERM_MAX + 1),
            (u64::MAX - 1, u64::MAX),
        ] {
            assert!(check(known, told).is_err(), "{known} {told}");
        }
    }
}
