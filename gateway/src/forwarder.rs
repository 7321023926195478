//! The forwarder: every call of the messaging service, sent on to an address.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use host::network::{self, ChannelOptions, ClusterSecret};
use proto::opaque;
use proto::v2::{self, TelemetryCommand};
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::failure::{explain, late};
use crate::metadata::{deadline, onward, strip};
use crate::pool::Pool;
use crate::stream::{AnswerStream, Patience, STREAM_ITEM_DEADLINE, guarded, pass_on};

/// How long a call with one answer may take when its caller set no deadline.
pub const UNARY_DEADLINE: Duration = Duration::from_secs(10);

/// How long the other end may take to accept a telemetry stream.
pub const TELEMETRY_OPEN_DEADLINE: Duration = Duration::from_secs(5);

/// What an answer in many parts may leave unread in its channel, and what all of them may: so that it takes hundreds that
/// their clients do not read to hold up the others.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const STREAMS_WINDOW_BYTES: u32 = 64 << 20;

type Client = opaque::messaging_service_client::MessagingServiceClient<Channel>;

/// Sends calls on. Cheap to clone; clones share their channels.
///
/// Each method forwards the call of its name to `address` (`host:port`). The metadata goes along, one hop further; the
/// answer's metadata comes back. The call takes no longer than its own `grpc-timeout`, or else the named default.
///
/// # Errors
///
/// The owner's own gRPC status unchanged; `Unavailable` or `DeadlineExceeded` if it could not be asked or did not answer
/// ([`is_unreachable`](crate::is_unreachable): try again, the outcome is unknown); `Unavailable` if the call has made
/// [`HOPS_MAX`](crate::HOPS_MAX) hops already. Dropping the future or the stream cancels the call.
#[derive(Clone, Debug)]
pub struct Forwarder {
    pool: Arc<Pool<Client>>,
    /// Channels for answers in many parts: what their clients do not read fills these channels' windows, and holds up
    /// no send.
    streams: Arc<Pool<Client>>,
    /// What its channels prove with: the other end cuts nobody for what one of many clients does, nor counts again what was
    /// counted here.
    secret: Option<ClusterSecret>,
}

impl Default for Forwarder {
    fn default() -> Self {
        Self::new()
    }
}

impl Forwarder {
    /// A forwarder without channels; they are opened when needed. It is a stranger to those it calls.
    pub fn new() -> Forwarder {
        Forwarder {
            pool: Arc::new(Pool::new()),
            streams: Arc::new(Pool::new()),
            secret: None,
        }
    }

    /// A forwarder that proves that it holds the cluster's secret.
    pub fn proving(secret: ClusterSecret) -> Forwarder {
        Forwarder {
            secret: Some(secret),
            ..Forwarder::new()
        }
    }

    /// Forwards `Telemetry`. `commands` end at their first error, and as soon as the answers are dropped.
    pub async fn telemetry<S>(
        &self,
        address: &str,
        commands: Request<S>,
    ) -> Result<Response<AnswerStream<TelemetryCommand>>, Status>
    where
        S: Stream<Item = Result<TelemetryCommand, Status>> + Send + 'static,
    {
        let (metadata, _, commands) = onward(commands)?.into_parts();
        let (commands, guard) = guarded(commands);
        let mut request = Request::new(commands);
        *request.metadata_mut() = metadata;
        let mut client = self.client(&self.pool, ChannelOptions::default(), address)?;
        let opened = timeout(TELEMETRY_OPEN_DEADLINE, client.telemetry(request)).await;
        let answers = settle(address, opened, TELEMETRY_OPEN_DEADLINE)?;
        Ok(answers.map(|answers| pass_on(address, answers, Patience::Unlimited, guard)))
    }

