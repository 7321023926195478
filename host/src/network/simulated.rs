//! The simulator's gRPC server, and what it lets the simulator see of, and do to, each call.
//!
//! Stands in for madsim-tonic's own server, which takes up a connection only after the one before it
//! has sent its first message: one peer that is cut off in between would block all others. Here each
//! connection is a task, a call whose client went away is dropped as on a real connection, and every
//! message asks the [`Wire`] when it may pass. Must never run outside the simulator.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use madsim::net::{Endpoint, Receiver, Sender};
use tokio::sync::{Notify, watch};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxMessage, BoxMessageStream, RequestExt, Service};
use tonic::transport::NamedService;
use tonic::{Code, Request, Response, Status};

use super::NetworkError;
use crate::shutdown::Shutdown;

/// Tasks that take up connections: the simulator makes each of them wait a millisecond.
const ACCEPTORS: usize = 8;

/// What happens on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The request arrives, or the first sign of a stream of requests.
    Request,
    /// One more request of a stream arrives.
    RequestItem,
    /// The client gave the call up.
    Cancel,
    /// The answer leaves, or the head of a stream of answers.
    Answer(Code),
    /// One more answer of a stream leaves.
    AnswerItem,
    /// The stream of answers ends.
    End,
}

/// A message that wants to pass from one machine to another.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'a> {
    /// The machine that sends it.
    pub from: IpAddr,
    /// The machine that gets it.
    pub to: IpAddr,
    /// `/package.Service/Method`.
    pub path: &'a str,
    /// What it is.
    pub event: Event,
}

/// What lies between machines.
pub trait Wire: Send + Sync {
    /// Resolves to true when the message may pass, and to false when it is lost: its connection breaks then.
    fn pass(&self, passing: Passing<'_>) -> BoxFuture<'static, bool>;

    /// A copy of a request that shall arrive twice, and how long after it was answered.
    fn duplicate(&self, path: &str, request: &BoxMessage) -> Option<(Duration, BoxMessage)>;

    /// Whether a request may arrive again after `answer`. A transport that repeats a request does not tell its
    /// sender of a refusal that the second try may belie.
    fn may_repeat(&self, answer: &BoxMessage) -> bool;
}

thread_local! {
    static WIRE: RefCell<Option<Arc<dyn Wire>>> = const { RefCell::new(None) };
}

/// Puts `wire` between all machines of the simulation that runs on this thread.
pub fn set_wire(wire: Option<Arc<dyn Wire>>) {
    WIRE.with(|slot| *slot.borrow_mut() = wire);
}

fn wire() -> Option<Arc<dyn Wire>> {
    WIRE.with(|slot| slot.borrow().clone())
}

type BoxService = Box<
    dyn Service<
            (PathAndQuery, Request<BoxMessageStream>),
            Response = Response<BoxMessageStream>,
            Error = Status,
            Future = BoxFuture<'static, Result<Response<BoxMessageStream>, Status>>,
        > + Send,
>;

/// The services of one port, by name.
#[derive(Default)]
pub struct Services {
    services: BTreeMap<&'static str, BoxService>,
}

impl Services {
    /// Adds a service.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Services
    where
        S: Service<
                (PathAndQuery, Request<BoxMessageStream>),
                Response = Response<BoxMessageStream>,
                Error = Status,
                Future = BoxFuture<'static, Result<Response<BoxMessageStream>, Status>>,
            > + NamedService
            + Send
            + 'static,
    {
        self.services.insert(S::NAME, Box::new(service));
        self
    }

    fn call(
        &mut self,
        path: PathAndQuery,
        request: Request<BoxMessageStream>,
    ) -> BoxFuture<'static, Result<Response<BoxMessageStream>, Status>> {
        let name = path.path().split('/').nth(1).unwrap_or_default();
        match self.services.get_mut(name) {
            Some(service) => service.call((path, request)),
            None => {
                let missing = Status::unimplemented(format!("service not found: {path}"));
                futures::future::ready(Err(missing)).boxed()
            }
        }
    }
}

