//! What is handed out one by one, in every order of ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use host::Shutdown;
use proptest::prelude::*;

use super::super::{Due, FetchNext, Finishing, PrefetchBounds};
use super::*;
use crate::received::ReceivedMessage;

const BOUNDS: PrefetchBounds = PrefetchBounds {
    messages: 6,
    bytes: 1000,
    span: 8,
};
const PAUSE: Duration = Duration::from_secs(1);

fn queue(number: u32) -> TopicQueue {
    TopicQueue::new("t", number)
}

fn delivery(number: u32, offset: u64) -> Delivery {
    let message = ReceivedMessage::decode(Bytes::from_static(b"\x22\x01x")).expect("decodes");
    Delivery {
        topic: "t".into(),
        queue: number,
        offset,
        attempt: 1,
        message,
        life: None,
    }
}

/// Holds some queues from offset 0 on, each with the messages of a range.
fn holding(numbers: &[u32], offsets: std::ops::Range<u64>) -> Holdings {
    let mut holdings = Holdings::new(BOUNDS, Finishing::OneByOne);
    for number in numbers {
        assert!(holdings.take(queue(*number), Arc::default(), Shutdown::new().0));
        let FetchNext::FindStart { epoch } = holdings.fetch_next(&queue(*number)) else {
            panic!("no start")
        };
        holdings.start_at(&queue(*number), epoch, 0, (None, None));
        // Its fetcher heard of the start.
        let heard = holdings.queues[&queue(*number)].signals.retried.notified();
        assert!(heard.now_or_never().is_some());
        fill(&mut holdings, *number, offsets.clone());
    }
    holdings
}

fn fill(holdings: &mut Holdings, number: u32, offsets: std::ops::Range<u64>) {
    let epoch = holdings.queues[&queue(number)].epoch;
    let deliveries = offsets.clone().map(|offset| delivery(number, offset));
    assert!(holdings.fetched(&queue(number), epoch, deliveries.collect(), offsets.end));
}

/// One at a time, or as many as there are.
fn pace(in_order: bool) -> Pace {
    match in_order {
        true => Pace::InOrder,
        false => Pace::AtOnce(usize::MAX),
    }
}

fn pick(holdings: &mut Holdings, in_order: bool, now: Instant) -> Option<(Ticket, Delivery)> {
    match holdings.pick(pace(in_order), now) {
        Pick::Delivery(ticket, delivery) => Some((ticket, *delivery)),
        Pick::Nothing(_) => None,
        other => panic!("{other:?}"),
    }
}

/// What would be committed for queue 0.
fn done(holdings: &Holdings) -> u64 {
    let place = holdings.queues[&queue(0)].place;
    place.expect("its start is known").done
}

/// Catches progress that passes a message which is still worked on: it would be lost if this process died.
#[test]
fn progress_stops_at_the_lowest_unfinished_delivery() {
    let (mut holdings, now) = (holding(&[0], 0..4), Instant::now());
    let taken: Vec<Ticket> = (0..3)
        .map(|_| pick(&mut holdings, false, now).expect("a delivery").0)
        .collect();
    holdings.finish(&taken[2]);
    holdings.finish(&taken[1]);
    assert_eq!(done(&holdings), 0);
    holdings.finish(&taken[0]);
    assert_eq!(done(&holdings), 3, "the fourth was not handed out");
    let due = holdings.due_in(&queue(0));
    holdings.give_up(&queue(0));
    assert_eq!(
        due,
        Some(Due {
            queue: queue(0),
            offset: 3
        })
    );
}

/// Catches a failed message that is passed, skipped in order, or handed out before its pause is over.
#[test]
fn a_failed_delivery_holds_progress_back_until_it_went_well() {
    let (mut holdings, now) = (holding(&[0], 0..3), Instant::now());
    let (first, failed) = pick(&mut holdings, true, now).expect("a delivery");
    assert!(pick(&mut holdings, true, now).is_none(), "in order");
    holdings.again(&first, failed, now + PAUSE, false);
    assert!(
        matches!(holdings.pick(pace(true), now), Pick::Nothing(Some(due)) if due == now + PAUSE)
    );
    let (again, delivery) = pick(&mut holdings, true, now + PAUSE).expect("it is time");
    assert_eq!((again.offset, delivery.offset, done(&holdings)), (0, 0, 0));
    holdings.finish(&again);
    assert_eq!(done(&holdings), 1);
    let (next, _) = pick(&mut holdings, true, now).expect("the next one");
    assert_eq!(next.offset, 1);
}

