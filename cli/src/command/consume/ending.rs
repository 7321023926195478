//! When reading is over: pure. That nothing comes says nothing: servers elect a leader, or the output's reader is slow. Only
//! the offsets at which the queues ended at the beginning say that all was read.

use std::time::Duration;

use tokio::time::Instant;

use super::ConsumeArguments;

/// Silence after which `--count` gives up, once everything was read that was there.
const COUNT_PATIENCE: Duration = Duration::from_secs(3);
/// Time without a step forward, although there is more, after which reading has failed. Longer than elections and restarts.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(30);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// All that was there at the beginning is read.
    Ends,
    /// Nothing more came for so long after that.
    Silence(Duration),
    /// Somebody interrupts it.
    Interrupted,
}

/// How far reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// Everything was read that was there at the beginning.
    pub(super) ends: bool,
    /// Messages printed.
    pub(super) printed: u64,
    /// Grows with each step in any queue, whether something was printed or not.
    pub(super) steps: u64,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    Done,
    /// There is more, and it does not come.
    Stuck,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Ending {
    until: Until,
    last: Option<Reached>,
    /// When it was last another.
    moved: Instant,
}

impl Ending {
    pub(super) fn new(arguments: &ConsumeArguments, now: Instant) -> Ending {
        let until = match arguments.idle_timeout_ms {
            Some(idle_ms) => Until::Silence(Duration::from_millis(idle_ms)),
            None if arguments.follow => Until::Interrupted,
            None if arguments.count.is_some() => Until::Silence(COUNT_PATIENCE),
            None => Until::Ends,
        };
        Ending {
            until,
            last: None,
            moved: now,
        }
    }

    /// Whether what comes after the ends of the beginning is left out: there might be no end otherwise.
    pub(super) fn is_bounded(&self) -> bool {
        self.until == Until::Ends
    }

    /// Longest wait for messages before it must be looked at again.
    pub(super) fn wait_at_most(&self, wait: Duration) -> Duration {
        match self.until {
            Until::Silence(silence) => wait.min(silence),
            Until::Ends | Until::Interrupted => wait,
        }
    }

    /// Looks at where reading stands, after what came was printed.
    pub(super) fn look(&mut self, reached: Reached, now: Instant) -> Next {
        if self.last != Some(reached) {
            self.last = Some(reached);
            self.moved = now;
        }
        let silence = now.saturating_duration_since(self.moved);
        match self.until {
            Until::Interrupted => Next::GoOn,
            _ if !reached.ends && silence >= STUCK_AFTER => Next::Stuck,
            _ if !reached.ends => Next::GoOn,
            Until::Silence(longest) if silence < longest => Next::GoOn,
            Until::Silence(_) | Until::Ends => Next::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ConsumeArguments,
    }

    fn ending(flags: &str, now: Instant) -> Ending {
        let words = ["consume", "orders"].into_iter();
        let line = Line::parse_from(words.chain(flags.split_whitespace()));
        Ending::new(&line.arguments, now)
    }

    fn at(ends: bool, printed: u64) -> Reached {
        Reached {
            ends,
            printed,
            steps: printed,
        }
    }

    /// Catches an end that is called the end because the servers, or the output's reader, were silent for a while.
    #[test]
    fn silence_is_no_end_while_there_is_more() {
        let start = Instant::now();
        let almost = STUCK_AFTER - Duration::from_millis(1);
        for flags in ["", "--count 5000", "--idle-timeout-ms 1"] {
            let mut ending = ending(flags, start);
            assert_eq!(ending.look(at(false, 256), start), Next::GoOn);
            assert_eq!(ending.look(at(false, 256), start + almost), Next::GoOn);
            let stuck = ending.look(at(false, 256), start + STUCK_AFTER);
            assert_eq!(stuck, Next::Stuck, "{flags}: it is no success either");
        }
        let mut followed = ending("--follow", start);
        let late = start + 10 * STUCK_AFTER;
        assert_eq!(followed.look(at(false, 0), start), Next::GoOn);
        assert_eq!(followed.look(at(true, 0), late), Next::GoOn);
    }

    /// Catches a command that waits for what will not come, and one that does not wait as it was told to.
    #[test]
    fn behind_the_ends_it_waits_as_long_as_was_asked_for() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(ending("", start).look(at(true, 0), start), Next::Done);
        let mut idle = ending("--follow --idle-timeout-ms 100", start);
        assert_eq!(idle.look(at(false, 7), after(500)), Next::GoOn);
        assert_eq!(idle.look(at(true, 8), after(600)), Next::GoOn);
        assert_eq!(idle.look(at(true, 9), after(650)), Next::GoOn);
        assert_eq!(idle.look(at(true, 9), after(749)), Next::GoOn);
        assert_eq!(idle.look(at(true, 9), after(750)), Next::Done);
    }
}
