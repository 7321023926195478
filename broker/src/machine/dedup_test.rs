//! Which message is the same message: sequenced senders, clients whose ids collide, and how much is remembered of whom.

use bytes::Bytes;
use proptest::prelude::*;
use proto::command::command::Body;
use proto::command::{CommandReply, IdRun};

use super::testing::{Harness, append_saying, encode, id_run, placed};

/// Ids of a sequenced sender.
fn sequenced(sender: u64, first: u64, count: u32) -> IdRun {
    IdRun {
        sequenced: true,
        ..id_run(u128::from(sender) << 64 | u128::from(first), count)
    }
}

fn of_client(client: u64, first: u128, count: u32) -> IdRun {
    IdRun {
        client,
        ..id_run(first, count)
    }
}

const LONG_MS: u64 = 120_000;

async fn send(harness: &mut Harness, bytes_max: u64, command: Body) -> CommandReply {
    let entry = encode(1, LONG_MS, bytes_max, vec![command]);
    let committed = harness.append(vec![entry]).await;
    harness
        .apply_committed(&committed)
        .remove(0)
        .commands
        .remove(0)
}

fn too_late(reply: &CommandReply) -> u32 {
    let late = reply.placed.iter().filter(|run| run.too_late);
    late.map(|run| run.count).sum()
}

/// Would catch a window that ends as soon as much is sent: a sender's newest request is recognised whatever was sent since,
/// by itself before it and by all others, and what is older than that is never stored again.
#[tokio::test]
async fn a_sequenced_sender_is_remembered_at_any_speed() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 2).await;
    // A part of it, an eighth, is enough for two requests of a sender.
    let bytes_max = 16_000;
    let request = |first| append_saying(topic, 0, vec![sequenced(7, first, 10)], 0);
    for first in (0..1_000).step_by(10) {
        let reply = send(&mut harness, bytes_max, request(first)).await;
        assert_eq!(reply.placed.len(), 1);
        assert!(reply.placed[0].stored, "request {first}");
    }
    for client in 0..200 {
        let flood = append_saying(
            topic,
            1,
            vec![of_client(client, 1 << 100, 14)],
            client as u32,
        );
        send(&mut harness, bytes_max, flood).await;
    }
    let harness = &mut harness.restart();
    let again = send(harness, bytes_max, request(990)).await;
    let expected: Vec<(u64, bool)> = (990..1_000).map(|offset| (offset, false)).collect();
    assert_eq!(placed(&again), expected);
    // Half of it, as one whose other half was settled.
    let half = append_saying(topic, 1, vec![sequenced(7, 995, 5)], 0);
    let half = send(harness, bytes_max, half).await;
    assert_eq!(placed(&half), expected[5..]);
    assert_eq!(half.placed[0].queue, 0, "it is where it was stored first");
    let late = send(harness, bytes_max, request(0)).await;
    assert_eq!(too_late(&late), 10, "{late:?}");
    assert_eq!(harness.view.queue(topic, 0).unwrap().next_offset, 1_000);
    let next = send(harness, bytes_max, request(1_000)).await;
    assert_eq!((placed(&next).len(), placed(&next)[0]), (10, (1_000, true)));
}

/// Would catch a client that makes everybody else's messages forgotten.
#[tokio::test]
async fn nobody_forgets_for_somebody_elses_traffic() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 1).await;
    let other_topic = harness.topic("others", 1).await;
    let bytes_max = 32_000;
    let quiet = || append_saying(topic, 0, vec![of_client(1, 50, 1)], 0);
    send(&mut harness, bytes_max, quiet()).await;
    for round in 0..300_u128 {
        for (topic, client) in [(topic, 2), (other_topic, 2), (other_topic, 3)] {
            let noise = vec![of_client(
                client,
                1_000_000 * u128::from(client) + round * 3,
                3,
            )];
            send(&mut harness, bytes_max, append_saying(topic, 0, noise, 0)).await;
        }
    }
    assert_eq!(
        placed(&send(&mut harness, bytes_max, quiet()).await),
        [(0, false)]
    );
    let noise = append_saying(topic, 0, vec![of_client(2, 2_000_000, 1)], 0);
    let noise = send(&mut harness, bytes_max, noise).await;
    assert!(noise.placed[0].stored, "who takes most has forgotten");
}

/// Would catch an acknowledged message that is nowhere: two processes that make the same ids, as forks and containers do.
#[tokio::test]
async fn another_message_under_a_known_id_is_stored() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 2).await;
    let one = |says| append_saying(topic, 0, vec![of_client(1, 100, 3)], says);
    let other = |says| append_saying(topic, 1, vec![of_client(2, 101, 3)], says);
    let stored = |first: u64| {
        (first..first + 3)
            .map(|offset| (offset, true))
            .collect::<Vec<_>>()
    };
    let known = |first: u64| {
        (first..first + 3)
            .map(|offset| (offset, false))
            .collect::<Vec<_>>()
    };
    assert_eq!(placed(&send(&mut harness, 0, one(1)).await), stored(0));
    assert_eq!(placed(&send(&mut harness, 0, other(2)).await), stored(0));
    let mut harness = harness.restart();
    assert_eq!(placed(&send(&mut harness, 0, one(1)).await), known(0));
    let again = send(&mut harness, 0, other(2)).await;
    assert_eq!(placed(&again), known(0));
    assert_eq!(again.placed[0].queue, 1);
    // A sequenced sender that was copied with its machine, in step with itself.
    let original = |says| append_saying(topic, 0, vec![sequenced(9, 5, 3)], says);
    assert_eq!(placed(&send(&mut harness, 0, original(1)).await), stored(3));
    assert_eq!(placed(&send(&mut harness, 0, original(2)).await), stored(6));
    let mut harness = harness.restart();
    assert_eq!(placed(&send(&mut harness, 0, original(1)).await), known(3));
    assert_eq!(placed(&send(&mut harness, 0, original(2)).await), known(6));
}