/// Serves until `shutdown`; calls in flight may take `grace` to end then.
pub(super) async fn serve(
    services: Services,
    address: SocketAddr,
    grace: Duration,
    shutdown: Shutdown,
) -> Result<(), NetworkError> {
    let bound = Endpoint::bind(address).await;
    let endpoint = bound.map_err(|source| NetworkError::Bind {
        address: address.to_string(),
        source,
    })?;
    let (force, forced) = Shutdown::new();
    let (alive, mut ended) = watch::channel(());
    let server = Server {
        services: Arc::new(Mutex::new(services)),
        address,
        forced,
        _alive: Arc::new(alive),
    };
    let acceptors: Vec<_> = (0..ACCEPTORS)
        .map(|_| tokio::spawn(accept(endpoint.clone(), server.clone())))
        .collect();
    drop(server);
    shutdown.wait().await;
    for acceptor in acceptors {
        acceptor.abort();
    }
    let calls_end = async { while ended.changed().await.is_ok() {} };
    if tokio::time::timeout(grace, calls_end).await.is_err() {
        force.shut_down();
        while ended.changed().await.is_ok() {}
    }
    Ok(())
}

#[derive(Clone)]
struct Server {
    services: Arc<Mutex<Services>>,
    address: SocketAddr,
    /// When calls in flight must end whatever they do.
    forced: Shutdown,
    /// Gone when all calls have ended.
    _alive: Arc<watch::Sender<()>>,
}

async fn accept(endpoint: Endpoint, server: Server) {
    while let Ok((sender, receiver, peer)) = endpoint.accept1().await {
        let (server, forced) = (server.clone(), server.forced.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = forced.wait() => {}
                () = server.serve_call(sender, receiver, peer) => {}
            }
        });
    }
}

impl Server {
    async fn serve_call(&self, sender: Sender, mut receiver: Receiver, peer: SocketAddr) {
        // A connection without a message is how madsim-tonic looks whether somebody listens.
        let Ok(first) = receiver.recv().await else {
            return;
        };
        let (path, streams, request) = *first
            .downcast::<(PathAndQuery, bool, Request<BoxMessage>)>()
            .expect("madsim-tonic's clients begin with the path and the request");
        let call = Arc::new(Call {
            client: peer.ip(),
            server: self.address.ip(),
            path: path.path().to_owned(),
            broken: Notify::new(),
        });
        // A request that waits on its way arrives, whether or not its client still does.
        tokio::select! {
            biased;
            () = call.broken.notified() => return,
            () = call.to_server(Event::Request) => {}
        }
        let (request, again) = self.incoming(&call, request, receiver, peer, &path);
        let mut answering = self.services().call(path, request);
        if let Some(again) = again {
            answering = self.clone().answer_and_repeat(answering, again).boxed();
        }
        let answer = call.answer(answering, &sender, streams);
        tokio::select! {
            biased;
            () = answer => {}
            () = call.broken.notified() => {}
            () = async {
                sender.closed().await;
                call.to_server(Event::Cancel).await;
            } => {}
        }
    }

    /// The request as services want it: a stream, of one item or of many; and what shall arrive once more.
    fn incoming(
        &self,
        call: &Arc<Call>,
        mut request: Request<BoxMessage>,
        receiver: Receiver,
        peer: SocketAddr,
        path: &PathAndQuery,
    ) -> (Request<BoxMessageStream>, Option<Again>) {
        request.set_tcp_connect_info(self.address, peer);
        let (metadata, extensions, message) = request.into_parts();
        if message.downcast_ref::<()>().is_some() {
            let items = call.clone().request_items(receiver);
            return (Request::from_parts(metadata, extensions, items), None);
        }
        let copy = wire().and_then(|wire| wire.duplicate(&call.path, &message));
        let again = copy.map(|(delay, copy)| Again {
            delay,
            path: path.clone(),
            request: Request::from_parts(metadata.clone(), extensions.clone(), single(copy)),
        });
        let items = single(message);
        (Request::from_parts(metadata, extensions, items), again)
    }

    /// The answer to a request, which is repeated after it was answered if it may be.
    async fn answer_and_repeat(
        self,
        answering: Answering,
        again: Again,
    ) -> Result<Response<BoxMessageStream>, Status> {
        let mut again = Some(again);
        let repeat = move |item: &Result<BoxMessage, Status>| {
            let (Ok(answer), Some(again)) = (item, again.take()) else {
                return;
            };
            if wire().is_some_and(|wire| wire.may_repeat(answer)) {
                self.call_again(again);
            }
        };
        let answer = answering.await?;
        Ok(answer.map(|items| items.inspect(repeat).boxed()))
    }

