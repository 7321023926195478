//! Work on messages, on histories in which promises are kept and in which they are not.

use super::judge;
use crate::history::{Event, Member, Outcome, Place, Queue, Record, Target, Value};
use crate::machine::Machine;
use crate::operator::{DEAD_LETTERS, READER};

const TOPIC: &str = "topic-0";
const GROUP: &str = "push-topic-0";
const ATTEMPTS_MAX: u32 = 2;
/// The call that asks what all queues hold.
const BOUNDS: u64 = 1_000_000;

fn place(topic: &str, offset: u64) -> Place {
    let queue = Queue {
        topic: topic.into(),
        queue: 0,
    };
    Place { queue, offset }
}

fn value(offset: u64) -> Value {
    100 + offset
}

/// Of two messages at offsets 0 and 1 of a queue.
struct Story {
    records: Vec<Record>,
    calls: u64,
}

impl Story {
    fn new(in_order: bool) -> Story {
        Story::of(in_order, false)
    }

    fn of(in_order: bool, alone: bool) -> Story {
        let story = Story {
            records: Vec::new(),
            calls: 0,
        };
        let mut story = story.then(Event::GroupMade {
            group: GROUP.into(),
            attempts_max: ATTEMPTS_MAX,
            in_order,
            alone,
        });
        for offset in 0..2 {
            story = story.then(Event::Send {
                value: value(offset),
                topic: TOPIC.into(),
                target: Target::Any,
                lane: 1,
            });
            let outcome = Outcome::Done(place(TOPIC, offset));
            let value = value(offset);
            story = story.then(Event::Sent { value, outcome });
        }
        story.joins(1)
    }

    fn then(mut self, event: Event) -> Story {
        let at = self.records.len() as u64 * 1_000_000_000;
        let machine = Machine::Client(1);
        self.records.push(Record { at, machine, event });
        self
    }

    fn joins(self, member: u64) -> Story {
        self.then(Event::Join {
            member: self::member(member),
            topic: TOPIC.into(),
            assigned: false,
        })
    }

    fn handed(self, member: u64, offset: u64, attempt: u32) -> Story {
        self.then(Event::Handed {
            member: self::member(member),
            place: place(TOPIC, offset),
            attempt,
            value: Some(value(offset)),
        })
    }

    fn finished(self, offset: u64, attempt: u32) -> Story {
        self.then(Event::Finished {
            member: member(1),
            place: place(TOPIC, offset),
            attempt,
        })
    }

    fn failed(self, offset: u64, attempt: u32, dead: bool) -> Story {
        self.then(Event::Failed {
            member: member(1),
            place: place(TOPIC, offset),
            attempt,
            dead,
        })
    }

    /// Is told that its group has committed this.
    fn told(mut self, offset: u64) -> Story {
        self.calls += 1;
        let call = self.calls;
        let asked = Event::AskCommitted {
            call,
            group: GROUP.into(),
            queue: place(TOPIC, 0).queue,
        };
        let offset = Some(offset);
        self.then(asked).then(Event::ToldCommitted { call, offset })
    }

    fn dead_letter(self, offset: u64) -> Story {
        self.then(Event::DeadLetter {
            group: GROUP.into(),
            place: place(&format!("{DEAD_LETTERS}{GROUP}"), 0),
            origin: TOPIC.to_owned(),
            value: Some(value(offset)),
        })
    }

    /// Everything that is there is read; `min` is the oldest.
    fn ends_from(self, min: u64) -> Story {
        let call = BOUNDS;
        let mut story = self.then(Event::AskBounds { call }).then(Event::Bounds {
            call,
            queue: place(TOPIC, 0).queue,
            min_offset: min,
            max_offset: 2,
        });
        for offset in min..2 {
            story = story.then(Event::Delivery {
                member: Member {
                    group: READER.into(),
                    member: 99,
                },
                place: place(TOPIC, offset),
                value: Some(value(offset)),
            });
        }
        story.then(Event::End)
    }

    #[track_caller]
    fn holds(&self) {
        judge(&self.records).expect("nothing is wrong");
    }

    #[track_caller]
    fn violates(&self, invariant: &str) {
        let violation = judge(&self.records).expect_err("something is wrong");
        assert_eq!(violation.invariant, invariant, "{violation:?}");
    }
}

fn member(member: u64) -> Member {
    Member {
        group: GROUP.into(),
        member,
    }
}

#[test]
fn every_message_is_finished_or_dead() {
    let both = Story::new(false).handed(1, 0, 1).handed(1, 1, 1);
    let both = both.finished(1, 1).finished(0, 1);
    both.ends_from(0).holds();
    let one = Story::new(false).handed(1, 0, 1).finished(0, 1);
    one.ends_from(0).violates("finished-or-dead");
    let second_time = Story::new(false).handed(1, 0, 1).handed(1, 1, 1);
    let second_time = second_time.failed(0, 1, false).finished(1, 1);
    let second_time = second_time.handed(1, 0, 2).finished(0, 2);
    second_time.ends_from(0).holds();
}

#[test]
fn what_failed_for_good_is_a_dead_letter() {
    let dies = || {
        let story = Story::new(false).handed(1, 0, 1).failed(0, 1, false);
        let story = story.handed(1, 1, 1).finished(1, 1);
        story.handed(1, 0, 2).failed(0, 2, false)
    };
    dies().dead_letter(0).ends_from(0).holds();
    dies().ends_from(0).violates("finished-or-dead");
    let finished = Story::new(false).handed(1, 0, 1).finished(0, 1);
    let finished = finished.handed(1, 1, 1).finished(1, 1);
    let finished = finished.dead_letter(0);
    finished.ends_from(0).violates("dead-letters-are-earned");
}

