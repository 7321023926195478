//! What servers are asked about a group, written down with what they say.

use std::sync::Arc;

use raftmq_client::{PullConsumer, TopicQueue};

use crate::history::{Event, History, Queue};
use crate::machine::Machine;

/// What a group has committed in a queue. A question without an answer says nothing.
pub async fn ask_committed(
    history: &History,
    machine: Machine,
    consumer: &PullConsumer,
    group: &Arc<str>,
    queue: &Queue,
) {
    let call = history.next_number();
    let asked = Event::AskCommitted {
        call,
        group: group.clone(),
        queue: queue.clone(),
    };
    history.record(machine, asked);
    let queue = TopicQueue::new(queue.topic.clone(), queue.queue);
    if let Ok(offset) = consumer.committed(&queue).await {
        history.record(machine, Event::ToldCommitted { call, offset });
    }
}
