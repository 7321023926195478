//! How long many things took: a histogram of times in microseconds.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest time that is told apart from longer ones, microseconds: an hour.
const MICROSECONDS_MAX: u64 = 3_600_000_000;
/// Three digits are more than a shared machine repeats.
const DIGITS: u8 = 3;

/// Times of many like things.
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Times {
        let histogram = Histogram::new_with_bounds(1, MICROSECONDS_MAX, DIGITS);
        Times(histogram.expect("the bounds and the precision are constants and valid"))
    }
}

impl Times {
    /// One of them took this long.
    pub fn took(&mut self, time: Duration) {
        self.0
            .saturating_record(u64::try_from(time.as_micros()).unwrap_or(MICROSECONDS_MAX));
    }

    /// Takes over another's.
    pub fn merge(&mut self, other: &Times) {
        self.0
            .add(&other.0)
            .expect("all histograms have the same bounds");
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that a share of them did not exceed, microseconds.
    pub fn quantile_us(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }

    /// The longest, microseconds.
    pub fn max_us(&self) -> u64 {
        self.0.max()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Times;

    /// Catches a histogram that clamps what does not fit into its first size.
    #[test]
    fn long_times_are_not_cut_short() {
        let mut times = Times::default();
        times.took(Duration::from_secs(90));
        times.took(Duration::from_micros(100));
        assert!(times.quantile_us(0.99) > 89_000_000);
        assert_eq!(times.quantile_us(0.5), 100);
    }
}