/// Catches a queue that keeps the others waiting while one of its messages is worked on, or all others have their turn.
#[test]
fn queues_take_turns_and_order_is_kept_within_each() {
    let (mut holdings, now) = (holding(&[0, 1, 2], 0..2), Instant::now());
    let taken: Vec<(u32, u64)> = std::iter::from_fn(|| pick(&mut holdings, true, now))
        .map(|(ticket, _)| (ticket.queue.queue, ticket.offset))
        .collect();
    assert_eq!(taken, [(0, 0), (1, 0), (2, 0)]);
    let taken: Vec<(u32, u64)> = std::iter::from_fn(|| pick(&mut holdings, false, now))
        .map(|(ticket, _)| (ticket.queue.queue, ticket.offset))
        .collect();
    assert_eq!(taken, [(0, 1), (1, 1), (2, 1)]);
}

/// Catches a consumer whose memory, or whose repetition after a crash, grows without bound behind one slow message.
#[test]
fn fetching_stops_at_the_bounds_of_messages_and_of_span() {
    let (mut holdings, now) = (holding(&[0], 0..6), Instant::now());
    assert_eq!(holdings.fetch_next(&queue(0)), FetchNext::Full);
    let (slow, _) = pick(&mut holdings, false, now).expect("a delivery");
    let take_all = |holdings: &mut Holdings| {
        while let Some((ticket, _)) = pick(holdings, false, now) {
            holdings.finish(&ticket);
        }
    };
    take_all(&mut holdings);
    assert!(matches!(
        holdings.fetch_next(&queue(0)),
        FetchNext::Pull {
            offset: 6,
            messages: 5,
            ..
        }
    ));
    fill(&mut holdings, 0, 6..8);
    take_all(&mut holdings);
    assert_eq!(
        holdings.fetch_next(&queue(0)),
        FetchNext::Full,
        "offsets 0 to 8 are open"
    );
    holdings.finish(&slow);
    assert!(matches!(
        holdings.fetch_next(&queue(0)),
        FetchNext::Pull { offset: 8, .. }
    ));
    assert_eq!(done(&holdings), 8);
}

/// Catches a message that is handed out after its queue was given up, and work that nobody waits for.
#[test]
fn a_queue_that_is_left_hands_out_nothing_and_waits_for_what_is_worked_on() {
    let (mut holdings, now) = (holding(&[0], 0..3), Instant::now());
    let (first, _) = pick(&mut holdings, false, now).expect("a delivery");
    let (second, failed) = pick(&mut holdings, false, now).expect("a delivery");
    holdings.leave(&[queue(0)]);
    assert!(pick(&mut holdings, false, now).is_none());
    assert_eq!(holdings.running(&queue(0)), 2);
    holdings.finish(&first);
    holdings.again(&second, failed, now, false);
    assert_eq!(holdings.running(&queue(0)), 0);
    assert!(
        pick(&mut holdings, false, now).is_none(),
        "its next owner tries it again"
    );
    let due = holdings.due_in(&queue(0));
    holdings.give_up(&queue(0));
    assert_eq!(
        due,
        Some(Due {
            queue: queue(0),
            offset: 1
        })
    );
    holdings.finish(&second);
    assert!(matches!(holdings.stop()[..], []));
    assert!(matches!(holdings.pick(pace(false), now), Pick::Closed));
}

/// Catches a queue whose failed messages nobody takes back, and that keeps others from being worked on, or has more and more
/// of its own handed out.
#[test]
fn a_queue_has_so_many_worked_on_and_others_go_on() {
    let (mut holdings, now) = (holding(&[0, 1], 0..5), Instant::now());
    let two = Pace::AtOnce(2);
    let picked: Vec<u32> = std::iter::from_fn(|| match holdings.pick(two, now) {
        Pick::Delivery(ticket, _) => Some(ticket.queue.queue),
        _ => None,
    })
    .collect();
    assert_eq!(picked, [0, 1, 0, 1]);
}

