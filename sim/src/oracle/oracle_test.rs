//! The oracle on histories made by hand: for each invariant one that keeps it and one that breaks it. A
//! check that cannot fail proves nothing.

use std::sync::Arc;

use super::judge;
use crate::history::{Event, Member, Outcome, Place, Queue, Record, Target, Value};
use crate::machine::Machine;
use crate::operator::READER;

/// A history that is told step by step; each step takes a second.
#[derive(Default)]
struct Story {
    records: Vec<Record>,
}

const TOPIC: &str = "topic-0";
const GROUP: &str = "group-0";

fn queue() -> Queue {
    Queue {
        topic: TOPIC.into(),
        queue: 0,
    }
}

fn place(offset: u64) -> Place {
    let queue = queue();
    Place { queue, offset }
}

fn member(group: &str, member: u64) -> Member {
    let group: Arc<str> = group.into();
    Member { group, member }
}

impl Story {
    fn then(mut self, event: Event) -> Story {
        let at = self.records.len() as u64 * 1_000_000_000;
        let machine = Machine::Client(1);
        self.records.push(Record { at, machine, event });
        self
    }

    /// In the same moment as the last step.
    fn and(mut self, event: Event) -> Story {
        let at = self.records.last().map_or(0, |record| record.at);
        let machine = Machine::Client(1);
        self.records.push(Record { at, machine, event });
        self
    }

    fn send_to(self, value: Value, target: Target) -> Story {
        self.then(Event::Send {
            value,
            topic: TOPIC.into(),
            target,
            lane: 1,
        })
    }

    fn send(self, value: Value) -> Story {
        self.send_to(value, Target::Queue(0))
    }

    fn sent(self, value: Value, outcome: Outcome<Place>) -> Story {
        self.then(Event::Sent { value, outcome })
    }

    /// Sent and acknowledged.
    fn stored(self, value: Value, offset: u64) -> Story {
        self.send(value).sent(value, Outcome::Done(place(offset)))
    }

    /// Handed over together and acknowledged.
    fn batch<const N: usize>(self, target: Target, stored: [(Value, Place); N]) -> Story {
        let values = stored.iter().map(|(value, _)| *value).collect();
        let mut story = self.then(Event::Batch { values });
        for (value, _) in &stored {
            story = story.send_to(*value, target.clone());
        }
        for (value, place) in stored {
            story = story.sent(value, Outcome::Done(place));
        }
        story
    }

    fn unknown(self, value: Value) -> Story {
        let outcome = Outcome::Unknown("no answer".to_owned());
        self.send(value).sent(value, outcome)
    }

    fn join(self, number: u64, assigned: bool) -> Story {
        self.then(Event::Join {
            member: member(GROUP, number),
            topic: TOPIC.into(),
            assigned,
        })
    }

    fn gets(self, number: u64, offset: u64, value: Value) -> Story {
        self.then(delivery(member(GROUP, number), offset, value))
    }

    fn gets_too(self, number: u64, offset: u64, value: Value) -> Story {
        self.and(delivery(member(GROUP, number), offset, value))
    }

    fn commits(self, call: u64, offset: u64, outcome: Outcome<()>) -> Story {
        let commit = Event::Commit {
            call,
            member: member(GROUP, 1),
            place: place(offset),
        };
        self.then(commit).then(Event::Committed { call, outcome })
    }

    fn resets(self, call: u64, offset: u64, outcome: Outcome<()>) -> Story {
        let reset = Event::Reset {
            call,
            group: GROUP.into(),
            place: place(offset),
        };
        self.then(reset).then(Event::WasReset { call, outcome })
    }

    fn asks_committed(self, call: u64) -> Story {
        self.then(Event::AskCommitted {
            call,
            group: GROUP.into(),
            queue: queue(),
        })
    }

    fn told_committed(self, call: u64, offset: u64) -> Story {
        let offset = Some(offset);
        self.then(Event::ToldCommitted { call, offset })
    }

    fn asks_end(self, call: u64) -> Story {
        let queue = queue();
        self.then(Event::AskEnd { call, queue })
    }

    fn told_end(self, call: u64, offset: u64) -> Story {
        self.then(Event::ToldEnd { call, offset })
    }

