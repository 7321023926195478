//! While one broker group is away, what the others have goes on: a message that one of them can take is stored soon, and
//! no consumer group stands still in a queue that can be reached.
//!
//! Judged in worlds only in which nothing else goes wrong, and only from when everybody can have noticed it on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{Model, Send};
use crate::history::{Event, Queue, Target};
use crate::violation::Violation;
use crate::workload::is_too_large;

const NANOS_PER_MS: u64 = 1_000_000;

/// By then the registration of a group that is away has run out, and who lost an answer by it has asked for the route again.
const NOTICED_AFTER_MS: u64 = 8_000;

/// Longest that a send takes then.
const SENDS_WITHIN_MS: u64 = 2_500;

/// Longest that a consumer group is given nothing of a queue in which there is something for it: a member that vanished is
/// missed after its expiry, its successor says to all broker groups that it lives, and the others are left their time to
/// give a queue up. And some members wait themselves for what they asked about a queue that is away, twice in a row.
const STANDS_STILL_MS: u64 = 22_000;

/// A time in which a broker group was away.
struct Away {
    /// Nanoseconds.
    time: Range<u64>,
    queues: Range<u32>,
}

impl Away {
    fn has(&self, queue: u32) -> bool {
        self.queues.contains(&queue)
    }
}

impl<'a> Model<'a> {
    /// See the module's text.
    pub(super) fn others_go_on(&self) -> Result<(), Violation> {
        let mut records = self.records.iter();
        if !records.any(|record| record.event == Event::OthersGoOn) {
            return Ok(());
        }
        for away in self.times_away() {
            self.others_take(&away)?;
            self.others_give(&away)?;
        }
        Ok(())
    }

    fn times_away(&self) -> Vec<Away> {
        let mut since: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
        let mut times = Vec::new();
        for record in self.records {
            match record.event {
                Event::Away { first, end } => drop(since.insert(first, (record.at, end))),
                Event::Back { first } => {
                    if let Some((from, end)) = since.remove(&first) {
                        times.push(Away {
                            time: from..record.at,
                            queues: first..end,
                        });
                    }
                }
                _ => {}
            }
        }
        times
    }

    fn others_take(&self, away: &Away) -> Result<(), Violation> {
        let noticed = away.time.start + NOTICED_AFTER_MS * NANOS_PER_MS;
        let in_time = SENDS_WITHIN_MS * NANOS_PER_MS;
        for (value, send) in &self.sends {
            let called = self.records[send.called].at;
            let is_judged = (noticed..away.time.end.saturating_sub(in_time)).contains(&called);
            if !is_judged || is_too_large(*value) || !self.others_can_take(away, send) {
                continue;
            }
            let answered = send.returned.map(|returned| self.records[returned].at);
            if send.stored_at().is_some() && answered.is_some_and(|at| at <= called + in_time) {
                continue;
            }
            let detail = format!(
                "send {value:x} was not stored within {SENDS_WITHIN_MS} ms although another broker group could take it"
            );
            let proof = self.show(std::iter::once(send.called).chain(send.returned));
            return Err(Violation::new("others-go-on", detail).proved_by(proof));
        }
        Ok(())
    }

    fn others_can_take(&self, away: &Away, send: &Send<'_>) -> bool {
        match send.target {
            Target::Queue(queue) => !away.has(*queue),
            Target::Any | Target::Group(_) => {
                let queues = self.shared.get(send.topic).map_or(&[][..], |(_, all)| *all);
                queues.iter().any(|queue| !away.has(*queue))
            }
        }
    }

    /// Whoever has something to read in a queue at the beginning of the last stretch got something of it in the end.
    fn others_give(&self, away: &Away) -> Result<(), Violation> {
        let stretch = away.time.end.saturating_sub(STANDS_STILL_MS * NANOS_PER_MS);
        if stretch < away.time.start {
            return Ok(());
        }
        let began = self.records.partition_point(|record| record.at < stretch);
        let ended = self
            .records
            .partition_point(|record| record.at < away.time.end);
        let mut stored: BTreeMap<&Queue, u64> = BTreeMap::new();
        for place in self.sends.values().filter_map(|send| {
            let place = send.stored_at()?;
            (send.returned? < began && !away.has(place.queue.queue)).then_some(place)
        }) {
            let end = stored.entry(&place.queue).or_default();
            *end = (*end).max(place.offset + 1);
        }
        let got = self.got(..began);
        let gets: BTreeSet<(&str, &Queue)> = self.got(began..ended).into_keys().collect();
        let restless = self.restless(began..ended);
        let readers = self.readers(began).into_iter();
        for (group, topic) in readers.filter(|(group, _)| !restless.contains(group)) {
            for (queue, end) in stored.iter().filter(|(queue, _)| *queue.topic == *topic) {
                let next = got.get(&(group, *queue)).copied().unwrap_or(0);
                if next < *end && !gets.contains(&(group, *queue)) {
                    let detail = format!(
                        "{group} was given nothing of {}/{} from {next} on for {STANDS_STILL_MS} ms although it could be reached",
                        queue.topic, queue.queue
                    );
                    return Err(Violation::new("others-go-on", detail));
                }
            }
        }
        Ok(())
    }

    /// The next offset that nobody of a group got in each queue.
    fn got(
        &self,
        when: impl std::slice::SliceIndex<[crate::history::Record], Output = [crate::history::Record]>,
    ) -> BTreeMap<(&'a str, &'a Queue), u64> {
        let mut got: BTreeMap<_, u64> = BTreeMap::new();
        for record in &self.records[when] {
            if let Event::Delivery { member, place, .. } | Event::Handed { member, place, .. } =
                &record.event
            {
                let next = got.entry((&*member.group, &place.queue)).or_default();
                *next = (*next).max(place.offset + 1);
            }
        }
        got
    }

    /// Groups that lost more than one member then. Those that vanish keep their shares until they are missed, so where one
    /// follows the other, the one that lives may have the same queue each time, and the others belong to those that are gone.
    fn restless(&self, when: Range<usize>) -> BTreeSet<&'a str> {
        let mut left: BTreeMap<&str, u64> = BTreeMap::new();
        for record in &self.records[when] {
            if let Event::Leave { member } = &record.event {
                *left.entry(&member.group).or_default() += 1;
            }
        }
        let restless = left.into_iter().filter(|(_, members)| *members > 1);
        restless.map(|(group, _)| group).collect()
    }

    /// Who shares the queues of which topic. Who takes all of them works on one after the other, and waits for each.
    fn readers(&self, until: usize) -> BTreeSet<(&'a str, &'a str)> {
        let mut readers = BTreeSet::new();
        for record in &self.records[..until] {
            if let Event::Join {
                member,
                topic,
                assigned: false,
            } = &record.event
            {
                readers.insert((&*member.group, &**topic));
            }
        }
        readers
    }
}
