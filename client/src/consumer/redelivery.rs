//! Calls about failed messages: hand back, ask for retries, settle. One function for each.

use std::sync::Arc;
use std::time::Duration;

use proto::redelivery::{
    Failed, PullRetriesRequest, PullRetriesResponse, RedeliveryResponse, SendBackRequest,
    SettleRequest,
};
use proto::v2::Code;

use crate::answer::{self, Attempt};
use crate::connection::Call;
use crate::consumer::delivery::TopicQueue;
use crate::consumer::holdings::RetriesWanted;
use crate::consumer::shared::Shared;
use crate::error::Error;
use crate::lookout::PATIENCE_PARKED;

/// Bytes of retries in one answer; a larger one comes alone.
const RETRIES_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The longest wait for a retry that brokers take.
const DELAY_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A failed delivery, and what shall become of its message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandBack {
    pub(crate) offset: u64,
    pub(crate) attempt: u32,
    /// Until the next delivery; `None`: as the group's back-off has it.
    pub(crate) delay: Option<Duration>,
    /// Straight to the dead letters.
    pub(crate) dead: bool,
}

/// What became of a message that was handed back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HandedBack {
    /// The servers have it: progress may pass it.
    Kept,
    /// Retention has removed it, or its topic was made again: there is nothing to deliver again.
    Gone,
}

/// Hands a failed message back.
pub(crate) async fn send_back(
    shared: &Shared,
    queue: &TopicQueue,
    failed: HandBack,
) -> Result<HandedBack, Error> {
    let request = SendBackRequest {
        group: shared.group.to_string(),
        topic: queue.topic.to_string(),
        queue: queue.queue,
        failed: vec![Failed {
            offset: failed.offset,
            attempt: failed.attempt,
        }],
        delay_ms: failed.delay.map_or(0, |delay| {
            // 0 would mean the group's back-off.
            (delay.min(DELAY_MAX).as_millis() as u64).max(1)
        }),
        dead: failed.dead,
    };
    let call = call(shared, "hand back", queue).await?;
    let identity = shared.identity.for_group(&call.group).meaning(queue);
    let connection = &shared.core.connection;
    let answer: Result<RedeliveryResponse, Error> = connection
        .call(call, |address, timeout| {
            let request = identity.request(request.clone(), timeout);
            async move { connection.redelivery(&address)?.send_back(request).await }
        })
        .await;
    match answer {
        Ok(_) => Ok(HandedBack::Kept),
        Err(Error::Refused {
            code:
                Code::IllegalOffset
                | Code::OffsetNotFound
                | Code::MessageNotFound
                | Code::PreconditionFailed,
            ..
        }) => Ok(HandedBack::Gone),
        Err(error) => Err(error),
    }
}

/// Says that a delivery of a message that was handed back is done with.
pub(crate) async fn settle(
    shared: &Shared,
    queue: &TopicQueue,
    offset: u64,
    attempt: u32,
) -> Result<(), Error> {
    let request = SettleRequest {
        group: shared.group.to_string(),
        topic: queue.topic.to_string(),
        queue: queue.queue,
        settled: vec![Failed { offset, attempt }],
    };
    let call = call(shared, "settle", queue).await?;
    let identity = shared.identity.for_group(&call.group).meaning(queue);
    let connection = &shared.core.connection;
    let _: RedeliveryResponse = connection
        .call(call, |address, timeout| {
            let request = identity.request(request.clone(), timeout);
            async move { connection.redelivery(&address)?.settle(request).await }
        })
        .await?;
    Ok(())
}

/// Asks one address for the retries of a queue, once. Also says whether the answer named another leader.
pub(super) async fn pull(
    shared: &Shared,
    queue: &TopicQueue,
    wanted: RetriesWanted,
    broker_group: &str,
    address: &Arc<str>,
) -> (Attempt<PullRetriesResponse>, bool) {
    let connection = &shared.core.connection;
    let polling = shared.settings.long_polling_timeout;
    let request = PullRetriesRequest {
        group: shared.group.to_string(),
        topic: queue.topic.to_string(),
        queue: queue.queue,
        messages_max: u32::try_from(wanted.room).unwrap_or(u32::MAX),
        bytes_max: RETRIES_BYTES_MAX,
        wait_ms: u64::try_from(polling.as_millis()).unwrap_or(u64::MAX),
        held: wanted.held,
    };
    // The server answers when the polling ends; the rest is for the way.
    let timeout = polling.saturating_add(connection.attempt_timeout);
    let call = async {
        let identity = shared.identity.for_group(broker_group).meaning(queue);
        let request = identity.request(request, timeout);
        connection.redelivery(address)?.pull_retries(request).await
    };
    tokio::select! {
        biased;
        outcome = connection.attempt(broker_group, address, timeout, call) => outcome,
        () = connection.overtaken(broker_group, address, PATIENCE_PARKED) => (answer::overtaken(), true),
    }
}

async fn call(shared: &Shared, operation: &'static str, queue: &TopicQueue) -> Result<Call, Error> {
    let TopicQueue { topic, queue, .. } = queue;
    let broker_group = shared.core.group_of(topic, *queue).await?;
    Ok(Call {
        operation,
        subject: format!(
            "a message of group {} in queue {queue} of topic {topic}",
            shared.group
        ),
        group: broker_group,
        timeout: shared.core.connection.request_timeout,
        changes: true,
        once: false,
    })
}