    /// Everything is healed and read: so many messages, the first of them at this offset.
    fn ends(self, from: u64, values: &[Value]) -> Story {
        let read = |story: Story, (offset, value): (u64, &Value)| {
            story.then(delivery(member(READER, 99), offset, *value))
        };
        let story = (from..).zip(values).fold(self, read);
        story
            .bounds(from, from + values.len() as u64)
            .then(Event::End)
    }

    /// Somebody asks what the queue holds, and is told.
    fn bounds(self, min_offset: u64, max_offset: u64) -> Story {
        let call = 1_000 + self.records.len() as u64;
        let told = Event::Bounds {
            call,
            queue: queue(),
            min_offset,
            max_offset,
        };
        self.then(Event::AskBounds { call }).then(told)
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

fn delivery(member: Member, offset: u64, value: Value) -> Event {
    Event::Delivery {
        member,
        place: place(offset),
        value: Some(value),
    }
}

fn done() -> Outcome<()> {
    Outcome::Done(())
}

fn unknown() -> Outcome<()> {
    Outcome::Unknown("no answer".to_owned())
}

fn story() -> Story {
    Story::default()
}

#[test]
fn an_ordinary_history_holds() {
    let sent = story().stored(1, 0).stored(2, 1).unknown(3);
    let read = sent.join(1, false).gets(1, 0, 1).gets_too(1, 1, 2);
    let committed = read.commits(10, 2, done()).asks_committed(11);
    committed.told_committed(11, 2).ends(0, &[1, 2]).holds();
}

#[test]
fn an_acknowledged_message_must_be_read_in_the_end() {
    story().stored(1, 0).ends(0, &[1]).holds();
    story().stored(1, 0).stored(2, 1).ends(1, &[2]).holds();
    story()
        .stored(1, 0)
        .ends(0, &[])
        .breaks("acknowledged-is-durable");
}

#[test]
fn a_history_without_an_end_is_not_searched_for_what_is_lost() {
    story().stored(1, 0).holds();
}

#[test]
fn a_message_that_was_seen_must_be_read_in_the_end() {
    let seen = || story().unknown(1).gets(1, 0, 1);
    seen().ends(0, &[1]).holds();
    seen().ends(1, &[]).holds();
    seen().ends(0, &[]).breaks("seen-is-durable");
}

#[test]
fn an_unknown_outcome_may_be_either() {
    story().unknown(1).ends(0, &[]).holds();
    story().unknown(1).ends(0, &[1]).holds();
}

#[test]
fn a_refused_message_must_not_be_seen() {
    let refused = || Outcome::NotDone("refused".to_owned());
    story().send(1).sent(1, refused()).ends(0, &[]).holds();
    let after = story().send(1).sent(1, refused()).gets(1, 0, 1);
    after.breaks("refused-is-not-stored");
    let before = story().send(1).gets(1, 0, 1).sent(1, refused());
    before.breaks("refused-is-not-stored");
}

#[test]
fn only_what_was_sent_may_be_seen() {
    story().send(1).gets(1, 0, 1).holds();
    story().gets(1, 0, 1).breaks("no-phantom");
    let garbage = Event::Delivery {
        member: member(GROUP, 1),
        place: place(0),
        value: None,
    };
    story().send(1).then(garbage).breaks("no-phantom");
}

#[test]
fn a_message_is_seen_where_it_was_sent() {
    story().send_to(1, Target::Any).gets(1, 0, 1).holds();
    let other_queue = story().send_to(1, Target::Queue(3)).gets(1, 0, 1);
    other_queue.breaks("stored-where-sent");
    let send = Event::Send {
        value: 1,
        topic: "topic-1".into(),
        target: Target::Any,
        lane: 1,
    };
    story().then(send).gets(1, 0, 1).breaks("stored-where-sent");
}

#[test]
fn an_offset_holds_one_message() {
    let sent = || story().send(1).send(2);
    sent().gets(1, 0, 1).gets(2, 0, 1).holds();
    let two = sent().gets(1, 0, 1).gets(2, 0, 2);
    two.breaks("one-message-per-offset");
    let acknowledged = story().stored(1, 0).stored(2, 0);
    acknowledged.breaks("one-message-per-offset");
}

#[test]
fn a_message_is_stored_once() {
    let twice = story().stored(1, 0).gets(1, 0, 1).gets(1, 1, 1);
    twice.breaks("stored-once");
}

#[test]
fn messages_of_a_lane_keep_their_order() {
    let sent = || story().send(1).send(2);
    let stored = |story: Story, first, second| {
        let story = story.sent(1, Outcome::Done(place(first)));
        story.sent(2, Outcome::Done(place(second)))
    };
    stored(sent(), 0, 1).holds();
    stored(sent(), 1, 0).breaks("sent-order");
    // Of no lane: nobody promised an order.
    let any = || story().send_to(1, Target::Any).send_to(2, Target::Any);
    stored(any(), 1, 0).holds();
}

#[test]
fn a_message_group_stays_in_its_queue() {
    let group = || Target::Group("g".to_owned());
    let other = Place {
        queue: Queue {
            queue: 1,
            ..queue()
        },
        offset: 0,
    };
    let both = |second| {
        let story = story().send_to(1, group()).send_to(2, group());
        let story = story.sent(1, Outcome::Done(place(0)));
        story.sent(2, Outcome::Done(second))
    };
    both(place(1)).holds();
    both(other).breaks("one-queue-per-group");
}

#[test]
fn a_batch_stands_together() {
    let queue_1 = |offset| Place {
        queue: Queue {
            queue: 1,
            ..queue()
        },
        offset,
    };
    let chosen = |stored| story().unknown(1).batch(Target::Queue(0), stored);
    let beside = chosen([(2, place(1)), (3, place(2))]);
    beside.gets(1, 0, 1).gets(1, 1, 2).gets(1, 2, 3).holds();
    let between = chosen([(2, place(0)), (3, place(2))]);
    let between = between.gets(1, 0, 2).gets(1, 1, 1).gets(1, 2, 3);
    between.breaks("batches-together");
    let any = |stored| story().batch(Target::Any, stored);
    any([(1, queue_1(0)), (2, queue_1(1))]).holds();
    any([(1, place(0)), (2, queue_1(0))]).breaks("batches-together");
    any([(1, place(1)), (2, place(0))]).breaks("batches-together");
    // Message groups have queues of their own.
    let groups = story().then(Event::Batch { values: vec![1, 2] });
    let groups = groups.send_to(1, Target::Group("a".to_owned()));
    let groups = groups.send_to(2, Target::Group("b".to_owned()));
    let groups = groups.sent(1, Outcome::Done(place(0)));
    groups.sent(2, Outcome::Done(queue_1(0))).holds();
}

#[test]
fn what_was_stored_before_stands_before() {
    let any = |story: Story, value, offset| {
        let story = story.send_to(value, Target::Any);
        story.sent(value, Outcome::Done(place(offset)))
    };
    any(any(story(), 1, 0), 2, 1).holds();
    any(any(story(), 1, 1), 2, 0).breaks("real-time-order");
    // One that nobody acknowledged may come late, and not early.
    let late = any(story().unknown(1), 2, 0).gets(1, 0, 2).gets(1, 1, 1);
    late.holds();
    let early = story().stored(1, 1).unknown(2).gets(1, 0, 2);
    early.breaks("real-time-order");
}

#[test]
fn a_group_skips_nothing() {
    let sent = || story().stored(1, 0).stored(2, 1).stored(3, 2);
    let shared = sent().gets(1, 0, 1).gets(2, 1, 2).gets(1, 2, 3);
    shared.holds();
    let again = sent().gets(1, 0, 1).gets(2, 0, 1).gets(2, 1, 2);
    again.holds();
    sent().gets(1, 0, 1).gets(2, 2, 3).breaks("no-skips");
    // What retention dropped, and what an operator skipped, is no gap.
    sent().gets(1, 2, 3).ends(2, &[3]).holds();
    // It was still there some time later.
    let kept = sent().gets(1, 2, 3).bounds(0, 3).ends(2, &[3]);
    kept.breaks("no-skips");
    let dropped = sent().bounds(0, 3).gets(1, 2, 3).ends(2, &[3]);
    dropped.holds();
    sent().resets(10, 2, unknown()).gets(1, 2, 3).holds();
    let refused = Outcome::NotDone("refused".to_owned());
    let refused = sent().resets(10, 2, refused).gets(1, 2, 3);
    refused.breaks("no-skips");
}

#[test]
fn chosen_queues_are_read_in_order() {
    let sent = || story().stored(1, 0).stored(2, 1).join(1, true);
    sent().gets(1, 0, 1).gets(1, 1, 2).holds();
    let back = sent().gets(1, 0, 1).gets(1, 1, 2).gets(1, 0, 1);
    back.breaks("delivered-in-order");
    let again = sent().gets(1, 0, 1).gets(1, 0, 1);
    again.breaks("delivered-in-order");
    // Another consumer begins anew, and so may one whose queues are shared out.
    sent().gets(1, 0, 1).join(2, true).gets(2, 0, 1).holds();
    let shared = sent().join(2, false).gets(2, 0, 1).gets(2, 0, 1);
    shared.holds();
    // Once for each broker group that goes on from a copy, and nothing is passed over then.
    let restored = || sent().gets(1, 0, 1).gets(1, 1, 2).then(Event::Restored);
    restored().gets(1, 0, 1).gets(1, 1, 2).holds();
    let twice = restored().gets(1, 0, 1).gets(1, 0, 1);
    twice.breaks("delivered-in-order");
    // What was fetched before, and what is there now; but not who came later.
    let fetched = sent().then(Event::Restored).gets(1, 0, 1).gets(1, 0, 1);
    fetched.gets(1, 1, 2).holds();
    let later = sent().then(Event::Restored).join(2, true);
    later
        .gets(2, 0, 1)
        .gets(2, 0, 1)
        .breaks("delivered-in-order");
    let passed = sent().stored(3, 2).gets(1, 0, 1).then(Event::Restored);
    passed.gets(1, 2, 3).breaks("no-skips");
}

#[test]
fn one_poll_is_in_order() {
    let sent = || story().stored(1, 0).stored(2, 1).stored(3, 2);
    let in_order = sent().gets(1, 0, 1).gets_too(1, 1, 2).gets_too(1, 2, 3);
    in_order.holds();
    let again = sent().gets(1, 0, 1).gets_too(1, 0, 1);
    again.breaks("polled-in-order");
    let back = sent().gets(2, 0, 1).gets(1, 1, 2).gets_too(1, 0, 1);
    back.breaks("polled-in-order");
    let first = sent().gets(2, 0, 1).gets(2, 1, 2).gets(1, 0, 1);
    first.gets_too(1, 2, 3).breaks("polled-in-order");
}

#[test]
fn committed_offsets_go_forward() {
    let read = || {
        let story = story().stored(1, 0).stored(2, 1);
        story.gets(1, 0, 1).gets(1, 1, 2)
    };
    let asked = |story: Story, offset| story.asks_committed(20).told_committed(20, offset);
    asked(read().commits(10, 2, done()), 2).holds();
    asked(read().commits(10, 2, done()), 1).breaks("offsets-forward");
    asked(read().commits(10, 2, unknown()), 1).holds();
    // One that comes late changes nothing.
    let late = read().commits(10, 2, done()).commits(11, 1, done());
    asked(late, 1).breaks("offsets-forward");
    // An answer that was given counts too.
    let told = asked(read(), 2).asks_committed(21);
    told.told_committed(21, 0).breaks("offsets-forward");
    // A question that was asked before may be answered with what was so then.
    let earlier = read().asks_committed(20).commits(10, 2, done());
    earlier.told_committed(20, 0).holds();
}

#[test]
fn a_reset_may_set_a_group_back() {
    let committed = || story().stored(1, 0).gets(1, 0, 1).commits(10, 1, done());
    let asked = |story: Story| story.asks_committed(20).told_committed(20, 0);
    asked(committed().resets(11, 0, done())).holds();
    asked(committed().resets(11, 0, unknown())).holds();
    let after = committed().resets(11, 0, done()).commits(12, 1, done());
    asked(after).breaks("offsets-forward");
    let after = committed().resets(11, 0, unknown());
    asked(after.commits(12, 1, done())).holds();
}

#[test]
fn an_offset_comes_from_somebody() {
    let asked = |story: Story| story.asks_committed(20).told_committed(20, 2);
    let read = story().stored(1, 0).stored(2, 1).gets(1, 0, 1);
    asked(read).breaks("offsets-are-earned");
    asked(story().stored(1, 0).resets(10, 2, unknown())).holds();
    asked(story().stored(1, 0).stored(2, 1).stored(3, 2))
        .ends(2, &[3])
        .holds();
}

/// Would catch a member that takes a queue over and begins where it, or anybody, had been before.
#[test]
fn who_takes_a_queue_over_begins_where_its_group_is() {
    let held = |queues| {
        let story = story().stored(1, 0).stored(2, 1).join(2, false);
        let story = story.gets(1, 0, 1).commits(10, 1, done());
        let member = member(GROUP, 2);
        story.then(Event::Holds { member, queues })
    };
    held(vec![]).gets(2, 1, 2).holds();
    let again = held(vec![]).gets(2, 0, 1);
    again.breaks("no-delivery-after-acknowledgement");
    // It may have had the queue since before the commit.
    held(vec![queue()]).gets(2, 0, 1).holds();
    let reset = held(vec![]).resets(11, 0, done());
    reset.gets(2, 0, 1).holds();
}

#[test]
fn what_all_queues_hold_is_told_by_who_leads() {
    let call = 10;
    let told = |max_offset| {
        let story = story().stored(1, 0).then(Event::AskBounds { call });
        story.then(Event::Bounds {
            call,
            queue: queue(),
            min_offset: 0,
            max_offset,
        })
    };
    told(1).holds();
    told(0).breaks("reads-are-new");
    let names_none = story().stored(1, 0).then(Event::AskBounds { call });
    let names_none = names_none.then(Event::ToldBounds { call });
    names_none.breaks("reads-are-new");
    story().stored(1, 0).bounds(1, 1).bounds(1, 1).holds();
    let begins_earlier = story().stored(1, 0).bounds(1, 1).bounds(0, 1);
    begins_earlier.breaks("reads-are-new");
}

/// Would catch a producer that waits for a machine which has vanished when another one leads.
#[test]
fn sends_take_no_longer_than_promised() {
    // A step takes a second.
    let within = |ms| story().then(Event::SendsWithin { ms }).stored(1, 0);
    within(1_000).holds();
    within(999).breaks("sends-go-on");
    story().stored(1, 0).holds();
}

/// Would catch messages that vanish and pass for dropped ones.
#[test]
fn nothing_is_dropped_where_nobody_drops_anything() {
    let sent = || story().stored(1, 0).stored(2, 1);
    sent().ends(1, &[2]).holds();
    let kept = sent().then(Event::KeepsAll).ends(1, &[2]);
    kept.breaks("nothing-expires");
}

/// Would catch an oracle that takes retention's word for what it dropped, or asks for more than was promised.
#[test]
fn what_is_kept_by_age_goes_in_its_time() {
    // A step takes a second.
    let keeps = |ms| story().then(Event::KeepsFor { ms });
    let sent = |ms| keeps(ms).stored(1, 0).stored(2, 1);
    sent(5_000).bounds(1, 2).holds();
    sent(5_001).bounds(1, 2).breaks("kept-for-its-time");
    sent(5_000).bounds(1, 2).bounds(2, 2).holds();
    sent(5_000).bounds(2, 2).breaks("kept-for-its-time");

    let values: Vec<Value> = (1..=1_000).collect();
    let many = |ms, begins: u64| {
        let stored = (0..).zip(&values);
        let story = stored.fold(keeps(ms), |story, (offset, value)| {
            story.stored(*value, offset)
        });
        story.ends(begins, &values[begins as usize..])
    };
    many(1_000_000, 0).breaks("gone-after-its-time");
    many(1_000_000, 200).breaks("gone-after-its-time");
    many(1_000_000, 400).holds();
    many(2_000_000, 0).holds();
}

#[test]
fn a_new_consumer_begins_where_its_group_is() {
    let committed = || {
        let story = story().stored(1, 0).stored(2, 1);
        story.gets(1, 0, 1).commits(10, 1, done())
    };
    committed().join(2, false).gets(2, 1, 2).holds();
    let again = committed().join(2, false).gets(2, 0, 1);
    again.breaks("no-delivery-after-acknowledgement");
    // One that was there before may have had it already.
    let story = story().stored(1, 0).join(2, false).gets(1, 0, 1);
    story.commits(10, 1, done()).gets(2, 0, 1).holds();
}

#[test]
fn the_end_of_a_queue_is_told_as_it_is() {
    story().stored(1, 0).asks_end(10).told_end(10, 1).holds();
    let old = story().stored(1, 0).asks_end(10).told_end(10, 0);
    old.breaks("reads-are-new");
    let meanwhile = story().asks_end(10).stored(1, 0).told_end(10, 0);
    meanwhile.holds();
    let told = story().stored(1, 0).asks_end(10).told_end(10, 5);
    told.asks_end(11).told_end(11, 4).breaks("reads-are-new");
    // Who was shown a message has seen that it is there.
    let seen = story().unknown(1).gets(1, 0, 1).asks_end(10);
    seen.told_end(10, 0).breaks("reads-are-new");
}