    async fn unary<Q, A>(
        &self,
        address: &str,
        request: Request<Q>,
        call: impl AsyncFnOnce(Client, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<Response<A>, Status> {
        let limit = deadline(request.metadata()).unwrap_or(UNARY_DEADLINE);
        let mut request = onward(request)?;
        request.set_timeout(limit);
        let client = self.client(&self.pool, ChannelOptions::default(), address)?;
        settle(address, timeout(limit, call(client, request)).await, limit)
    }

    async fn server_stream<Q, A: Send + 'static>(
        &self,
        address: &str,
        request: Request<Q>,
        call: impl AsyncFnOnce(Client, Request<Q>) -> Result<Response<Streaming<A>>, Status>,
    ) -> Result<Response<AnswerStream<A>>, Status> {
        let asked = deadline(request.metadata());
        let limit = asked.unwrap_or(STREAM_ITEM_DEADLINE);
        let patience = match asked.and_then(|limit| Instant::now().checked_add(limit)) {
            Some(end) => Patience::Until(end),
            None => Patience::PerItem(STREAM_ITEM_DEADLINE),
        };
        let mut request = onward(request)?;
        request.set_timeout(limit);
        let options = ChannelOptions {
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: STREAMS_WINDOW_BYTES,
            ..ChannelOptions::default()
        };
        let client = self.client(&self.streams, options, address)?;
        let answers = settle(address, timeout(limit, call(client, request)).await, limit)?;
        let mut answers = answers.map(|answers| pass_on(address, answers, patience, ()));
        // Each message is taken from the other end when it is asked for, and not before.
        network::make_on_demand(answers.extensions_mut());
        Ok(answers)
    }

    fn client(
        &self,
        pool: &Pool<Client>,
        options: ChannelOptions,
        address: &str,
    ) -> Result<Client, Status> {
        pool.get(address, Instant::now(), || {
            let options = ChannelOptions {
                secret: self.secret.clone(),
                ..options
            };
            match network::channel(address, &options) {
                Ok(channel) => Ok(opaque::messaging_client(channel)),
                Err(error) => Err(Status::unavailable(format!(
                    "{address} cannot be reached: {error}"
                ))),
            }
        })
    }
}

/// What the caller gets for how a call to `address` ended, with nothing in it that belongs to that connection alone.
fn settle<A, E>(
    address: &str,
    ended: Result<Result<Response<A>, Status>, E>,
    limit: Duration,
) -> Result<Response<A>, Status> {
    let mut answer = ended
        .map_err(|_| late(address, limit))?
        .map_err(|status| explain(address, status))?;
    strip(answer.metadata_mut());
    Ok(answer)
}

/// One forwarding method per call: the name, what is asked, what is answered, and the shape of the answer.
macro_rules! forward {
    ($($shape:ident $method:ident: $request:ty => $answer:ty;)*) => {
        impl Forwarder {$(
            #[doc = concat!("Forwards `", stringify!($method), "`; see [`Forwarder`].")]
            pub async fn $method(
                &self,
                address: &str,
                request: Request<$request>,
            ) -> Result<Response<forward!(@$shape $answer)>, Status> {
                self.$shape(address, request, async |mut client: Client, request| {
                    client.$method(request).await
                })
                .await
            }
        )*}
    };
    (@unary $answer:ty) => { $answer };
    (@server_stream $answer:ty) => { AnswerStream<$answer> };
}

forward! {
    unary query_route: v2::QueryRouteRequest => v2::QueryRouteResponse;
    unary heartbeat: v2::HeartbeatRequest => v2::HeartbeatResponse;
    unary send_message: opaque::SendMessageRequest => v2::SendMessageResponse;
    unary query_assignment: v2::QueryAssignmentRequest => v2::QueryAssignmentResponse;
    server_stream receive_message: v2::ReceiveMessageRequest => opaque::ReceiveMessageResponse;
    unary ack_message: v2::AckMessageRequest => v2::AckMessageResponse;
    unary forward_message_to_dead_letter_queue:
        v2::ForwardMessageToDeadLetterQueueRequest => v2::ForwardMessageToDeadLetterQueueResponse;
    server_stream pull_message: v2::PullMessageRequest => opaque::PullMessageResponse;
    unary update_offset: v2::UpdateOffsetRequest => v2::UpdateOffsetResponse;
    unary get_offset: v2::GetOffsetRequest => v2::GetOffsetResponse;
    unary query_offset: v2::QueryOffsetRequest => v2::QueryOffsetResponse;
    unary end_transaction: v2::EndTransactionRequest => v2::EndTransactionResponse;
    unary notify_client_termination:
        v2::NotifyClientTerminationRequest => v2::NotifyClientTerminationResponse;
    unary change_invisible_duration:
        v2::ChangeInvisibleDurationRequest => v2::ChangeInvisibleDurationResponse;
    unary recall_message: v2::RecallMessageRequest => v2::RecallMessageResponse;
    unary sync_lite_subscription:
        v2::SyncLiteSubscriptionRequest => v2::SyncLiteSubscriptionResponse;
}
