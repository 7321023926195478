//! Which queue a message goes to. Pure but for the turn counter.

use std::sync::atomic::{AtomicU32, Ordering};

use model::queue_choice;
use proto::QueueId;
use proto::v2::Code;

use crate::grpc::status::Refusal;
use crate::view::Topic;

/// What decides about the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Hash of the message group: the same group always has the same queue, whatever queue its client
    /// chose, because clients in different languages hash differently.
    Group(u64),
    /// The client's wish.
    Wish(i32),
}

impl Choice {
    pub(super) fn group(name: &str) -> Choice {
        Choice::Group(queue_choice::hash(name))
    }
}

/// A queue of the topic. A queue that does not exist is refused: the message would be where its sender does not look for
/// it. `turn` is shared by all topics: only evenness matters.
pub(super) fn choose(choice: &Choice, topic: &Topic, turn: &AtomicU32) -> Result<QueueId, Refusal> {
    let (first, end) = (topic.first_queue(), topic.queue_count);
    let count = end.saturating_sub(first).max(1);
    match *choice {
        Choice::Group(hash) => Ok(first + queue_choice::of_group(hash, count)),
        Choice::Wish(wish) => match QueueId::try_from(wish) {
            Ok(queue) if (first..end).contains(&queue) => Ok(queue),
            Ok(queue) => Err(Refusal::new(
                Code::NotFound,
                format!(
                    "topic {} has no queue {queue} here: its queues are {first} to {}",
                    topic.name,
                    end.saturating_sub(1)
                ),
            )),
            // No wish.
            Err(_) => Ok(first + turn.fetch_add(1, Ordering::Relaxed) % count),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::FIRST_QUEUE;

    /// Catches a message in a queue that consumers are never told of, or in another one than its sender is told.
    #[test]
    fn only_queues_that_are_offered_are_chosen() {
        let topic = |first: &str| Topic {
            id: 1,
            name: "orders".to_owned(),
            queue_count: 6,
            message_type: 0,
            attributes: [(FIRST_QUEUE.to_owned(), first.to_owned())].into(),
            dead_letters: false,
            mark: 0,
        };
        let turn = AtomicU32::new(0);
        for (first, offered) in [("0", 0..6), ("4", 4..6), ("9", 5..6), ("x", 0..6)] {
            let topic = topic(first);
            let groups = (0..20).map(|name: u32| Choice::group(&name.to_string()));
            for choice in groups.chain([Choice::Wish(-1), Choice::Wish(i32::MIN)]) {
                let chosen = choose(&choice, &topic, &turn).unwrap();
                assert!(
                    offered.contains(&chosen),
                    "{first}: {choice:?} gave {chosen}"
                );
            }
            for wish in 0..8 {
                match choose(&Choice::Wish(wish), &topic, &turn) {
                    Ok(queue) => {
                        assert_eq!(i64::from(queue), i64::from(wish), "{first}");
                        assert!(offered.contains(&queue), "{first}");
                    }
                    Err(refusal) => {
                        assert!(!offered.contains(&(wish as u32)), "{first}: {wish}");
                        assert_eq!(refusal.code, Code::NotFound);
                    }
                }
            }
        }
    }
}
