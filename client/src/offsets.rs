//! Calls about offsets: where a queue begins and ends, how far a group has come. One function for each.

use std::sync::Arc;

use proto::place::{COMMITTED, LIFE, Life, START, StartOf};
use proto::v2;

use crate::answer::Said;
use crate::connection::{Call, Identity};
use crate::consumer::TopicQueue;
use crate::core::Core;
use crate::error::Error;
use crate::route::{endpoints, resource};

/// Which offset of a queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// Of the oldest message.
    First,
    /// Of the message that comes next.
    Next,
    /// Of the first message stored at or after a time, in milliseconds since the Unix epoch.
    AtMs(u64),
}

/// Asks where a queue begins, ends, or was at a time.
pub(crate) async fn query(
    core: &Arc<Core>,
    queue: &TopicQueue,
    place: Place,
) -> Result<u64, Error> {
    let call = call(core, "query offset", queue, None, false).await?;
    let subject = call.subject.clone();
    let (policy, timestamp) = match place {
        Place::First => (v2::QueryOffsetPolicy::Beginning, None),
        Place::Next => (v2::QueryOffsetPolicy::End, None),
        Place::AtMs(ms) => (v2::QueryOffsetPolicy::Timestamp, Some(timestamp(ms))),
    };
    let request = v2::QueryOffsetRequest {
        message_queue: Some(message_queue(queue, &call.group)),
        query_offset_policy: policy as i32,
        timestamp,
    };
    let connection = &core.connection;
    let identity = connection.identity.for_group(&call.group);
    let answer: v2::QueryOffsetResponse = connection
        .call(call, |address, timeout| {
            let request = identity.request(request.clone(), timeout);
            async move { connection.messaging(&address)?.query_offset(request).await }
        })
        .await?;
    offset(answer.offset, "query offset", subject)
}

/// What a group has committed in a queue.
pub(crate) async fn committed(
    core: &Arc<Core>,
    identity: &Identity,
    group: &str,
    queue: &TopicQueue,
) -> Result<Option<u64>, Error> {
    let call = call(core, "get offset", queue, Some(group), false).await?;
    let subject = call.subject.clone();
    let request = v2::GetOffsetRequest {
        group: Some(resource(group)),
        message_queue: Some(message_queue(queue, &call.group)),
    };
    let connection = &core.connection;
    let identity = identity.for_group(&call.group);
    let answer: Result<v2::GetOffsetResponse, Error> = connection
        .call(call, |address, timeout| {
            let request = identity.request(request.clone(), timeout);
            async move { connection.messaging(&address)?.get_offset(request).await }
        })
        .await;
    match answer {
        // Not there yet: this group is new, or new to this queue.
        Err(Error::Refused {
            code: v2::Code::OffsetNotFound | v2::Code::ConsumerGroupNotFound,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
        Ok(answer) => offset(answer.offset, "get offset", subject).map(Some),
    }
}

/// Where a consumer starts in a queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Start {
    pub(crate) offset: u64,
    /// Whether that is what its group committed.
    pub(crate) committed: bool,
    /// The life of the topic in which that is so.
    pub(crate) life: Option<Life>,
}

/// Asks where to start in a queue: at what the group committed, or where the group starts.
pub(crate) async fn start(
    core: &Arc<Core>,
    identity: &Identity,
    group: &str,
    queue: &TopicQueue,
    of: StartOf,
) -> Result<Start, Error> {
    let call = call(core, "find the start", queue, Some(group), false).await?;
    let subject = call.subject.clone();
    let request = v2::GetOffsetRequest {
        group: Some(resource(group)),
        message_queue: Some(message_queue(queue, &call.group)),
    };
    let identity = identity.for_group(&call.group).with(START, &of);
    let (connection, identity) = (&core.connection, &identity);
    let said = Said::default();
    let answer: v2::GetOffsetResponse = connection
        .call(call, |address, timeout| {
            let (request, said) = (identity.request(request.clone(), timeout), &said);
            async move {
                let answered = connection.messaging(&address)?.get_offset(request).await;
                said.hear(answered)
            }
        })
        .await?;
    Ok(Start {
        offset: offset(answer.offset, "find the start", subject)?,
        committed: said.header(START).is_some_and(|start| start == COMMITTED),
        life: said.header(LIFE).and_then(|life| life.parse().ok()),
    })
}

/// Commits the next offset that a group wants of a queue. Going back is not done by this call.
pub(crate) async fn commit(
    core: &Arc<Core>,
    identity: &Identity,
    group: &str,
    queue: &TopicQueue,
    offset: u64,
) -> Result<(), Error> {
    let call = call(core, "commit offset", queue, Some(group), true).await?;
    let request = v2::UpdateOffsetRequest {
        group: Some(resource(group)),
        message_queue: Some(message_queue(queue, &call.group)),
        offset: i64::try_from(offset).map_err(|_| {
            Error::invalid(format!("offset {offset}"), "it is larger than any offset")
        })?,
    };
    let identity = identity.for_group(&call.group);
    let (connection, identity) = (&core.connection, identity.meaning(queue));
    let _: v2::UpdateOffsetResponse = connection
        .call(call, |address, timeout| {
            let request = identity.request(request.clone(), timeout);
            async move { connection.messaging(&address)?.update_offset(request).await }
        })
        .await?;
    Ok(())
}

async fn call(
    core: &Arc<Core>,
    operation: &'static str,
    queue: &TopicQueue,
    group: Option<&str>,
    changes: bool,
) -> Result<Call, Error> {
    let broker_group = core.group_of(&queue.topic, queue.queue).await?;
    let subject = match group {
        Some(group) => format!(
            "group {group} in queue {} of topic {}",
            queue.queue, queue.topic
        ),
        None => format!("queue {} of topic {}", queue.queue, queue.topic),
    };
    Ok(Call {
        operation,
        subject,
        group: broker_group,
        timeout: core.connection.request_timeout,
        changes,
        once: false,
    })
}

/// A queue as the contract writes it.
pub(crate) fn message_queue(queue: &TopicQueue, broker_group: &str) -> v2::MessageQueue {
    v2::MessageQueue {
        topic: Some(resource(&queue.topic)),
        id: i32::try_from(queue.queue).unwrap_or(i32::MAX),
        permission: v2::Permission::ReadWrite as i32,
        broker: Some(v2::Broker {
            name: broker_group.to_owned(),
            id: 0,
            endpoints: Some(endpoints("")),
        }),
        accept_message_types: Vec::new(),
    }
}

fn timestamp(ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: (ms % 1000 * 1_000_000) as i32,
    }
}

fn offset(offset: i64, operation: &'static str, subject: String) -> Result<u64, Error> {
    u64::try_from(offset).map_err(|_| Error::Protocol {
        operation,
        subject,
        address: "the leader".to_owned(),
        reason: format!("offset {offset} is negative"),
    })
}