/// Would catch a judge that wants dead letters of consumers that keep their own progress, and one that lets them
/// forget what failed only once.
#[test]
fn who_is_alone_gives_up_what_failed_for_good_and_nothing_else() {
    let fails = |attempt| {
        let story = Story::of(false, true).handed(1, 0, 1).failed(0, 1, false);
        let story = story.handed(1, 1, 1).finished(1, 1);
        match attempt {
            1 => story,
            _ => story.handed(1, 0, attempt).failed(0, attempt, false),
        }
    };
    fails(ATTEMPTS_MAX).ends_from(0).holds();
    fails(1).ends_from(0).violates("finished-or-dead");
}

#[test]
fn what_retention_dropped_need_not_be_finished() {
    let second = Story::new(true).handed(1, 1, 1).finished(1, 1).told(2);
    second.ends_from(1).holds();
}

#[test]
fn a_delivery_follows_a_failure_of_the_one_before() {
    let story = Story::new(false).handed(1, 0, 1).handed(1, 0, 2);
    story.violates("redelivery-is-earned");
    let too_many = Story::new(false).handed(1, 0, 1).failed(0, 1, false);
    let too_many = too_many.handed(1, 0, 2).failed(0, 2, false);
    too_many.handed(1, 0, 3).violates("redelivery-is-earned");
}

#[test]
fn in_order_the_next_one_waits() {
    let next = |in_order| Story::new(in_order).handed(1, 0, 1).handed(1, 1, 1);
    next(true).violates("worked-in-order");
    next(false).holds();
    let failed = |dead| {
        let story = Story::new(true).handed(1, 0, 1).failed(0, 1, dead);
        story.handed(1, 1, 1)
    };
    failed(true).holds();
    failed(false).violates("worked-in-order");
}

#[test]
fn nobody_skips_a_message() {
    Story::new(false).handed(1, 1, 1).violates("no-skips");
}

#[test]
fn progress_waits_for_work() {
    let working = || Story::new(false).handed(1, 0, 1).handed(1, 1, 1);
    working().finished(1, 1).told(0).holds();
    let passed = working().finished(1, 1).told(2);
    passed.violates("progress-waits-for-work");
    working().finished(0, 1).told(1).holds();
    working().failed(0, 1, false).told(1).holds();
}

/// Would catch a member that begins behind a message with which nobody is done: it fell out of somebody's hands.
#[test]
fn nobody_begins_behind_what_nobody_is_done_with() {
    let begins = |story: Story| story.handed(1, 0, 1).handed(1, 1, 1).joins(2);
    begins(Story::new(false)).handed(2, 0, 1).holds();
    let behind = begins(Story::new(false)).handed(2, 1, 1);
    behind.violates("progress-waits-for-work");
    let finished = begins(Story::new(false)).finished(0, 1);
    finished.handed(2, 1, 1).holds();
    // Servers have what failed; who is alone has nobody.
    let failed = |alone| begins(Story::of(false, alone)).failed(0, 1, false);
    failed(false).handed(2, 1, 1).holds();
    let forgotten = failed(true).handed(2, 1, 1);
    forgotten.violates("progress-waits-for-work");
}

/// Would catch progress that is said to be on the disk, and is not.
#[test]
fn who_saved_its_own_progress_goes_on_there() {
    let saves = |then: fn(Story) -> Story| {
        let story = Story::of(false, true).handed(1, 0, 1).finished(0, 1);
        let (call, member) = (7, member(1));
        then(story.then(Event::Save { call, member }))
    };
    let saved = |story: Story| story.then(Event::Saved { call: 7 });
    saves(saved).joins(2).handed(2, 1, 1).holds();
    let again = saves(saved).joins(2).handed(2, 0, 1);
    again.violates("own-progress-is-kept");
    // Nobody said that it is saved; or one that was made before says it.
    saves(|story| story).joins(2).handed(2, 0, 1).holds();
    let before = saves(|story| story.joins(2).then(Event::Saved { call: 7 }));
    before.handed(2, 0, 1).holds();
    // Another one's work is not what this one saves.
    let other = saves(|story| story).joins(2).handed(2, 0, 1);
    let (call, member) = (8, member(2));
    let other = other.then(Event::Save { call, member });
    let other = other.then(Event::Saved { call }).joins(3);
    other.handed(3, 0, 1).holds();
}

/// Would catch progress of a group that was lost which is asked for in the one that took its place; and progress of that one
/// which is not.
#[test]
fn own_progress_ends_with_the_history_that_it_speaks_of() {
    let save = |story: Story, call: u64, number: u64| {
        let member = member(number);
        let saving = story.then(Event::Save { call, member });
        saving.then(Event::Saved { call })
    };
    let saved = || {
        let story = Story::of(false, true).handed(1, 0, 1).finished(0, 1);
        save(story, 7, 1)
    };
    let restored = || saved().then(Event::Restored);
    restored().joins(2).handed(2, 0, 1).holds();
    // Who was there may still have places of the lost group's.
    save(restored(), 8, 1).joins(2).handed(2, 0, 1).holds();
    let finished = Event::Finished {
        member: member(2),
        place: place(TOPIC, 0),
        attempt: 1,
    };
    let anew = restored().joins(2).handed(2, 0, 1).then(finished);
    let anew = save(anew, 8, 2);
    let again = anew.joins(3).handed(3, 0, 1);
    again.violates("own-progress-is-kept");
}

#[test]
fn nobody_begins_before_what_was_committed() {
    let committed = || Story::new(false).handed(1, 0, 1).finished(0, 1).told(1);
    let before = committed().joins(2).handed(2, 0, 1);
    before.violates("no-delivery-after-acknowledgement");
    committed().joins(2).handed(2, 1, 1).holds();
}
