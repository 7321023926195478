//! What is sent back, on histories in which it comes again and in which it does not.

use super::judge;
use crate::history::{Event, Member, Outcome, Place, Queue, Record, Value};
use crate::machine::Machine;
use crate::operator::READER;

const TOPIC: &str = "topic-0";
const GROUP: &str = "retry-topic-0";
const ATTEMPTS_MAX: u32 = 4;
/// The call that asks what all queues hold.
const BOUNDS: u64 = 1_000_000;

fn queue(topic: &str) -> Queue {
    Queue {
        topic: topic.into(),
        queue: 0,
    }
}

fn place(offset: u64) -> Place {
    let queue = queue(TOPIC);
    Place { queue, offset }
}

/// Of one message: value 7 at offset 0, which the group got. Each step takes so many seconds.
struct Story {
    records: Vec<Record>,
    calls: u64,
    step: u64,
    /// What it asks for when it sends back.
    delay_ms: u64,
}

impl Story {
    fn new() -> Story {
        let story = Story {
            records: Vec::new(),
            calls: 0,
            step: 1,
            delay_ms: 0,
        };
        let send = Event::Send {
            value: 7,
            topic: TOPIC.into(),
            target: crate::history::Target::Any,
            lane: 1,
        };
        let outcome = Outcome::Done(place(0));
        let made = Event::GroupMade {
            group: GROUP.into(),
            attempts_max: ATTEMPTS_MAX,
            in_order: false,
            alone: false,
        };
        let story = story
            .then(made)
            .then(send)
            .then(Event::Sent { value: 7, outcome });
        story.gets(GROUP)
    }

    fn then(mut self, event: Event) -> Story {
        let at = self.records.last().map_or(0, |record| record.at) + self.step * 1_000_000_000;
        let machine = Machine::Client(1);
        self.records.push(Record { at, machine, event });
        self
    }

    fn gets(self, group: &str) -> Story {
        self.then(Event::Delivery {
            member: Member {
                group: group.into(),
                member: 1,
            },
            place: place(0),
            value: Some(7),
        })
    }

    fn sends_back(self, attempt: u32, outcome: Outcome<()>) -> Story {
        self.fails(attempt, false, outcome)
    }

    fn gives_up(self, attempt: u32, outcome: Outcome<()>) -> Story {
        self.fails(attempt, true, outcome)
    }

    fn fails(mut self, attempt: u32, dead: bool, outcome: Outcome<()>) -> Story {
        self.calls += 1;
        let call = self.calls;
        let send_back = Event::SendBack {
            call,
            group: GROUP.into(),
            place: place(0),
            attempt,
            dead,
            delay_ms: self.delay_ms,
        };
        self.then(send_back).then(Event::SentBack { call, outcome })
    }

    fn asks(mut self) -> Story {
        self.calls += 1;
        let call = self.calls;
        self.then(Event::AskRetries {
            call,
            group: GROUP.into(),
            queue: queue(TOPIC),
        })
    }

    /// What the last question was answered with.
    fn gets_again(self, attempt: u32) -> Story {
        let call = self.calls;
        self.then(Event::Redelivery {
            call,
            group: GROUP.into(),
            place: place(0),
            attempt,
            value: Some(7),
        })
    }

    fn settles(self, attempt: u32, outcome: Outcome<()>) -> Story {
        let call = 1_000 + self.records.len() as u64;
        let settle = Event::Settle {
            call,
            group: GROUP.into(),
            place: place(0),
            attempt,
        };
        self.then(settle).then(Event::Settled { call, outcome })
    }

    fn is_dead(self, offset: u64, origin: &str, value: Value) -> Story {
        let queue = queue(&format!("%DLQ%{GROUP}"));
        self.then(Event::DeadLetter {
            group: GROUP.into(),
            place: Place { queue, offset },
            origin: origin.to_owned(),
            value: Some(value),
        })
    }

    /// From now on each step takes longer.
    fn slowly(self) -> Story {
        Story { step: 50, ..self }
    }

    /// Everything is read; the dead letters begin there.
    fn ends(self, letters_from: u64) -> Story {
        let bounds = |queue, min_offset| Event::Bounds {
            call: BOUNDS,
            queue,
            min_offset,
            max_offset: 1,
        };
        let story = self.gets(READER).then(Event::AskBounds { call: BOUNDS });
        let story = story.then(bounds(queue(TOPIC), 0));
        let letters = queue(&format!("%DLQ%{GROUP}"));
        story.then(bounds(letters, letters_from)).then(Event::End)
    }

    #[track_caller]
    fn holds(self) {
        if let Err(violation) = judge(&self.records) {
            panic!("{violation}\n{}", violation.proof.join("\n"));
        }
    }

