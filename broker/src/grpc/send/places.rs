//! Where the messages of one request are, told to whoever sent them elsewhere. Pure.
//!
//! The contract's answer has offsets and no queues: a client takes the queue that it named. Where that is wrong, because a
//! message group decided or the message had been stored before, metadata of the answer say it ([`gateway::QUEUES`]).

use std::fmt::Write;

use proto::QueueId;

/// Longest text, in bytes: metadata are bounded. Queues that do not fit are not told; that takes two thousand changes from
/// one queue to another within one request.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// By position in the request: the queue that was named, and then where the message is.
#[derive(Default)]
pub(super) struct Places {
    queues: Vec<i32>,
    differ: bool,
}

impl Places {
    /// The next message names this queue.
    pub(super) fn add(&mut self, named: i32) {
        self.queues.push(named);
    }

    /// A message is in this queue.
    pub(super) fn is_in(&mut self, position: usize, queue: QueueId) {
        let queue = queue as i32;
        self.differ |= self.queues[position] != queue;
        self.queues[position] = queue;
    }

    /// What the answer says beside its offsets; nothing if every message is where it was sent to.
    pub(super) fn header(&self) -> Option<String> {
        if !self.differ {
            return None;
        }
        let mut text = String::new();
        for run in self.queues.chunk_by(|one, next| one == next) {
            let before = text.len();
            let comma = if before == 0 { "" } else { "," };
            write!(text, "{comma}{}*{}", run[0], run.len()).expect("a String takes any text");
            if text.len() > HEADER_BYTES_MAX {
                text.truncate(before);
                break;
            }
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a receipt that names the wrong queue, and a header that no transport takes.
    #[test]
    fn runs_of_queues_are_told_if_they_are_others() {
        let mut places = Places::default();
        for named in [2, 2, 2, 5] {
            places.add(named);
        }
        places.is_in(0, 2);
        assert_eq!(places.header(), None);
        places.is_in(2, 3);
        assert_eq!(places.header().unwrap(), "2*2,3*1,5*1");
        let mut many = Places::default();
        for named in 0..10_000 {
            many.add(named % 2);
        }
        many.is_in(0, 9);
        let header = many.header().unwrap();
        assert!(header.len() <= HEADER_BYTES_MAX);
        assert!(header.ends_with("*1"), "a run is told as a whole");
    }
}
