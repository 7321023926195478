//! When push consumers have nothing left to do.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, Queue, Record};
use crate::workload::Plan;

type Key<'a> = (&'a str, &'a Queue);

/// What a group did in a queue, and was told of it.
#[derive(Default)]
struct Work {
    /// Offsets that were finished, or failed.
    done: BTreeSet<u64>,
    /// Where the last failure stands.
    failed: Option<usize>,
    /// Where the last question stands whose answer was that no retries are left.
    none_left: Option<usize>,
    committed: u64,
}

/// Every group of push consumers has worked on everything, has no retry left, and has committed that.
pub(super) fn worked_off(
    plan: &Plan,
    bounds: &BTreeMap<Queue, (u64, u64)>,
    records: &[Record],
) -> Result<(), String> {
    let work = work(records);
    for consumer in plan.push_groups() {
        for (queue, (min, max)) in bounds {
            if queue.topic != consumer.topic || min >= max {
                continue;
            }
            let group = &consumer.group;
            let place = format!("{}/{}", queue.topic, queue.queue);
            let Some(work) = work.get(&(&**group, queue)) else {
                return Err(format!("{group} has done nothing in {place}"));
            };
            if let Some(left) = (*min..*max).find(|offset| !work.done.contains(offset)) {
                return Err(format!("{group} has not worked on {place}@{left}"));
            }
            if work.none_left <= work.failed {
                return Err(format!("{group} has retries in {place}"));
            }
            if work.committed < *max {
                let committed = work.committed;
                return Err(format!(
                    "{group} has committed {committed} of {max} in {place}"
                ));
            }
        }
    }
    Ok(())
}

fn work(records: &[Record]) -> BTreeMap<Key<'_>, Work> {
    let mut work: BTreeMap<Key<'_>, Work> = BTreeMap::new();
    let mut asked: BTreeMap<u64, (Key<'_>, usize)> = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        match &record.event {
            Event::Finished { member, place, .. } => {
                let work = work.entry((&member.group, &place.queue)).or_default();
                work.done.insert(place.offset);
            }
            Event::Failed { member, place, .. } => {
                let work = work.entry((&member.group, &place.queue)).or_default();
                work.done.insert(place.offset);
                work.failed = Some(at);
            }
            Event::AskCommitted { call, group, queue }
            | Event::AskRetries { call, group, queue } => {
                asked.insert(*call, ((group, queue), at));
            }
            Event::ToldCommitted { call, offset } => {
                if let Some((key, _)) = asked.get(call) {
                    let work = work.entry(*key).or_default();
                    work.committed = work.committed.max(offset.unwrap_or(0));
                }
            }
            Event::NoRetries { call } => {
                if let Some((key, at)) = asked.get(call) {
                    work.entry(*key).or_default().none_left = Some(*at);
                }
            }
            _ => {}
        }
    }
    work
}
