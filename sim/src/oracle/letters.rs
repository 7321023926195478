//! Dead letters stay for their time, whatever any clock says, and not much longer.
//!
//! A queue of dead letters has one for each message that a group gave up, in the order in which they died: whoever died was
//! given up before. So how many are gone says how old the youngest of them is at most, and nobody has to have read them.
//! Ages are those of the simulated time, which no clock of the world shows.

use std::collections::BTreeMap;

use super::Model;
use crate::history::{Event, Place, Queue, Record};
use crate::operator::DEAD_LETTERS;
use crate::violation::Violation;

/// What a letter may be late beside its time once more, in nanoseconds: nobody leads for a while, and what passed while all
/// replicas were away is not counted.
const LATE_NS: u64 = 20_000_000_000;

#[derive(Default)]
struct Walk<'a> {
    attempts_max: BTreeMap<&'a str, u32>,
    /// When each message was given up, the last time that counts.
    given: BTreeMap<(&'a str, &'a Place), u64>,
    /// Where that stands, of each group.
    deaths: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Model<'a> {
    /// Nobody is told that dead letters begin behind one that is younger than what is kept.
    pub(super) fn letters_kept(&self) -> Result<(), Violation> {
        let Some(kept_ns) = self.letters_kept_ns() else {
            return Ok(());
        };
        let mut walk = Walk::default();
        for (at, record) in self.records.iter().enumerate() {
            if let Event::Bounds {
                queue, min_offset, ..
            } = &record.event
                && let Some(group) = queue.topic.strip_prefix(DEAD_LETTERS)
                && *min_offset > 0
            {
                // The youngest of so many is at most as old as the youngest of those that were given up first.
                let deaths = walk.deaths.get(group).map_or(&[][..], Vec::as_slice);
                let youngest = deaths.get(*min_offset as usize - 1);
                let is_old = |died: &usize| self.records[*died].at + kept_ns <= record.at;
                if !youngest.is_some_and(is_old) {
                    let what = format!(
                        "{min_offset} dead letters of {group} are gone, and not so many died {} ms ago",
                        kept_ns / 1_000_000
                    );
                    let proof = self.show(youngest.copied().into_iter().chain([at]));
                    return Err(
                        Violation::new("letters-kept-for-their-time", what).proved_by(proof)
                    );
                }
            }
            walk.step(at, record, self.remembered_ns);
        }
        Ok(())
    }

    /// In the end none is there that was there when it could be twice as old as what is kept by now.
    pub(super) fn letters_gone(&self) -> Result<(), Violation> {
        let (Some(kept_ns), Some(end)) = (self.letters_kept_ns(), self.end()) else {
            return Ok(());
        };
        // Of each queue: when somebody was told where it ends, and where it begins at last.
        let mut ends: BTreeMap<&Queue, Vec<(usize, u64)>> = BTreeMap::new();
        let mut begins: BTreeMap<&Queue, (usize, u64)> = BTreeMap::new();
        for (at, record) in self.records[..end].iter().enumerate() {
            if let Event::Bounds {
                queue,
                min_offset,
                max_offset,
                ..
            } = &record.event
                && queue.topic.starts_with(DEAD_LETTERS)
            {
                ends.entry(queue).or_default().push((at, *max_offset));
                begins.insert(queue, (at, *min_offset));
            }
        }
        for (queue, (asked, begin)) in begins {
            let old =
                |at: usize| self.records[at].at + 2 * kept_ns + LATE_NS < self.records[asked].at;
            let stays = |(at, end): &&(usize, u64)| *end > begin && old(*at);
            if let Some((at, end)) = ends[queue].iter().find(stays) {
                let letter = end - 1;
                let what = format!("dead letter {letter} of {} is still there", queue.topic);
                let proof = self.show([*at, asked]);
                return Err(Violation::new("letters-go-after-their-time", what).proved_by(proof));
            }
        }
        Ok(())
    }

    fn letters_kept_ns(&self) -> Option<u64> {
        self.records.iter().find_map(|record| match record.event {
            Event::LettersKeptFor { ms } => Some(ms * 1_000_000),
            _ => None,
        })
    }
}

impl<'a> Walk<'a> {
    fn step(&mut self, at: usize, record: &'a Record, remembered_ns: u64) {
        let (group, place, attempt, dead) = match &record.event {
            Event::GroupMade {
                group,
                attempts_max,
                ..
            } => {
                self.attempts_max.insert(group, *attempts_max);
                return;
            }
            Event::SendBack {
                group,
                place,
                attempt,
                dead,
                ..
            } => (group, place, *attempt, *dead),
            Event::Failed {
                member,
                place,
                attempt,
                dead,
            } => (&member.group, place, *attempt, *dead),
            _ => return,
        };
        let allowed = self.attempts_max.get(&**group);
        if !dead && allowed.is_none_or(|allowed| attempt < *allowed) {
            return;
        }
        // Again only after brokers may have forgotten that it died.
        let given = self.given.entry((group, place)).or_insert(record.at);
        if *given == record.at || record.at - *given > remembered_ns {
            *given = record.at;
            self.deaths.entry(group).or_default().push(at);
        }
    }
}