/// Catches a retry that moves progress, is worked on twice at once, or is asked for while it is held.
#[test]
fn retries_are_held_once_and_do_not_touch_progress() {
    let (mut holdings, now) = (holding(&[0], 5..6), Instant::now());
    holdings.retries_came(
        &queue(0),
        vec![delivery(0, 2), delivery(0, 2), delivery(0, 3)],
    );
    let (retry, _) = pick(&mut holdings, true, now).expect("a retry");
    assert!(retry.is_retry && retry.offset == 2);
    assert!(pick(&mut holdings, true, now).is_none(), "in order");
    holdings.retries_came(&queue(0), vec![delivery(0, 2)]);
    let wanted = holdings.retries_wanted(&queue(0)).expect("is held");
    assert_eq!((wanted.held, wanted.room), (vec![2, 3], 30));
    holdings.finish(&retry);
    let wanted = holdings.retries_wanted(&queue(0)).expect("is held");
    assert_eq!(wanted.held, [3]);
    let offsets: Vec<u64> = std::iter::from_fn(|| pick(&mut holdings, false, now))
        .map(|(ticket, _)| ticket.offset)
        .collect();
    assert_eq!(offsets, [3, 5], "2 came while it was held");
    assert_eq!(done(&holdings), 5, "5 is worked on");
}

/// Catches the retry of a message that is worked on here because nobody knows whether the servers took it back.
#[test]
fn what_may_have_been_handed_back_is_not_asked_for() {
    let (mut holdings, now) = (holding(&[0], 0..1), Instant::now());
    let (ticket, failed) = pick(&mut holdings, false, now).expect("a delivery");
    assert!(!holdings.maybe_handed_back(&ticket));
    holdings.again(&ticket, failed, now, true);
    assert_eq!(
        holdings.retries_wanted(&queue(0)).expect("is held").held,
        [0]
    );
    let (again, _) = pick(&mut holdings, false, now).expect("the same");
    assert!(
        holdings.maybe_handed_back(&again),
        "its retry is to be settled"
    );
    holdings.finish(&again);
    assert_eq!(
        holdings.retries_wanted(&queue(0)).expect("is held").held,
        [0; 0]
    );
}

/// Catches large retries that fill the memory beside the bound, and one that never comes because of it.
#[test]
fn the_bytes_of_retries_count() {
    let bytes = 2 * size(&delivery(0, 0));
    let (mut holdings, now) = (holding(&[0], 0..2), Instant::now());
    holdings.bounds.bytes = bytes;
    let room = |holdings: &Holdings| holdings.retries_wanted(&queue(0)).expect("is held").room;
    assert_eq!(room(&holdings), 1, "full, but of others");
    holdings.retries_came(&queue(0), vec![delivery(0, 0)]);
    assert_eq!(room(&holdings), 0);
    assert_eq!(
        holdings.cached(),
        BTreeMap::from([("t".into(), (3, bytes / 2 * 3))])
    );
    let (retry, _) = pick(&mut holdings, false, now).expect("the retry");
    assert!(retry.is_retry);
    let (first, _) = pick(&mut holdings, false, now).expect("a delivery");
    let (second, _) = pick(&mut holdings, false, now).expect("a delivery");
    holdings.finish(&first);
    assert_eq!(room(&holdings), 0);
    assert_eq!(holdings.fetch_next(&queue(0)), FetchNext::Full);
    let signals = holdings.queues[&queue(0)].signals.clone();
    assert!(signals.retried.notified().now_or_never().is_none());
    holdings.finish(&second);
    assert_eq!(room(&holdings), 31);
    let told = signals.retried.notified().now_or_never();
    assert!(told.is_some(), "who asks for retries waits for room");
    holdings.finish(&retry);
    assert_eq!(room(&holdings), 32);
    assert_eq!(holdings.cached(), BTreeMap::from([("t".into(), (0, 0))]));
}

/// Catches a loop that spins while a retry is worked on in order, because the time of another message has come.
#[test]
fn in_order_nothing_is_due_while_something_is_worked_on() {
    let (mut holdings, now) = (holding(&[0], 5..6), Instant::now());
    let (first, failed) = pick(&mut holdings, true, now).expect("a delivery");
    holdings.again(&first, failed, now + PAUSE, false);
    holdings.retries_came(&queue(0), vec![delivery(0, 2)]);
    let (retry, _) = pick(&mut holdings, true, now).expect("the retry");
    let due = now + PAUSE;
    assert!(matches!(
        holdings.pick(pace(true), due),
        Pick::Nothing(None)
    ));
    holdings.finish(&retry);
    let (again, _) = pick(&mut holdings, true, due).expect("it is time");
    assert_eq!(again.offset, 5);
}

