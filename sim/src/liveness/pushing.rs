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
    /// Offsets that need no further delivery: finished, or failed for good.
    over: BTreeSet<u64>,
    /// Where the last failure stands.
    failed: Option<usize>,
    /// Where the last question stands whose answer was that no retries are left.
    none_left: Option<usize>,
    committed: u64,
}

/// Every group of push consumers has worked on everything, has no retry left, and has committed that. So has every
/// push consumer that is alone, but for what only servers know.
pub(super) fn worked_off(
    plan: &Plan,
    bounds: &BTreeMap<Queue, (u64, u64)>,
    records: &[Record],
) -> Result<(), String> {
    let work = work(plan, records);
    for consumer in plan.who_must_get_all() {
        for (queue, (min, max)) in bounds {
            if queue.topic != consumer.topic || min >= max {
                continue;
            }
            let group = consumer.progress_of();
            let place = format!("{}/{}", queue.topic, queue.queue);
            let Some(work) = work.get(&(&*group, queue)) else {
                return Err(format!("{group} has done nothing in {place}"));
            };
            // Who is alone has nobody who keeps what it failed.
            let alone = consumer.alone.is_some();
            let through = if alone { &work.over } else { &work.done };
            if let Some(left) = (*min..*max).find(|offset| !through.contains(offset)) {
                return Err(format!("{group} is not done with {place}@{left}"));
            }
            if alone {
                continue;
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

fn work<'a>(plan: &Plan, records: &'a [Record]) -> BTreeMap<Key<'a>, Work> {
    let consumers = plan.who_must_get_all();
    let plans: BTreeMap<_, _> = consumers
        .map(|consumer| (consumer.progress_of(), consumer))
        .collect();
    let mut work: BTreeMap<Key<'_>, Work> = BTreeMap::new();
    let mut asked: BTreeMap<u64, (Key<'_>, usize)> = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        match &record.event {
            Event::Finished { member, place, .. } => {
                let work = work.entry((&member.group, &place.queue)).or_default();
                work.done.insert(place.offset);
                work.over.insert(place.offset);
            }
            Event::Failed {
                member,
                place,
                attempt,
                dead,
            } => {
                let work = work.entry((&member.group, &place.queue)).or_default();
                work.done.insert(place.offset);
                work.failed = Some(at);
                let plan = plans.get(&member.group);
                if plan.is_some_and(|plan| plan.is_last(*attempt, *dead)) {
                    work.over.insert(place.offset);
                }
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
