//! What must come back, on histories in which it does and in which it does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{drained, no_retries, sends, still_there, worked_off};
use crate::history::{Event, Member, Outcome, Place, Queue, Record, Target};
use crate::machine::Machine;
use crate::workload::{Plan, Size};

/// One topic, one group.
fn plan() -> Plan {
    let size = Size {
        topics: 1,
        groups: 1,
        ..Size::default()
    };
    let mut plan = Plan::draw(1, size);
    plan.producers.truncate(1);
    plan
}

fn records(events: Vec<Event>) -> Vec<Record> {
    let machine = Machine::Client(1);
    let record = |event| Record {
        at: 0,
        machine,
        event,
    };
    events.into_iter().map(record).collect()
}

fn queue(plan: &Plan) -> Queue {
    let topic = plan.topics[0].name.clone();
    Queue { topic, queue: 0 }
}

fn send(plan: &Plan, value: u64) -> Event {
    Event::Send {
        value,
        topic: plan.topics[0].name.clone(),
        target: Target::Any,
        lane: 1,
    }
}

fn sent(plan: &Plan, value: u64) -> Event {
    let place = Place {
        queue: queue(plan),
        offset: 0,
    };
    let outcome = Outcome::Done(place);
    Event::Sent { value, outcome }
}

fn delivery(plan: &Plan, group: &Arc<str>, offset: u64) -> Event {
    Event::Delivery {
        member: Member {
            group: group.clone(),
            member: 1,
        },
        place: Place {
            queue: queue(plan),
            offset,
        },
        value: Some(1),
    }
}

#[test]
fn a_producer_is_served_by_what_it_sends_after_the_heal() {
    let plan = plan();
    let served = vec![Event::Healed, send(&plan, 2), sent(&plan, 2)];
    assert_eq!(sends(&plan, &records(served)), Ok(()));
    let before = vec![send(&plan, 1), Event::Healed, sent(&plan, 1)];
    assert!(sends(&plan, &records(before)).is_err());
    let outcome = Outcome::Unknown("no answer".to_owned());
    let failed = Event::Sent { value: 2, outcome };
    let unanswered = vec![Event::Healed, send(&plan, 2), failed];
    assert!(sends(&plan, &records(unanswered)).is_err());
}

#[test]
fn every_group_must_come_to_the_end_of_every_queue() {
    let plan = plan();
    let group = plan.groups(&plan.topics[0].name).remove(0);
    let retrier = plan.retriers[0].group.clone();
    let bounds = BTreeMap::from([(queue(&plan), (0, 2))]);
    let read = |group: &Arc<str>, offset| delivery(&plan, group, offset);
    let all = vec![read(&group, 0), read(&group, 1), read(&retrier, 1)];
    assert_eq!(drained(&plan, &bounds, &records(all)), Ok(()));
    let first = vec![read(&group, 0), read(&retrier, 1)];
    assert!(drained(&plan, &bounds, &records(first)).is_err());
    let other = vec![read(&"another".into(), 1), read(&retrier, 1)];
    assert!(drained(&plan, &bounds, &records(other)).is_err());
    let no_retrier = vec![read(&group, 0), read(&group, 1)];
    assert!(drained(&plan, &bounds, &records(no_retrier)).is_err());
    // Nothing is left to read.
    let empty = BTreeMap::from([(queue(&plan), (2, 2))]);
    assert_eq!(drained(&plan, &empty, &records(Vec::new())), Ok(()));
}

#[test]
fn what_retention_took_meanwhile_is_not_waited_for() {
    let plan = plan();
    let held = BTreeMap::from([(queue(&plan), (0, 2))]);
    for (min, expected) in [(1, (1, 2)), (3, (3, 2))] {
        let left = BTreeMap::from([(queue(&plan), (min, 5))]);
        assert_eq!(still_there(&held, &left), [(queue(&plan), expected)].into());
    }
}

