//! One broker group is away: histories in which the others go on, and in which they do not.

use super::judge;
use crate::history::{Event, Member, Outcome, Place, Queue, Record, Target, Value};
use crate::machine::Machine;

const TOPIC: &str = "topic-0";
const SECOND: u64 = 1_000_000_000;

fn place(queue: u32, offset: u64) -> Place {
    let topic = TOPIC.into();
    Place {
        queue: Queue { topic, queue },
        offset,
    }
}

/// A history told by seconds: queues 0 and 10 lie in two broker groups, and those from 10 on are away from second 10 to 40.
struct Story {
    records: Vec<Record>,
}

fn story() -> Story {
    let story = Story {
        records: Vec::new(),
    };
    let shared = Event::Shared {
        topic: TOPIC.into(),
        groups: 2,
        queues: vec![0, 10],
    };
    story.at(0, Event::OthersGoOn).at(0, shared)
}

impl Story {
    fn at(mut self, second: u64, event: Event) -> Story {
        let machine = Machine::Client(1);
        let at = second * SECOND;
        self.records.push(Record { at, machine, event });
        self
    }

    fn send(self, second: u64, value: Value, target: Target) -> Story {
        let topic = TOPIC.into();
        let send = Event::Send {
            value,
            topic,
            target,
            lane: 1,
        };
        self.at(second, send)
    }

    fn stored(self, second: u64, value: Value, place: Place) -> Story {
        let outcome = Outcome::Done(place);
        self.at(second, Event::Sent { value, outcome })
    }

    fn unknown(self, second: u64, value: Value) -> Story {
        let outcome = Outcome::Unknown("no answer".to_owned());
        self.at(second, Event::Sent { value, outcome })
    }

    fn away(self) -> Story {
        self.at(10, Event::Away { first: 10, end: 20 })
    }

    fn back(self) -> Story {
        self.at(40, Event::Back { first: 10 })
    }

    fn joins(self, second: u64) -> Story {
        let join = Event::Join {
            member: member(),
            topic: TOPIC.into(),
            assigned: false,
        };
        self.at(second, join)
    }

    fn leaves(self, second: u64) -> Story {
        let member = member();
        self.at(second, Event::Leave { member })
    }

    fn gets(self, second: u64, place: Place, value: Value) -> Story {
        let delivery = Event::Delivery {
            member: member(),
            place,
            value: Some(value),
        };
        self.at(second, delivery)
    }

    #[track_caller]
    fn holds(self) {
        if let Err(violation) = judge(&self.records) {
            panic!("{violation}");
        }
    }

    #[track_caller]
    fn breaks(self) {
        let violation = judge(&self.records).expect_err("this is wrong");
        assert_eq!(violation.invariant, "others-go-on", "{violation}");
    }
}

fn member() -> Member {
    Member {
        group: "group-0".into(),
        member: 1,
    }
}

/// Would catch a producer that gives all groups up, or waits, when one is down.
#[test]
fn what_another_group_can_take_is_taken() {
    let target = || Target::Group("g".to_owned());
    let sends = |second| story().away().send(second, 1, target());
    sends(20).stored(21, 1, place(0, 0)).back().holds();
    sends(20).stored(24, 1, place(0, 0)).back().breaks();
    sends(20).unknown(21, 1).back().breaks();
    // Nobody can know it yet.
    sends(12).unknown(22, 1).back().holds();
    // It was back before an answer was due.
    sends(39).back().unknown(49, 1).holds();
}

/// Would catch a check that asks for what nobody can give, and one that asks for nothing of named queues.
#[test]
fn a_queue_that_is_named_must_be_reachable_to_be_asked_for() {
    let sends = |queue| story().away().send(20, 1, Target::Queue(queue));
    sends(10).unknown(30, 1).back().holds();
    sends(0).unknown(30, 1).back().breaks();
}

/// Would catch a consumer that reads nothing while one of its queues cannot be read.
#[test]
fn nobody_stands_still_in_a_queue_that_can_be_reached() {
    let stored = |queue| {
        let sent = story().joins(0).send(1, 1, Target::Queue(queue));
        sent.stored(2, 1, place(queue, 0)).away()
    };
    stored(0).gets(30, place(0, 0), 1).back().holds();
    stored(0).gets(12, place(0, 0), 1).back().holds();
    stored(0).back().gets(41, place(0, 0), 1).breaks();
    stored(10).back().gets(41, place(10, 0), 1).holds();
    // One that vanishes is followed by another in time; one after the other leave it their shares.
    stored(0).leaves(20).joins(21).back().breaks();
    stored(0)
        .leaves(20)
        .joins(21)
        .leaves(25)
        .joins(26)
        .back()
        .holds();
}

/// Would catch message groups that may change their queue although their topic lies in one broker group.
#[test]
fn message_groups_move_only_where_broker_groups_share_their_topic() {
    let moves = |groups| {
        let shared = Event::Shared {
            topic: TOPIC.into(),
            groups,
            queues: vec![0, 1],
        };
        let story = Story {
            records: Vec::new(),
        }
        .at(0, shared);
        let target = || Target::Group("g".to_owned());
        let first = story.send(1, 1, target()).stored(2, 1, place(0, 0));
        first.send(3, 2, target()).stored(4, 2, place(1, 0))
    };
    moves(2).holds();
    let violation = judge(&moves(1).records).expect_err("this is wrong");
    assert_eq!(violation.invariant, "one-queue-per-group");
    // In each of its queues they keep their order.
    let target = || Target::Group("g".to_owned());
    let swapped = story()
        .send(1, 1, target())
        .stored(2, 1, place(0, 1))
        .send(3, 2, target())
        .stored(4, 2, place(0, 0));
    let violation = judge(&swapped.records).expect_err("this is wrong");
    assert_eq!(violation.invariant, "sent-order");
}