    #[track_caller]
    fn breaks(self, invariant: &str) {
        let violation = judge(&self.records).expect_err("the history is wrong");
        assert_eq!(violation.invariant, invariant, "{violation}");
        assert!(!violation.proof.is_empty(), "{violation} is not proved");
    }
}

fn done() -> Outcome<()> {
    Outcome::Done(())
}

fn unknown() -> Outcome<()> {
    Outcome::Unknown("no answer".to_owned())
}

#[test]
fn what_is_sent_back_comes_again_or_is_dead() {
    let sent_back = || Story::new().sends_back(1, done());
    sent_back().ends(0).breaks("sent-back-comes-again");
    sent_back().asks().gets_again(2).ends(0).holds();
    let gave_up = || Story::new().gives_up(1, done());
    gave_up().is_dead(0, TOPIC, 7).ends(0).holds();
    gave_up().ends(0).breaks("sent-back-comes-again");
    // Dropped after its time, which what is not dead has none of; or settled by somebody else.
    gave_up().ends(1).holds();
    sent_back().ends(1).breaks("sent-back-comes-again");
    sent_back().settles(1, unknown()).ends(0).holds();
    Story::new().sends_back(1, unknown()).ends(0).holds();
    let twice = sent_back().asks().gets_again(2).sends_back(2, done());
    twice.ends(0).breaks("sent-back-comes-again");
}

#[test]
fn what_is_settled_does_not_come_again() {
    let settled = |outcome| {
        let failed = Story::new().sends_back(1, done()).asks().gets_again(2);
        failed.settles(2, outcome)
    };
    settled(done()).ends(0).holds();
    settled(done())
        .asks()
        .gets_again(2)
        .breaks("settled-stays-settled");
    settled(unknown()).asks().gets_again(2).ends(0).holds();
    // Asked before it was settled.
    let failed = Story::new().sends_back(1, done()).asks();
    failed.settles(2, done()).gets_again(2).ends(0).holds();
    // Another member failed a later delivery, or it is long ago.
    let later = settled(done()).sends_back(2, done()).sends_back(3, done());
    later.asks().gets_again(4).ends(0).holds();
    let long_ago = settled(done()).slowly().sends_back(1, done()).asks();
    long_ago.gets_again(2).ends(0).holds();
    // As long as it is remembered, less what may be on its way: two seconds passed.
    let remembers = |ms| {
        let story = Story::new().then(Event::RemembersFor { ms });
        let failed = story.sends_back(1, done()).asks().gets_again(2);
        failed.settles(2, done()).slowly().asks().gets_again(2)
    };
    remembers(69_999).ends(0).holds();
    remembers(70_000).breaks("settled-stays-settled");
}

#[test]
fn a_delivery_follows_a_failure() {
    let asked = Story::new().sends_back(1, unknown()).asks();
    asked.gets_again(3).breaks("redelivery-is-earned");
    Story::new()
        .asks()
        .gets_again(2)
        .breaks("redelivery-is-earned");
    // Not after one that was said to be the last, or that is the last which the group allows.
    let gave_up = Story::new().gives_up(1, done()).asks();
    gave_up.gets_again(2).breaks("redelivery-is-earned");
    let used_up = Story::new().sends_back(ATTEMPTS_MAX, done()).asks();
    used_up
        .gets_again(ATTEMPTS_MAX + 1)
        .breaks("redelivery-is-earned");
}

/// Would catch a retry by a leader whose clock is ahead.
#[test]
fn a_retry_waits_as_long_as_it_was_told() {
    let waits = |delay_ms| {
        let story = Story {
            delay_ms,
            ..Story::new()
        };
        story.sends_back(1, unknown()).asks().gets_again(2)
    };
    waits(3_000).holds();
    waits(3_001).breaks("not-before-its-time");
}

#[test]
fn a_dead_letter_was_sent_back_and_dies_once() {
    let gave_up = || Story::new().gives_up(1, done());
    Story::new()
        .is_dead(0, TOPIC, 7)
        .breaks("dead-letters-are-earned");
    let too_early = Story::new().sends_back(1, done());
    too_early
        .is_dead(0, TOPIC, 7)
        .breaks("dead-letters-are-earned");
    let used_up = Story::new().sends_back(ATTEMPTS_MAX, done());
    used_up.is_dead(0, TOPIC, 7).ends(0).holds();
    gave_up()
        .is_dead(0, "elsewhere", 7)
        .breaks("dead-letters-are-earned");
    gave_up().is_dead(0, TOPIC, 8).breaks("no-phantom");
    let twice = || gave_up().is_dead(0, TOPIC, 7).is_dead(1, TOPIC, 7);
    twice().breaks("dies-once");
    let long_after = Story::new().gives_up(1, done()).slowly();
    let long_after = long_after.gives_up(1, done()).gives_up(1, done());
    let long_after = long_after.is_dead(0, TOPIC, 7).is_dead(1, TOPIC, 7);
    long_after.ends(0).holds();
}
