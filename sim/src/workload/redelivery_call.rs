//! Calls to the brokers' redelivery service, made by hand: to any of them, each once.

use std::time::Duration;

use madsim::rand::Rng;
use proto::redelivery::{PullRetriesRequest, RedeliveryClient, redelivery_client};
use tonic::{Request, Response, Status};

use crate::history::Queue;
use crate::machine::CLIENT_PORT;
use crate::world::World;

/// Longest wait for an answer.
const CALL: Duration = Duration::from_secs(2);

/// Metadata in which a client says who it is.
const CLIENT_ID: &str = "x-mq-client-id";

/// Asks any broker of those that may have a queue; none if there was no answer.
pub(super) async fn call<Q, A>(
    (world, queue): (&World, u32),
    id: &str,
    request: Q,
    call: impl AsyncFnOnce(RedeliveryClient, Request<Q>) -> Result<Response<A>, Status>,
) -> Option<A> {
    let brokers = world.brokers_of(world.group_of_queue(queue));
    let place = madsim::rand::thread_rng().gen_range(0..brokers.len());
    let address = brokers[place].machine.address(CLIENT_PORT);
    let channel = host::network::channel(&address, &Default::default()).ok()?;
    let mut request = Request::new(request);
    let id = id.parse().expect("plain text");
    request.metadata_mut().insert(CLIENT_ID, id);
    request.set_timeout(CALL);
    let calling = call(redelivery_client(channel), request);
    match tokio::time::timeout(CALL, calling).await {
        Ok(Ok(answer)) => Some(answer.into_inner()),
        _ => None,
    }
}

/// The question which retries of a queue are due.
pub(super) fn pull_request(group: &str, queue: &Queue) -> PullRetriesRequest {
    PullRetriesRequest {
        group: group.to_owned(),
        topic: queue.topic.to_string(),
        queue: queue.queue,
        messages_max: 1,
        ..PullRetriesRequest::default()
    }
}
