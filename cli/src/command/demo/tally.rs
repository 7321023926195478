//! The demo's accounts: what was sent, acknowledged and received, and what that adds up to.
//!
//! Pure bookkeeping, so that the verdict does not depend on how fast anything was.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::envelope;

/// One message as a consumer got it.
pub(crate) struct Received<'a> {
    /// Which of the consumers.
    pub(crate) consumer: usize,
    /// The queue it stood in.
    pub(crate) queue: u32,
    /// The message group that it was sent with.
    pub(crate) message_group: &'a str,
    /// What it carried.
    pub(crate) body: &'a [u8],
}

/// Everything known about the run so far.
pub(crate) struct Tally {
    lines: Vec<bytes::Bytes>,
    acked: Vec<bool>,
    /// By which consumer first.
    received: Vec<Option<usize>>,
    sent_count: usize,
    acked_count: usize,
    received_count: usize,
    duplicated: u64,
    duplicated_by_hand_over: u64,
    out_of_order: u64,
    strange: u64,
    /// The newest line of each (consumer, queue, message group).
    newest: BTreeMap<(usize, u32, String), usize>,
    /// Pairs of (term, leader) that were seen.
    leaders: BTreeSet<(u64, u64)>,
}

/// The demo's last line.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Verdict {
    /// Messages handed to the producer.
    pub(crate) sent: usize,
    /// Messages that the producer was told were stored.
    pub(crate) acked: usize,
    /// Different messages that the consumers received unchanged.
    pub(crate) received: usize,
    /// Messages acknowledged and never received.
    pub(crate) lost: usize,
    /// Deliveries beyond the first of a message.
    pub(crate) duplicated: u64,
    /// Of these: to another consumer than the first, because the queue went from one to the other.
    pub(crate) duplicated_by_hand_over: u64,
    /// First deliveries that came after a later message of their queue and message group.
    pub(crate) out_of_order: u64,
    /// How often another leader, or the same in another term, took over.
    pub(crate) leader_changes: usize,
    /// Longest time without an acknowledgement while messages waited for one.
    pub(crate) longest_unacked_gap_ms: u64,
    /// From the first send to the last message received.
    pub(crate) seconds: f64,
}

impl Tally {
    /// Nothing of `lines` has been sent yet.
    pub(crate) fn new(lines: Vec<bytes::Bytes>) -> Tally {
        let count = lines.len();
        Tally {
            lines,
            acked: vec![false; count],
            received: vec![None; count],
            sent_count: 0,
            acked_count: 0,
            received_count: 0,
            duplicated: 0,
            duplicated_by_hand_over: 0,
            out_of_order: 0,
            strange: 0,
            newest: BTreeMap::new(),
            leaders: BTreeSet::new(),
        }
    }

    /// A line was handed to the producer.
    pub(crate) fn sent(&mut self) {
        self.sent_count += 1;
    }

    /// The producer was told that line `number` is stored.
    pub(crate) fn acked(&mut self, number: usize) {
        if !std::mem::replace(&mut self.acked[number], true) {
            self.acked_count += 1;
        }
    }

    /// A broker was seen leading.
    pub(crate) fn led(&mut self, term: u64, broker_id: u64) {
        self.leaders.insert((term, broker_id));
    }

    /// A consumer got a message.
    pub(crate) fn received(&mut self, received: &Received<'_>) {
        let Some((number, line)) = envelope::open(received.body) else {
            self.strange += 1;
            return;
        };
        if self
            .lines
            .get(number)
            .is_none_or(|expected| *expected != line)
        {
            self.strange += 1;
            return;
        }
        if let Some(first) = self.received[number] {
            self.duplicated += 1;
            self.duplicated_by_hand_over += u64::from(first != received.consumer);
            return;
        }
        self.received[number] = Some(received.consumer);
        self.received_count += 1;
        let place = (
            received.consumer,
            received.queue,
            received.message_group.to_owned(),
        );
        let newest = self.newest.entry(place).or_insert(number);
        if number < *newest {
            self.out_of_order += 1;
        }
        *newest = number.max(*newest);
    }

    /// How many were sent, acknowledged and received so far.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.sent_count, self.acked_count, self.received_count)
    }

    /// Messages acknowledged and not received so far.
    pub(crate) fn missing(&self) -> usize {
        let pairs = self.acked.iter().zip(&self.received);
        pairs
            .filter(|(acked, received)| **acked && received.is_none())
            .count()
    }

    /// Messages that nobody sent, or that were changed on their way.
    pub(crate) fn strange(&self) -> u64 {
        self.strange
    }

    /// What it adds up to, if nothing more arrives.
    pub(crate) fn verdict(&self, longest_unacked_gap_ms: u64, seconds: f64) -> Verdict {
        Verdict {
            sent: self.sent_count,
            acked: self.acked_count,
            received: self.received_count,
            lost: self.missing(),
            duplicated: self.duplicated,
            duplicated_by_hand_over: self.duplicated_by_hand_over,
            out_of_order: self.out_of_order,
            leader_changes: self.leaders.len().saturating_sub(1),
            longest_unacked_gap_ms,
            seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Received, Tally};
    use crate::command::demo::envelope;

    fn tally() -> Tally {
        let mut tally = Tally::new(["a", "", "c", "d"].map(Bytes::from).to_vec());
        for number in 0..4 {
            tally.sent();
            tally.acked(number);
        }
        tally
    }

    fn receive(tally: &mut Tally, consumer: usize, number: usize, line: &str) {
        let body = envelope::wrap(number, line.as_bytes());
        tally.received(&Received {
            consumer,
            queue: 0,
            message_group: "g",
            body: &body,
        });
    }

    /// Catches a demo that ends well although an acknowledged line never arrived, or arrived changed.
    #[test]
    fn what_was_acknowledged_and_did_not_arrive_unchanged_is_lost() {
        let mut tally = tally();
        receive(&mut tally, 0, 0, "a");
        receive(&mut tally, 0, 1, "");
        receive(&mut tally, 0, 2, "changed");
        let verdict = tally.verdict(0, 0.0);
        assert_eq!((verdict.received, verdict.lost, tally.strange()), (2, 2, 1));
    }

    /// Catches counting a redelivery as disorder, and disorder as nothing.
    #[test]
    fn a_redelivery_is_a_duplicate_and_a_late_first_delivery_is_disorder() {
        let mut tally = tally();
        receive(&mut tally, 0, 0, "a");
        receive(&mut tally, 0, 2, "c");
        receive(&mut tally, 1, 0, "a");
        receive(&mut tally, 0, 1, "");
        receive(&mut tally, 1, 3, "d");
        let verdict = tally.verdict(0, 0.0);
        assert_eq!(
            (verdict.duplicated, verdict.out_of_order, verdict.lost),
            (1, 1, 0)
        );
        assert_eq!(verdict.duplicated_by_hand_over, 1);
        receive(&mut tally, 1, 3, "d");
        let verdict = tally.verdict(0, 0.0);
        assert_eq!(
            (verdict.duplicated, verdict.duplicated_by_hand_over),
            (2, 1)
        );
    }

    /// Catches a first election that counts as a change.
    #[test]
    fn the_first_leader_is_no_change() {
        let mut tally = tally();
        tally.led(1, 1);
        tally.led(1, 1);
        assert_eq!(tally.verdict(0, 0.0).leader_changes, 0);
        tally.led(2, 3);
        assert_eq!(tally.verdict(0, 0.0).leader_changes, 1);
    }
}