#[test]
fn nothing_must_be_left_to_deliver_again() {
    let plan = plan();
    let group = plan.retriers[0].group.clone();
    let send_back = |call| Event::SendBack {
        call,
        group: group.clone(),
        place: Place {
            queue: queue(&plan),
            offset: 0,
        },
        attempt: 1,
        dead: false,
        delay_ms: 0,
    };
    let asks = |call| Event::AskRetries {
        call,
        group: group.clone(),
        queue: queue(&plan),
    };
    let none = |call| Event::NoRetries { call };
    let left = |events| no_retries(&plan, &records(events));
    assert_eq!(left(Vec::new()), Ok(()));
    assert_eq!(left(vec![send_back(1), asks(2), none(2)]), Ok(()));
    assert!(left(vec![send_back(1), asks(2)]).is_err());
    // Asked before it was sent back, or before that was known.
    assert!(left(vec![asks(2), send_back(1), none(2)]).is_err());
    let outcome = Outcome::Done(());
    let known = Event::SentBack { call: 1, outcome };
    assert!(left(vec![send_back(1), asks(2), known, none(2)]).is_err());
}

#[test]
fn push_consumers_must_be_through() {
    let mut plan = plan();
    plan.push_consumers.truncate(1);
    let consumer = plan.push_consumers[0].clone();
    let place = Place {
        queue: queue(&plan),
        offset: 0,
    };
    let member = Member {
        group: consumer.group.clone(),
        member: 1,
    };
    let finished = Event::Finished {
        member: member.clone(),
        place: place.clone(),
        attempt: 1,
    };
    let failed = Event::Failed {
        member,
        place,
        attempt: 1,
        dead: true,
    };
    let told = |call, offset| {
        let (group, queue) = (consumer.group.clone(), queue(&plan));
        let offset = Some(offset);
        [
            Event::AskCommitted { call, group, queue },
            Event::ToldCommitted { call, offset },
        ]
    };
    let none_left = |call| {
        let (group, queue) = (consumer.group.clone(), queue(&plan));
        [
            Event::AskRetries { call, group, queue },
            Event::NoRetries { call },
        ]
    };
    let bounds = BTreeMap::from([(queue(&plan), (0, 1))]);
    let is_through = |events: &[&[Event]]| worked_off(&plan, &bounds, &records(events.concat()));
    for work in [finished, failed] {
        let work = &[work][..];
        assert_eq!(is_through(&[work, &told(1, 1), &none_left(2)]), Ok(()));
        assert!(is_through(&[&told(1, 1), &none_left(2)]).is_err());
        assert!(is_through(&[work, &told(1, 0), &none_left(2)]).is_err());
        assert!(is_through(&[work, &told(1, 1)]).is_err());
    }
    // Nothing is left to work on.
    let empty = BTreeMap::from([(queue(&plan), (1, 1))]);
    assert_eq!(worked_off(&plan, &empty, &[]), Ok(()));
}

/// Would catch one that failed a message, died, and went on behind it.
#[test]
fn who_keeps_its_own_progress_must_be_done_with_every_message() {
    let mut plan = plan();
    plan.push_consumers
        .retain(|consumer| consumer.alone.is_some());
    plan.push_consumers.truncate(1);
    plan.push_consumers[0].attempts_max = 2;
    let place = Place {
        queue: queue(&plan),
        offset: 0,
    };
    let member = Member {
        group: plan.push_consumers[0].progress_of(),
        member: 1,
    };
    let failed = |attempt| Event::Failed {
        member: member.clone(),
        place: place.clone(),
        attempt,
        dead: false,
    };
    let bounds = BTreeMap::from([(queue(&plan), (0, 1))]);
    let is_through = |events| worked_off(&plan, &bounds, &records(events));
    assert!(is_through(Vec::new()).is_err());
    assert!(is_through(vec![failed(1)]).is_err());
    assert_eq!(is_through(vec![failed(1), failed(2)]), Ok(()));
}
