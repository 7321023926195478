//! What retention had dropped at a moment, at most: the only excuse for a message that nobody was given.

use std::collections::BTreeMap;

use crate::history::{Event, Queue, Record};

/// See the module's text.
pub(super) struct Dropped<'a> {
    /// Where a question stands, and where the queue began then or a little later: by place.
    began: BTreeMap<&'a Queue, BTreeMap<usize, u64>>,
}

impl<'a> Dropped<'a> {
    pub(super) fn of(records: &'a [Record]) -> Dropped<'a> {
        let mut asked: BTreeMap<u64, usize> = BTreeMap::new();
        let mut began: BTreeMap<&Queue, BTreeMap<usize, u64>> = BTreeMap::new();
        for (at, record) in records.iter().enumerate() {
            match &record.event {
                Event::AskBounds { call } => drop(asked.insert(*call, at)),
                Event::Bounds {
                    call,
                    queue,
                    min_offset,
                    ..
                } => {
                    if let Some(asked) = asked.get(call) {
                        began.entry(queue).or_default().insert(*asked, *min_offset);
                    }
                }
                _ => {}
            }
        }
        Dropped { began }
    }

    /// Everything that was dropped from the queue before the record at `at` lies below this offset. A question that was
    /// asked later and was answered by who leads covers it; without one, anything may have been dropped.
    pub(super) fn by(&self, queue: &Queue, at: usize) -> u64 {
        let Some(began) = self.began.get(queue) else {
            return 0;
        };
        let later = began.range(at..).next();
        later.map_or(u64::MAX, |(_, min)| *min)
    }
}
