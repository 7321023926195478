//! Who keeps its own progress and was told that it is saved goes on there, whatever became of its machine.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use crate::history::{Event, Queue};
use crate::violation::Violation;

/// How far each queue is saved, and the record that said so.
type Saved<'a> = BTreeMap<&'a Queue, (u64, usize)>;

/// What one consumer did in a queue, from its making to its end. What it was given first is where it began: what an
/// earlier one finished counts only if that one had saved it.
struct Work {
    next: u64,
    finished: BTreeSet<u64>,
}

impl Work {
    /// The lowest offset, from where it began, that it has not finished.
    fn next(&mut self) -> u64 {
        while self.finished.remove(&self.next) {
            self.next += 1;
        }
        self.next
    }
}

#[derive(Default)]
struct Walk<'a> {
    work: BTreeMap<(u64, &'a Queue), Work>,
    /// By call: whose progress, and what it must cover.
    saves: BTreeMap<u64, (&'a str, BTreeMap<&'a Queue, u64>)>,
    saved: BTreeMap<&'a str, Saved<'a>>,
    /// What was saved when a consumer was made.
    joined: BTreeMap<u64, Saved<'a>>,
    /// Consumers that lived when a broker group was lost.
    of_the_lost: BTreeSet<u64>,
}

impl<'a> Walk<'a> {
    fn step(&mut self, at: usize, event: &'a Event) {
        match event {
            Event::Join { member, .. } => {
                let saved = self.saved.get(&*member.group).cloned();
                self.joined.insert(member.member, saved.unwrap_or_default());
            }
            // What was saved speaks of the history that is lost; and so may whatever those save who were there.
            Event::Restored => {
                let mut of_the_lost = std::mem::take(&mut self.of_the_lost);
                of_the_lost.extend(self.work.keys().map(|(member, _)| *member));
                of_the_lost.extend(self.joined.keys());
                *self = Walk {
                    of_the_lost,
                    ..Walk::default()
                };
            }
            Event::Finished { member, place, .. } => {
                if let Some(work) = self.work.get_mut(&(member.member, &place.queue)) {
                    work.finished.insert(place.offset);
                }
            }
            Event::Save { call, member } if !self.of_the_lost.contains(&member.member) => {
                let own = self.work.iter_mut();
                let own = own.filter(|((of, _), _)| *of == member.member);
                let covered = own.map(|((_, queue), work)| (*queue, work.next()));
                self.saves.insert(*call, (&member.group, covered.collect()));
            }
            Event::Saved { call } => {
                let Some((whose, covered)) = self.saves.remove(call) else {
                    return;
                };
                let saved = self.saved.entry(whose).or_default();
                for (queue, offset) in covered {
                    let known = saved.entry(queue).or_insert((offset, at));
                    if offset > known.0 {
                        *known = (offset, at);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Model<'_> {
    /// A later consumer is given nothing again that lies below.
    pub(super) fn own_progress_kept(&self) -> Result<(), Violation> {
        let mut walk = Walk::default();
        for (at, record) in self.records.iter().enumerate() {
            let Event::Handed {
                member,
                place,
                attempt: 1,
                ..
            } = &record.event
            else {
                walk.step(at, &record.event);
                continue;
            };
            let work = walk.work.entry((member.member, &place.queue));
            work.or_insert(Work {
                next: place.offset,
                finished: BTreeSet::new(),
            });
            let saved = walk.joined.get(&member.member);
            if let Some((offset, said_by)) = saved.and_then(|saved| saved.get(&place.queue))
                && place.offset < *offset
            {
                let what = format!(
                    "{} had saved {offset} in {}/{} before this consumer was made, and it gets {}",
                    member.group, place.queue.topic, place.queue.queue, place.offset
                );
                let proof = self.show([*said_by, at]);
                return Err(Violation::new("own-progress-is-kept", what).proved_by(proof));
            }
        }
        Ok(())
    }
}