/// Would catch a user that sends again under the id of a send whose outcome he was not told, and has it stored twice.
#[tokio::test]
async fn a_message_of_a_sequenced_sender_is_known_under_its_id() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 2).await;
    let request = append_saying(topic, 0, vec![sequenced(9, 5, 3)], 0);
    send(&mut harness, 0, request).await;
    let id = 9 << 64 | 6;
    let again = append_saying(topic, 1, vec![of_client(4, id, 1)], 0);
    let again = send(&mut harness, 0, again).await;
    assert_eq!(
        (placed(&again), again.placed[0].queue),
        (vec![(1, false)], 0)
    );
    let another = append_saying(topic, 1, vec![of_client(4, id, 1)], 8);
    assert_eq!(placed(&send(&mut harness, 0, another).await), [(0, true)]);
}

/// What a producer does next.
#[derive(Debug, Clone)]
enum Step {
    /// Its next request, so many messages, of which these go to the second queue.
    Next(u32, u32),
    /// The newest request once more: it was not answered.
    Again,
    /// An older request arrives; nobody waits for it any more.
    Late(usize),
    /// Others send.
    Noise(u64, u128),
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let step = prop_oneof![
        4 => (1_u32..6, any::<u32>()).prop_map(|(count, second)| Step::Next(count, second)),
        3 => Just(Step::Again),
        1 => (0_usize..8).prop_map(Step::Late),
        3 => (0_u64..4, 0_u128..9).prop_map(|(client, id)| Step::Noise(client, id)),
    ];
    (1_u64..4, step)
}

/// The appends of a request: what goes to the second queue is a command of its own.
fn commands(topic: u64, sender: u64, (first, count, second): (u64, u32, u32)) -> Vec<Body> {
    let of = |queue: u32| {
        let mine = (0..count).filter(move |n| (second >> n & 1) == queue);
        mine.map(|n| sequenced(sender, first + u64::from(n), 1))
            .collect::<Vec<IdRun>>()
    };
    // The second queue's first: it may be applied before the other.
    let queues = [(1, of(1)), (0, of(0))]
        .into_iter()
        .filter(|(_, ids)| !ids.is_empty());
    queues
        .map(|(queue, ids)| append_saying(topic, queue, ids, 0))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Would catch a message of a producer that is stored twice, one that is refused although its producer waits for it,
    /// and replicas that forget differently, with hardly room for what must be remembered.
    #[test]
    fn a_producer_that_waits_for_each_request_has_each_stored_once(
        steps in proptest::collection::vec(step(), 1..80),
        half in 0_usize..80,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut harness = Harness::new().await;
            let topic = harness.topic("orders", 2).await;
            let mut late = None;
            let mut requests: std::collections::BTreeMap<u64, Vec<(u64, u32, u32)>> = Default::default();
            let mut messages = 0;
            for (number, (sender, step)) in steps.into_iter().enumerate() {
                if number == half {
                    late = Some(harness.fork().await);
                }
                let of_sender = requests.entry(sender).or_default();
                let (request, waits) = match step {
                    Step::Next(count, second) => {
                        let first = of_sender.last().map_or(sender, |(first, count, _)| first + u64::from(*count));
                        // Ids jump when a second ends.
                        let request = (first + u64::from(second % 2) * 1_000, count, second);
                        of_sender.push(request);
                        messages += u64::from(count);
                        (Some(request), true)
                    }
                    Step::Again => (of_sender.last().copied(), true),
                    Step::Late(back) => {
                        let older = of_sender.len().checked_sub(back + 2);
                        (older.map(|place| of_sender[place]), false)
                    }
                    Step::Noise(client, id) => {
                        let noise = append_saying(topic, 0, vec![of_client(client, id, 1)], 1 + number as u32);
                        messages += 1;
                        let entry = encode(1, LONG_MS, 24_000, vec![noise]);
                        apply(&mut harness, &mut late, entry).await;
                        continue;
                    }
                };
                let Some(request) = request else { continue };
                let entry = encode(1, LONG_MS, 24_000, commands(topic, sender, request));
                let replies = apply(&mut harness, &mut late, entry).await;
                let refused: u32 = replies.iter().map(too_late).sum();
                assert!(!waits || refused == 0, "{request:?}: {replies:?}");
            }
            let stored = harness.view.queues(topic).iter().map(|queue| queue.next_offset).sum::<u64>();
            assert_eq!(stored, messages);
            if let Some(late) = &late {
                assert_eq!(late.dump(), harness.dump());
            }
            let dump = harness.dump();
            assert_eq!(harness.restart().dump(), dump);
        });
    }
}

/// Has an entry applied by a replica, and by one that began with a copy of its tables: they must agree.
async fn apply(
    harness: &mut Harness,
    late: &mut Option<Harness>,
    entry: Bytes,
) -> Vec<CommandReply> {
    let committed = harness.append(vec![entry]).await;
    let replies = harness.apply_committed(&committed).remove(0).commands;
    if let Some(late) = late {
        assert_eq!(late.apply_committed(&committed).remove(0).commands, replies);
    }
    replies
}
