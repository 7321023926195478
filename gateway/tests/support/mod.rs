//! A process that owns answers: what a leader is to those who forward. It says who it is, and remembers who asked.
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses a part of it"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use gateway::{Answer, AnswerStream, set_leader};
use host::network::{self, Listener, Proof, ServerOptions};
use host::{Shutdown, ShutdownTrigger};
use proto::opaque::messaging_service_server::MessagingService;
use proto::opaque::{
    self, PullMessageResponse, ReceiveMessageResponse, SendMessageRequest, pull_message_response,
};
use proto::v2::*;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Streaming};

/// Nothing in these tests takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One call as the owner got it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub call: &'static str,
    pub metadata: MetadataMap,
}

/// What the test knows of a running owner. Dropping it stops the owner.
pub struct Owner {
    pub address: String,
    state: Arc<State>,
    trigger: ShutdownTrigger,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    name: &'static str,
    address: String,
    /// Calls are taken and never answered.
    silent: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    bodies: Mutex<Vec<Bytes>>,
    open_streams: watch::Sender<usize>,
}

impl Owner {
    pub async fn start(name: &'static str) -> Owner {
        Owner::start_at(name, "127.0.0.1:0").await
    }

    pub async fn start_at(name: &'static str, address: &str) -> Owner {
        let listener = Listener::bind(address).await.unwrap();
        let address = listener.local_address().to_string();
        let state = Arc::new(State {
            name,
            address: address.clone(),
            silent: AtomicBool::new(false),
            seen: Mutex::default(),
            bodies: Mutex::default(),
            open_streams: watch::Sender::new(0),
        });
        let (trigger, shutdown) = Shutdown::new();
        let options = ServerOptions {
            shutdown_grace_ms: 10,
            proof: Proof::Accepted(host::testing::cluster_secret()),
            ..ServerOptions::default()
        };
        let service = opaque::messaging_server(Service(state.clone()));
        let router = network::server(&options).add_service(service);
        let task = tokio::spawn(async move {
            network::serve(listener, router, options, shutdown)
                .await
                .unwrap();
        });
        Owner {
            address,
            state,
            trigger,
            task,
        }
    }

    pub fn fall_silent(&self) {
        self.state.silent.store(true, Ordering::SeqCst);
    }

    /// Stops it; its connections are closed when this returns.
    pub async fn stop(self) {
        self.trigger.shut_down();
        self.task.await.unwrap();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn calls(&self) -> Vec<&'static str> {
        self.seen().into_iter().map(|seen| seen.call).collect()
    }

    /// The messages of all sends, as they came.
    pub fn bodies(&self) -> Vec<Bytes> {
        self.state.bodies.lock().unwrap().clone()
    }

    /// Waits until it serves `count` streams that do not end by themselves.
    pub async fn open_streams(&self, count: usize) {
        let mut streams = self.state.open_streams.subscribe();
        tokio::time::timeout(PATIENCE, streams.wait_for(|streams| *streams == count))
            .await
            .expect("in time")
            .unwrap();
    }
}

struct Service(Arc<State>);