    /// A request that arrives a second time: its answer finds nobody.
    fn call_again(&self, again: Again) {
        let server = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(again.delay).await;
            let answering = server.services().call(again.path, again.request);
            tokio::select! {
                biased;
                () = server.forced.wait() => {}
                answer = answering => if let Ok(answer) = answer {
                    let _ = answer.into_inner().next().await;
                },
            }
        });
    }

    fn services(&self) -> std::sync::MutexGuard<'_, Services> {
        // Making a call's future runs no code of the service.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Answering = BoxFuture<'static, Result<Response<BoxMessageStream>, Status>>;

/// A request that shall arrive a second time.
struct Again {
    /// After its first answer.
    delay: Duration,
    path: PathAndQuery,
    request: Request<BoxMessageStream>,
}

fn single(message: BoxMessage) -> BoxMessageStream {
    stream::once(futures::future::ready(Ok(message))).boxed()
}

/// Who talks to whom about what.
struct Call {
    client: IpAddr,
    server: IpAddr,
    path: String,
    /// Told when a message of the call was lost.
    broken: Notify,
}

impl Call {
    async fn to_server(&self, event: Event) {
        self.pass(self.client, self.server, event).await;
    }

    async fn to_client(&self, event: Event) {
        self.pass(self.server, self.client, event).await;
    }

    /// Returns when the message may pass. After one that was lost, nothing of the call passes any more.
    async fn pass(&self, from: IpAddr, to: IpAddr, event: Event) {
        let passing = Passing {
            from,
            to,
            path: &self.path,
            event,
        };
        let Some(wire) = wire() else {
            return;
        };
        if !wire.pass(passing).await {
            self.broken.notify_one();
            std::future::pending::<()>().await;
        }
    }

    fn request_items(self: Arc<Self>, receiver: Receiver) -> BoxMessageStream {
        stream::unfold((self, receiver), |(call, mut receiver)| async move {
            let item = receiver.recv().await.ok()?;
            call.to_server(Event::RequestItem).await;
            Some((Ok(item), (call, receiver)))
        })
        .boxed()
    }

    /// Sends what the service answers, in the form that madsim-tonic's clients expect. A client that
    /// is gone is noticed elsewhere.
    async fn answer(
        &self,
        answering: BoxFuture<'static, Result<Response<BoxMessageStream>, Status>>,
        sender: &Sender,
        streams: bool,
    ) {
        let result = answering.await;
        let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
        if streams {
            self.answer_stream(result, code, sender).await;
            return;
        }
        let single = match result {
            Ok(response) => {
                let (metadata, mut items, extensions) = response.into_parts();
                match items.next().await {
                    Some(Ok(item)) => Ok(Response::from_parts(metadata, item, extensions)),
                    Some(Err(status)) => Err(status),
                    None => Err(Status::internal("the service answered nothing")),
                }
            }
            Err(status) => Err(status),
        };
        self.to_client(Event::Answer(code)).await;
        let single: Result<Response<BoxMessage>, Status> = single;
        let _ = sender.send(Box::new(single)).await;
    }

    async fn answer_stream(
        &self,
        result: Result<Response<BoxMessageStream>, Status>,
        code: Code,
        sender: &Sender,
    ) {
        let (head, items) = match result {
            Ok(response) => {
                let (metadata, items, extensions) = response.into_parts();
                (
                    Ok(Response::from_parts(metadata, (), extensions)),
                    Some(items),
                )
            }
            Err(status) => (Err(status), None),
        };
        self.to_client(Event::Answer(code)).await;
        let head: Result<Response<()>, Status> = head;
        if sender.send(Box::new(head)).await.is_err() {
            return;
        }
        let Some(mut items) = items else {
            return;
        };
        while let Some(item) = items.next().await {
            self.to_client(Event::AnswerItem).await;
            let item: Result<BoxMessage, Status> = item;
            if sender.send(Box::new(item)).await.is_err() {
                return;
            }
        }
        self.to_client(Event::End).await;
        let _ = sender.send(Box::new(())).await;
    }
}
