//! Mutant: the messages of a request are stored one by one, and others come between them.

use host::{Mutant, mutant};

use super::{Placed, ProposalError, Proposer, QueueSend};

/// Stores the messages one after the other; none if they are to be stored together.
pub(super) async fn send(
    proposer: &Proposer,
    send: &QueueSend,
) -> Option<Result<Vec<Placed>, ProposalError>> {
    if !mutant::is(Mutant::BatchTornApart) || send.messages.len() == 1 {
        return None;
    }
    let mut placed = Vec::new();
    for (message, id) in send.messages.iter().zip(&send.ids) {
        let one = QueueSend {
            topic_id: send.topic_id,
            queue: send.queue,
            messages: vec![message.clone()],
            ids: vec![*id],
            bytes: message.len(),
        };
        match Box::pin(proposer.send(one)).await {
            Ok(run) => placed.extend(run),
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(placed))
}