impl Service {
    async fn take<Q>(&self, call: &'static str, request: &Request<Q>) {
        let seen = Seen {
            call,
            metadata: request.metadata().clone(),
        };
        self.0.seen.lock().unwrap().push(seen);
        if self.0.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    fn answer<A>(&self, answer: A) -> Result<Response<A>, tonic::Status> {
        let mut answer = Response::new(answer);
        set_leader(answer.metadata_mut(), &self.0.address);
        Ok(answer)
    }
}

/// The owner's answer to a call with one answer: OK, and its name.
macro_rules! ok {
    ($self:ident, $call:ident, $request:ident) => {{
        $self.take(stringify!($call), &$request).await;
        $self.answer(Answer::refused(Code::Ok, $self.0.name))
    }};
}

type Outcome<A> = Result<Response<A>, tonic::Status>;

#[tonic::async_trait]
impl MessagingService for Service {
    async fn query_route(
        &self,
        request: Request<QueryRouteRequest>,
    ) -> Outcome<QueryRouteResponse> {
        ok!(self, query_route, request)
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Outcome<HeartbeatResponse> {
        ok!(self, heartbeat, request)
    }

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Outcome<SendMessageResponse> {
        self.0
            .bodies
            .lock()
            .unwrap()
            .extend(request.get_ref().messages.iter().cloned());
        ok!(self, send_message, request)
    }

    async fn query_assignment(
        &self,
        request: Request<QueryAssignmentRequest>,
    ) -> Outcome<QueryAssignmentResponse> {
        ok!(self, query_assignment, request)
    }

    type ReceiveMessageStream = AnswerStream<ReceiveMessageResponse>;

    async fn receive_message(
        &self,
        request: Request<ReceiveMessageRequest>,
    ) -> Outcome<Self::ReceiveMessageStream> {
        self.take("receive_message", &request).await;
        let status = ReceiveMessageResponse::refused(Code::MessageNotFound, self.0.name);
        self.answer(stream::iter([Ok(status)]).boxed())
    }

    async fn ack_message(
        &self,
        request: Request<AckMessageRequest>,
    ) -> Outcome<AckMessageResponse> {
        ok!(self, ack_message, request)
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        request: Request<ForwardMessageToDeadLetterQueueRequest>,
    ) -> Outcome<ForwardMessageToDeadLetterQueueResponse> {
        ok!(self, forward_message_to_dead_letter_queue, request)
    }

    type PullMessageStream = AnswerStream<PullMessageResponse>;

    /// Two messages and the end; with a negative offset, one message and then silence.
    async fn pull_message(
        &self,
        request: Request<PullMessageRequest>,
    ) -> Outcome<Self::PullMessageStream> {
        self.take("pull_message", &request).await;
        let message = |text: &'static str| {
            let content =
                pull_message_response::Content::Message(Bytes::from_static(text.as_bytes()));
            Ok(PullMessageResponse {
                content: Some(content),
            })
        };
        let first = stream::iter([message("first")]);
        if request.get_ref().offset < 0 {
            let open = OpenStream::new(self.0.clone());
            let silence = stream::once(async move {
                std::future::pending::<()>().await;
                drop(open);
                message("never")
            });
            return self.answer(first.chain(silence).boxed());
        }
        let rest = [
            message("second"),
            Ok(PullMessageResponse::refused(Code::Ok, self.0.name)),
        ];
        self.answer(first.chain(stream::iter(rest)).boxed())
    }

    async fn update_offset(
        &self,
        request: Request<UpdateOffsetRequest>,
    ) -> Outcome<UpdateOffsetResponse> {
        ok!(self, update_offset, request)
    }

    /// Refuses on the level of gRPC.
    async fn get_offset(&self, request: Request<GetOffsetRequest>) -> Outcome<GetOffsetResponse> {
        self.take("get_offset", &request).await;
        let mut refusal = tonic::Status::invalid_argument("no such offset");
        set_leader(refusal.metadata_mut(), &self.0.address);
        Err(refusal)
    }

    async fn query_offset(
        &self,
        request: Request<QueryOffsetRequest>,
    ) -> Outcome<QueryOffsetResponse> {
        ok!(self, query_offset, request)
    }

    async fn end_transaction(
        &self,
        request: Request<EndTransactionRequest>,
    ) -> Outcome<EndTransactionResponse> {
        ok!(self, end_transaction, request)
    }

    type TelemetryStream = AnswerStream<TelemetryCommand>;

    /// Answers each command with the same command, status OK and its name.
    async fn telemetry(
        &self,
        request: Request<Streaming<TelemetryCommand>>,
    ) -> Outcome<Self::TelemetryStream> {
        self.take("telemetry", &request).await;
        let open = OpenStream::new(self.0.clone());
        let name = self.0.name;
        let answers = stream::unfold((request.into_inner(), open), move |mut state| async move {
            let mut command = state.0.message().await.ok()??;
            command.status = TelemetryCommand::refused(Code::Ok, name).status;
            Some((Ok(command), state))
        });
        self.answer(answers.boxed())
    }

    async fn notify_client_termination(
        &self,
        request: Request<NotifyClientTerminationRequest>,
    ) -> Outcome<NotifyClientTerminationResponse> {
        ok!(self, notify_client_termination, request)
    }

    async fn change_invisible_duration(
        &self,
        request: Request<ChangeInvisibleDurationRequest>,
    ) -> Outcome<ChangeInvisibleDurationResponse> {
        ok!(self, change_invisible_duration, request)
    }

    async fn recall_message(
        &self,
        request: Request<RecallMessageRequest>,
    ) -> Outcome<RecallMessageResponse> {
        ok!(self, recall_message, request)
    }

    async fn sync_lite_subscription(
        &self,
        request: Request<SyncLiteSubscriptionRequest>,
    ) -> Outcome<SyncLiteSubscriptionResponse> {
        ok!(self, sync_lite_subscription, request)
    }
}

/// Counts while it lives.
struct OpenStream(Arc<State>);

impl OpenStream {
    fn new(state: Arc<State>) -> OpenStream {
        state.open_streams.send_modify(|streams| *streams += 1);
        OpenStream(state)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open_streams.send_modify(|streams| *streams -= 1);
    }
}

/// Fails the test instead of hanging it.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}
