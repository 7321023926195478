//! The redelivery service: messages whose processing failed are handed back, pulled again, and settled.
//!
//! The leader answers; a follower forwards. What is handed back and settled is agreed on before it is
//! answered. What is pulled is at least as new as anything that was answered before: a broker that no longer
//! leads does not deliver what is settled elsewhere.

mod pull;
mod send_back;
mod settle;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use proto::QueueId;
use proto::command::Delivery;
use proto::redelivery::redelivery_server::Redelivery;
use proto::redelivery::{
    Failed, PullRetriesRequest, PullRetriesResponse, RedeliveryResponse, SendBackRequest,
    SettleRequest,
};
use proto::v2::Code;
use tonic::{Request, Response, Status};

use crate::call::{Context, lead};
use crate::grpc::status::{CallError, Refusal, queue_not_found};
use crate::grpc::{check_group, check_topic_to_read};
use crate::machine::limits::DELIVERIES_MAX;
use crate::service::Service;
use crate::view::{Group, Topic};

/// Longest wait for another broker's answer to a forwarded call without a deadline of its own.
const FORWARD_DURATION_MAX: Duration = Duration::from_secs(60);

/// Most deliveries of one message.
const ATTEMPT_MAX: u32 = 1 << 20;

/// The redelivery service of one broker.
#[derive(Clone)]
pub(crate) struct RedeliveryService(pub(crate) Arc<Service>);

type Answered<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Redelivery for RedeliveryService {
    async fn send_back(&self, request: Request<SendBackRequest>) -> Answered<RedeliveryResponse> {
        lead(&self.0, request).await
    }

    async fn pull_retries(
        &self,
        request: Request<PullRetriesRequest>,
    ) -> Answered<PullRetriesResponse> {
        lead(&self.0, request).await
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Answered<RedeliveryResponse> {
        lead(&self.0, request).await
    }
}

/// Has the broker at an address answer: the name is that of the client's method.
macro_rules! forward {
    ($method:ident, $request:ident, $service:ident, $address:ident) => {{
        let mut request = $request;
        $crate::admin_pool::onward(&mut request)?;
        let wait = gateway::deadline(request.metadata())
            .unwrap_or($crate::redelivery::FORWARD_DURATION_MAX);
        let mut client = $service.admin_pool.redelivery_client($address)?;
        match tokio::time::timeout(wait, client.$method(request)).await {
            Ok(answer) => answer.map_err($crate::redelivery::explained),
            Err(_) => Err(tonic::Status::deadline_exceeded(format!(
                "{} did not answer in time",
                $address
            ))),
        }
    }};
}
use forward;

/// The transport reports a connection that breaks, and a call that takes too long, in many ways; to callers
/// they are two.
fn explained(status: Status) -> Status {
    match status.code() {
        tonic::Code::Cancelled => Status::deadline_exceeded(status.message()),
        tonic::Code::Unknown => Status::unavailable(status.message()),
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded => status,
        _ if status.source().is_some() => Status::unavailable(status.message()),
        _ => status,
    }
}

/// What a call is about.
struct Target {
    group: Arc<Group>,
    topic: Arc<Topic>,
    queue: QueueId,
}

impl Target {
    /// Finds the queue, and the group or makes it.
    async fn find(
        service: &Service,
        context: &Context,
        (group, topic, queue): (&str, &str, QueueId),
    ) -> Result<Target, CallError> {
        check_group(group)?;
        check_topic_to_read(topic)?;
        let topic = service.topic(topic)?;
        context.means(service, &topic).await?;
        if !topic.offers(queue) {
            let queue = i32::try_from(queue).unwrap_or(i32::MAX);
            return Err(queue_not_found(&topic, queue).into());
        }
        let group = service.group_or_create(group, context).await?;
        Ok(Target {
            group,
            topic,
            queue,
        })
    }
}

/// The deliveries of a call, checked but for what only the state machine knows.
fn deliveries(named: &[Failed]) -> Result<Vec<Delivery>, Refusal> {
    let refuse = |reason: String| Err(Refusal::new(Code::BadRequest, reason));
    if named.is_empty() || named.len() > DELIVERIES_MAX {
        let count = named.len();
        return refuse(format!(
            "{count} messages are not between 1 and {DELIVERIES_MAX}"
        ));
    }
    if let Some(wrong) = named
        .iter()
        .find(|one| !(1..=ATTEMPT_MAX).contains(&one.attempt))
    {
        let attempt = wrong.attempt;
        return refuse(format!(
            "attempt {attempt} is not between 1 and {ATTEMPT_MAX}"
        ));
    }
    let delivery = |one: &Failed| Delivery {
        offset: one.offset,
        attempt: one.attempt,
    };
    Ok(named.iter().map(delivery).collect())
}

/// The answer to a call that was carried out.
fn done() -> RedeliveryResponse {
    RedeliveryResponse {
        code: Code::Ok.into(),
        message: String::new(),
    }
}

fn refused(refusal: Refusal) -> RedeliveryResponse {
    RedeliveryResponse {
        code: refusal.code.into(),
        message: refusal.reason,
    }
}