#[derive(Clone, Debug)]
enum Step {
    Pick,
    Finish(prop::sample::Index),
    Fail(prop::sample::Index),
    Later,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Pick),
        3 => any::<prop::sample::Index>().prop_map(Step::Finish),
        1 => any::<prop::sample::Index>().prop_map(Step::Fail),
        1 => Just(Step::Later),
    ];
    proptest::collection::vec(step, 0..200)
}

/// Catches work on messages of a topic that is gone which is taken for progress in the next one of its name.
#[test]
fn what_is_worked_on_counts_in_its_own_life() {
    let life = |mark| Some(Life { topic_id: 7, mark });
    let (mut holdings, now) = (holding(&[0], 0..0), Instant::now());
    let begin = |holdings: &mut Holdings, life| {
        let FetchNext::FindStart { epoch } = holdings.fetch_next(&queue(0)) else {
            panic!("its place is known")
        };
        holdings.start_at(&queue(0), epoch, 0, (None, life));
        let deliveries = (0..3).map(|offset| Delivery {
            life,
            ..delivery(0, offset)
        });
        assert!(holdings.fetched(&queue(0), epoch, deliveries.collect(), 3));
    };
    assert!(holdings.start_again(&queue(0), None));
    begin(&mut holdings, life(1));
    let (former, _) = pick(&mut holdings, false, now).expect("a delivery");
    assert_eq!(former.queue.life(), life(1));
    assert!(!holdings.start_again(&queue(0), None), "of another life");
    assert!(holdings.start_again(&queue(0), life(1)));
    assert!(!holdings.start_again(&queue(0), life(1)), "once is enough");
    assert_eq!(holdings.due(), []);
    begin(&mut holdings, life(2));
    let (present, _) = pick(&mut holdings, false, now).expect("a delivery");
    holdings.finish(&former);
    assert_eq!(done(&holdings), 0, "offset 0 is worked on");
    let retry = Delivery {
        life: life(1),
        ..delivery(0, 2)
    };
    holdings.retries_came(&queue(0), vec![retry]);
    let wanted = holdings.retries_wanted(&queue(0)).expect("is held");
    assert_eq!((wanted.life, wanted.held), (life(2), vec![]));
    holdings.finish(&present);
    assert_eq!(done(&holdings), 1);
}

proptest! {
    /// Catches, in any order of ends: a message that progress passes unfinished, one that is never handed out or twice
    /// at once, two of one queue at once in order, and progress that lags behind what is finished.
    #[test]
    fn progress_is_the_lowest_unfinished_offset_whatever_happens(steps in steps(), in_order: bool) {
        let mut holdings = holding(&[0], 0..0);
        let (mut now, mut fetched) = (Instant::now(), 0);
        let mut running: BTreeMap<u64, (Ticket, Delivery)> = BTreeMap::new();
        let mut finished: BTreeSet<u64> = BTreeSet::new();
        for step in steps {
            if let FetchNext::Pull { offset, messages, .. } = holdings.fetch_next(&queue(0)) {
                prop_assert_eq!(offset, fetched);
                fetched += messages.min(2) as u64;
                fill(&mut holdings, 0, offset..fetched);
            }
            match step {
                Step::Pick => if let Some((ticket, delivery)) = pick(&mut holdings, in_order, now) {
                    prop_assert!(!finished.contains(&ticket.offset));
                    prop_assert!(running.insert(ticket.offset, (ticket, delivery)).is_none());
                    prop_assert!(!in_order || running.len() == 1);
                },
                Step::Finish(which) if !running.is_empty() => {
                    let offset = *which.get(&running.keys().copied().collect::<Vec<_>>());
                    let (ticket, _) = running.remove(&offset).expect("is running");
                    holdings.finish(&ticket);
                    finished.insert(offset);
                }
                Step::Fail(which) if !running.is_empty() => {
                    let offset = *which.get(&running.keys().copied().collect::<Vec<_>>());
                    let (ticket, delivery) = running.remove(&offset).expect("is running");
                    holdings.again(&ticket, delivery, now + PAUSE, false);
                }
                _ => now += PAUSE,
            }
            let lowest = (0..).find(|offset| !finished.contains(offset)).expect("there is one");
            prop_assert_eq!(done(&holdings), lowest);
        }
    }
}
