//! What is handed out, done and committed, in every order of events.

use bytes::Bytes;
use host::Shutdown;

use super::*;
use crate::received::ReceivedMessage;

const BOUNDS: PrefetchBounds = PrefetchBounds {
    messages: 4,
    bytes: 1000,
    span: u64::MAX,
};

fn queue(number: u32) -> TopicQueue {
    TopicQueue::new("t", number)
}

fn deliveries(number: u32, offsets: std::ops::Range<u64>) -> Vec<Delivery> {
    let message = ReceivedMessage::decode(Bytes::from_static(b"\x22\x01x")).expect("decodes");
    offsets
        .map(|offset| Delivery {
            topic: "t".into(),
            queue: number,
            offset,
            attempt: 1,
            message: message.clone(),
            life: None,
        })
        .collect()
}

/// Holds some queues from offset 10 on; returns the epoch of each.
fn holding(numbers: &[u32]) -> (Holdings, Vec<u64>) {
    let mut holdings = Holdings::new(BOUNDS, Finishing::AtOnce);
    let mut epochs = Vec::new();
    for number in numbers {
        assert!(holdings.take(queue(*number), Arc::default(), Shutdown::new().0));
        let FetchNext::FindStart { epoch } = holdings.fetch_next(&queue(*number)) else {
            panic!("no start")
        };
        holdings.start_at(&queue(*number), epoch, 10, (Some(10), None));
        epochs.push(epoch);
    }
    (holdings, epochs)
}

fn offsets(deliveries: &[Delivery]) -> Vec<(u32, u64)> {
    deliveries
        .iter()
        .map(|delivery| (delivery.queue, delivery.offset))
        .collect()
}

/// Catches an automatic commit of messages that were fetched or handed out but not finished: they would be lost if this
/// process died now.
#[test]
fn only_what_is_done_is_committed() {
    let (mut holdings, epochs) = holding(&[0]);
    assert!(holdings.fetched(&queue(0), epochs[0], deliveries(0, 10..13), 13));
    assert_eq!(holdings.due(), []);
    assert_eq!(
        offsets(&holdings.hand_out(2).expect("messages")),
        [(0, 10), (0, 11)]
    );
    assert_eq!(holdings.due(), [], "handed out is not done");
    holdings.all_done();
    let due = Due {
        queue: queue(0),
        offset: 12,
    };
    assert_eq!(holdings.due(), std::slice::from_ref(&due));
    holdings.committed(&due);
    assert_eq!(holdings.due(), []);
    assert_eq!(offsets(&holdings.hand_out(9).expect("messages")), [(0, 12)]);
    assert_eq!(
        holdings.due_in(&queue(0)),
        None,
        "12 was not finished: its next owner gets it"
    );
}

/// Catches a message that is handed out after its queue went to another consumer, or after a seek.
#[test]
fn what_arrives_for_an_earlier_epoch_is_dropped() {
    let (mut holdings, epochs) = holding(&[0]);
    assert!(holdings.seek(&queue(0), 5));
    assert!(!holdings.fetched(&queue(0), epochs[0], deliveries(0, 10..13), 13));
    assert_eq!(holdings.position(&queue(0)), Some(5));
    let FetchNext::Pull {
        epoch, offset: 5, ..
    } = holdings.fetch_next(&queue(0))
    else {
        panic!("pulls from 5")
    };
    holdings.give_up(&queue(0));
    assert!(!holdings.fetched(&queue(0), epoch, deliveries(0, 5..6), 6));
    assert!(holdings.take(queue(0), Arc::default(), Shutdown::new().0));
    assert!(
        !holdings.fetched(&queue(0), epoch, deliveries(0, 5..6), 6),
        "held again, but anew"
    );
    assert_eq!(holdings.hand_out(9).expect("nothing").len(), 0);
}

/// Catches a buffer without bound, and one that is never filled again.
#[test]
fn a_full_buffer_stops_the_fetcher_until_there_is_room() {
    let (mut holdings, epochs) = holding(&[0]);
    holdings.fetched(&queue(0), epochs[0], deliveries(0, 10..14), 14);
    assert_eq!(holdings.fetch_next(&queue(0)), FetchNext::Full);
    holdings.hand_out(1).expect("a message");
    let room = FetchNext::Pull {
        epoch: epochs[0],
        life: None,
        offset: 14,
        messages: 1,
    };
    assert_eq!(holdings.fetch_next(&queue(0)), room);
}

/// Catches a busy queue that starves the others.
#[test]
fn queues_take_turns() {
    let (mut holdings, epochs) = holding(&[0, 1]);
    holdings.fetched(&queue(0), epochs[0], deliveries(0, 10..14), 14);
    holdings.fetched(&queue(1), epochs[1], deliveries(1, 10..12), 12);
    assert_eq!(
        offsets(&holdings.hand_out(2).expect("messages")),
        [(0, 10), (0, 11)]
    );
    assert_eq!(
        offsets(&holdings.hand_out(3).expect("messages")),
        [(1, 10), (1, 11), (0, 12)]
    );
}

/// Catches a filtered stretch that is read again and again because nothing of it is ever committed.
#[test]
fn a_stretch_without_matches_counts_as_done() {
    let (mut holdings, epochs) = holding(&[0]);
    holdings.fetched(&queue(0), epochs[0], Vec::new(), 500);
    holdings.all_done();
    assert_eq!(
        holdings.due(),
        [Due {
            queue: queue(0),
            offset: 500
        }]
    );
}

/// Catches an error that hides messages which had arrived before it, and one that is never shown.
#[test]
fn failures_are_shown_after_the_messages_and_once() {
    let (mut holdings, epochs) = holding(&[0]);
    holdings.fetched(&queue(0), epochs[0], deliveries(0, 10..11), 11);
    holdings.failed(&queue(0), epochs[0], Error::Closed { subject: "test" });
    assert_eq!(holdings.hand_out(9).expect("the message").len(), 1);
    assert!(holdings.hand_out(9).is_err());
    assert_eq!(holdings.hand_out(9).expect("nothing").len(), 0);
}
