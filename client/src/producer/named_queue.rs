//! Whether a queue that a user names takes messages. Pure.

use proto::v2::Code;

use crate::error::Error;
use crate::route::Route;

/// [`Error::Invalid`] unless the queue is one that takes messages.
pub(super) fn check(route: &Route, queue: u32) -> Result<(), Error> {
    if route.writable().any(|known| known.queue == queue) {
        return Ok(());
    }
    let mut writable: Vec<u32> = route.writable().map(|known| known.queue).collect();
    writable.sort_unstable();
    let has = match (writable.first(), writable.last()) {
        (Some(first), Some(last)) if writable.len() as u32 == last - first + 1 => {
            format!("its queues are {first} to {last}")
        }
        (Some(_), Some(_)) => format!("its queues are {writable:?}"),
        _ => "none of its queues does".to_owned(),
    };
    Err(Error::invalid(
        format!("topic {}", route.topic),
        format!("it has no queue {queue} that takes messages: {has}"),
    ))
}

/// What a send to a queue whose broker group no name server hears of is told: it may be there again, and nothing was sent.
pub(super) fn is_away(topic: &str, queue: u32, group: &str) -> Error {
    Error::Refused {
        operation: "send",
        subject: format!("queue {queue} of topic {topic}"),
        address: "the name servers".to_owned(),
        code: Code::HaNotAvailable,
        reason: format!("nothing is heard of its broker group {group}: try again"),
    }
}
