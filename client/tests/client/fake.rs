//! A broker group in memory: real gRPC on loopback, and faults on request. Stands in for brokers in these tests only;
//! what real ones do is tested where they are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use host::network::{self, Listener, Proof, ServerOptions, ServerTls};
use host::{Shutdown, ShutdownTrigger};
use prost::Message as _;
use proto::message::{Delivery, deliver};
use proto::opaque::messaging_service_server::MessagingService;
use proto::opaque::pull_message_response::Content;
use proto::opaque::{PullMessageResponse, ReceiveMessageResponse, SendMessageRequest};
use proto::place::{self, Life, StartAt, StartOf};
use proto::v2::{self, Code};
use proto::{cluster, opaque, redelivery};
use raftmq_client::Client;
use tokio::sync::Notify;
use tonic::{Request, Response, Status};

use crate::fake_redelivery::RedeliveryBook;

/// Longer than any test takes.
pub(crate) const PATIENT: Duration = Duration::from_secs(300);

/// The one topic.
pub(crate) const TOPIC: &str = "orders";
/// Messages with this body are refused.
pub(crate) const POISON: &[u8] = b"poison";

/// What happens to a send, instead of what should.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SendFault {
    /// A refusal; nothing is stored.
    Refuse(Code),
    /// Stored, but the connection breaks before the answer.
    LoseAnswer,
    /// Stored, but the answer never comes.
    Hang,
    /// Not stored, and the answer never comes.
    HangBefore,
}

/// What happens to a pull, instead of what should.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PullFault {
    /// The stream breaks after so many messages.
    BreakAfter(usize),
    /// A refusal.
    Refuse(Code),
}

#[derive(Clone, Debug)]
pub(crate) struct StoredMessage {
    pub id: String,
    pub body: Bytes,
    pub encoded: Bytes,
}

/// What a broker says of who leads, instead of what it should.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word {
    /// The broker group that it is of.
    pub group: &'static str,
    pub leader: usize,
    pub term: u64,
}

/// Everything that the group knows, and everything that it was asked.
#[derive(Default)]
pub(crate) struct World {
    /// Of the broker group.
    pub name: String,
    /// What calls that named another broker group named.
    pub meant_for_others: Vec<String>,
    pub addresses: Vec<String>,
    pub leader: usize,
    /// Of the leader; 0: nobody says which.
    pub term: u64,
    /// Brokers that know less of who leads, or of another group.
    pub words: BTreeMap<usize, Word>,
    /// How often somebody asked for the replicas, and was answered.
    pub listed: usize,
    /// Brokers that answer nothing at all.
    pub silent: BTreeSet<usize>,
    pub queues: Vec<Vec<StoredMessage>>,
    pub min_offset: u64,
    seen: BTreeMap<String, (u32, u64)>,
    pub offsets: BTreeMap<(String, u32), u64>,
    /// Messages that were handed back.
    pub redelivery: RedeliveryBook,
    /// Queues of the topic that another broker group has: its name, its leader's address, their numbers.
    pub elsewhere: Option<(String, String, std::ops::Range<i32>)>,
    /// Each commit that came, in order.
    pub commits: Vec<(u32, u64)>,
    pub members: BTreeMap<String, String>,
    /// What members said that they subscribe to.
    pub subscriptions: BTreeMap<String, cluster::Subscriptions>,
    /// Which process has each client id; another one is refused.
    pub processes: BTreeMap<String, String>,
    /// How often the topic was made again.
    pub lives: u64,
    /// Where each group starts, and the ends of the queues when it was made.
    pub starts: BTreeMap<String, (StartAt, Vec<u64>)>,
    /// The ends of the queues at each moment that was asked for.
    pub moments: Vec<Vec<u64>>,
    pub send_faults: VecDeque<SendFault>,
    pub pull_faults: VecDeque<PullFault>,
    /// For each send that a leader got: the ids in it.
    pub sends: Vec<Vec<String>>,
    /// Whether each of them said that its ids count.
    pub sequenced: Vec<bool>,
    /// How long a send takes.
    pub send_takes: Duration,
    /// Sends that reached a broker which does not lead.
    pub misdirected: usize,
}

/// Keeps the brokers running.
pub(crate) struct FakeCluster {
    world: Arc<Mutex<World>>,
    arrivals: Arc<Notify>,
    _running: Vec<ShutdownTrigger>,
}

#[derive(Clone)]
pub(crate) struct FakeBroker {
    pub(crate) number: usize,
    world: Arc<Mutex<World>>,
    pub(crate) arrivals: Arc<Notify>,
}

impl FakeCluster {
    pub(crate) async fn start(brokers: usize, queues: u32) -> FakeCluster {
        FakeCluster::start_with(brokers, queues, None).await
    }

    pub(crate) async fn start_with(
        brokers: usize,
        queues: u32,
        tls: Option<Arc<ServerTls>>,
    ) -> FakeCluster {
        let world = World {
            name: "g".to_owned(),
            queues: (0..queues).map(|_| Vec::new()).collect(),
            ..World::default()
        };
        let mut cluster = FakeCluster {
            world: Arc::new(Mutex::new(world)),
            arrivals: Arc::default(),
            _running: Vec::new(),
        };
        for number in 0..brokers {
            let broker = FakeBroker {
                number,
                world: cluster.world.clone(),
                arrivals: cluster.arrivals.clone(),
            };
            let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
            cluster
                .world()
                .addresses
                .push(listener.local_address().to_string());
            let options = ServerOptions {
                shutdown_grace_ms: 0,
                tls: tls.clone(),
                proof: Proof::Accepted(host::testing::cluster_secret()),
                ..ServerOptions::default()
            };
            let router = network::server(&options)
                .add_service(opaque::messaging_server(broker.clone()))
                .add_service(network::guarded(cluster::broker_admin_server(
                    broker.clone(),
                )))
                .add_service(cluster::inquiry_server(broker.clone()))
                .add_service(redelivery::redelivery_server(broker));
            let (trigger, shutdown) = Shutdown::new();
            cluster._running.push(trigger);
            tokio::spawn(async move {
                network::serve(listener, router, options, shutdown)
                    .await
                    .expect("serves until told to stop");
            });
        }
        cluster
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world
            .lock()
            .expect("no test panics while it holds the world")
    }

    pub(crate) fn seeds(&self) -> Vec<String> {
        self.world().addresses.clone()
    }

    /// A client that waits for an answer for longer than any test takes.
    pub(crate) async fn patient_client(&self) -> Client {
        let client = Client::builder()
            .seeds(self.seeds())
            .attempt_timeout(PATIENT)
            .request_timeout(PATIENT);
        client.build().await.expect("a seed answers")
    }

    /// Stores messages as some producer would have.
    pub(crate) fn fill(&self, queue: u32, bodies: impl IntoIterator<Item = String>) {
        for body in bodies {
            let message = v2::Message {
                topic: Some(v2::Resource {
                    resource_namespace: String::new(),
                    name: TOPIC.to_owned(),
                }),
                system_properties: Some(v2::SystemProperties {
                    message_id: body.clone(),
                    queue_id: queue as i32,
                    ..Default::default()
                }),
                body: body.into(),
                ..Default::default()
            };
            self.world().store(&message.encode_to_vec().into());
        }
        self.arrivals.notify_waiters();
    }

    /// The bodies in a queue, as text.
    pub(crate) fn bodies(&self, queue: usize) -> Vec<String> {
        let text = |message: &StoredMessage| String::from_utf8_lossy(&message.body).into_owned();
        self.world().queues[queue].iter().map(text).collect()
    }
}

impl World {
    /// Where a group starts; it is made if it is not known.
    fn start(&mut self, group: &str, wish: Option<StartAt>) -> StartAt {
        let ends = self.ends();
        let made = || (wish.unwrap_or(StartAt::Earliest), ends);
        self.starts.entry(group.to_owned()).or_insert_with(made).0
    }

    /// The topic is deleted and made again.
    pub(crate) fn make_again(&mut self) {
        self.queues.iter_mut().for_each(Vec::clear);
        self.seen.clear();
        self.offsets.clear();
        self.commits.clear();
        self.lives += 1;
    }

    fn life(&self) -> Life {
        Life {
            topic_id: 7,
            mark: self.lives,
        }
    }

    /// Whether a call means the topic as it was before.
    fn means_another<R>(&self, request: &Request<R>) -> bool {
        header(request, place::LIFE).is_some_and(|life: Life| life != self.life())
    }

    fn ends(&self) -> Vec<u64> {
        self.queues.iter().map(|line| line.len() as u64).collect()
    }

    /// Stores a message once; where it is.
    fn store(&mut self, encoded: &Bytes) -> (String, u64) {
        let message = v2::Message::decode(encoded.clone()).expect("a v2.Message");
        let properties = message.system_properties.expect("system properties");
        let id = properties.message_id;
        if let Some((_, offset)) = self.seen.get(&id) {
            return (id, *offset);
        }
        let queue = properties.queue_id as u32;
        let line = &mut self.queues[queue as usize];
        let offset = line.len() as u64;
        line.push(StoredMessage {
            id: id.clone(),
            body: message.body,
            encoded: encoded.clone(),
        });
        self.seen.insert(id.clone(), (queue, offset));
        (id, offset)
    }
}

fn status(code: Code, text: &str) -> Option<v2::Status> {
    Some(v2::Status {
        code: code as i32,
        message: text.to_owned(),
    })
}

impl FakeCluster {
    /// Waits until a client was told of all replicas.
    pub(crate) async fn replicas_are_known(&self) {
        let told = async {
            while self.world().listed == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(30), told).await;
        told.expect("whoever reads a route asks for the replicas");
    }
}

impl FakeBroker {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world
            .lock()
            .expect("no test panics while it holds the world")
    }

    /// An answer with the leader's address.
    pub(crate) fn answer<T>(&self, answer: T) -> Response<T> {
        let mut response = Response::new(answer);
        let leader = {
            let world = self.world();
            world.addresses[world.leader].clone()
        };
        response
            .metadata_mut()
            .insert("x-raftmq-leader", leader.parse().expect("ascii"));
        response
    }

    /// Whether a call is for the broker group that this broker is of, or for any. Keeps what others are asked for.
    pub(crate) fn is_meant<R>(&self, request: &Request<R>) -> bool {
        let Some(meant) = header::<String, _>(request, place::BROKER_GROUP) else {
            return true;
        };
        let mut world = self.world();
        let is_meant = meant == world.name;
        if !is_meant {
            world.meant_for_others.push(meant);
        }
        is_meant
    }

    /// Waits for ever if this broker is silent; whether it leads.
    pub(crate) async fn leads(&self) -> bool {
        let silent = self.world().silent.contains(&self.number);
        if silent {
            std::future::pending::<()>().await;
        }
        self.world().leader == self.number
    }

    async fn send(&self, messages: Vec<Bytes>) -> Result<v2::SendMessageResponse, Status> {
        let takes = self.world().send_takes;
        tokio::time::sleep(takes).await;
        let refused = |code| v2::SendMessageResponse {
            status: status(code, "a fault"),
            entries: vec![],
        };
        let decoded: Vec<v2::Message> = messages
            .iter()
            .map(|message| v2::Message::decode(message.clone()).expect("a v2.Message"))
            .collect();
        let fault = {
            let mut world = self.world();
            let ids = decoded.iter().map(|message| {
                message
                    .system_properties
                    .clone()
                    .unwrap_or_default()
                    .message_id
            });
            world.sends.push(ids.collect());
            world.send_faults.pop_front()
        };
        match fault {
            Some(SendFault::Refuse(code)) => return Ok(refused(code)),
            Some(SendFault::HangBefore) => std::future::pending::<()>().await,
            _ => {}
        }
        if decoded.iter().any(|message| message.body == POISON) {
            return Ok(refused(Code::MessageCorrupted));
        }
        let stored: Vec<(String, u64)> = {
            let mut world = self.world();
            messages
                .iter()
                .map(|message| world.store(message))
                .collect()
        };
        self.arrivals.notify_waiters();
        match fault {
            Some(SendFault::LoseAnswer) => return Err(Status::unavailable("connection reset")),
            Some(SendFault::Hang) => std::future::pending::<()>().await,
            _ => {}
        }
        let entry = |(message_id, offset): (String, u64)| v2::SendResultEntry {
            status: status(Code::Ok, ""),
            transaction_id: message_id.clone(),
            message_id,
            offset: offset as i64,
            recall_handle: String::new(),
        };
        let entries = stored.into_iter().map(entry).collect();
        Ok(v2::SendMessageResponse {
            status: status(Code::Ok, ""),
            entries,
        })
    }

    /// The parts of an answer to a pull; waits for a message as long as it may.
    async fn pull(
        &self,
        request: &v2::PullMessageRequest,
    ) -> Vec<Result<PullMessageResponse, Status>> {
        let part = |content| {
            Ok(PullMessageResponse {
                content: Some(content),
            })
        };
        let said = |code| {
            part(Content::Status(v2::Status {
                code: code as i32,
                message: "said".to_owned(),
            }))
        };
        let fault = self.world().pull_faults.pop_front();
        if let Some(PullFault::Refuse(code)) = fault {
            return vec![said(code)];
        }
        let polling = request
            .long_polling_timeout
            .and_then(|polling| Duration::try_from(polling).ok());
        let ends = tokio::time::Instant::now() + polling.unwrap_or_default();
        let queue = request.message_queue.as_ref().expect("a queue").id as usize;
        let life = self.world().life();
        loop {
            let mut arrived = std::pin::pin!(self.arrivals.notified());
            arrived.as_mut().enable();
            let (end, found) = {
                let world = self.world();
                if world.life() != life {
                    return vec![said(Code::TopicNotFound)];
                }
                let line = &world.queues[queue];
                let offset = request.offset as usize;
                let first = world.min_offset as usize;
                let nearest = offset.clamp(first, line.len().max(first));
                if nearest != offset {
                    return vec![
                        said(Code::IllegalOffset),
                        part(Content::NextOffset(nearest as i64)),
                    ];
                }
                let found: Vec<(u64, Bytes)> = line[offset..]
                    .iter()
                    .take(request.batch_size as usize)
                    .enumerate()
                    .map(|(place, message)| ((offset + place) as u64, message.encoded.clone()))
                    .collect();
                (offset + found.len(), found)
            };
            if !found.is_empty() {
                let mut parts = vec![said(Code::Ok)];
                parts.extend(found.iter().map(|(offset, encoded)| {
                    part(Content::Message(delivered(queue, *offset, 1, encoded)))
                }));
                parts.push(part(Content::NextOffset(end as i64)));
                if let Some(PullFault::BreakAfter(count)) = fault {
                    parts.truncate(count + 1);
                    parts.push(Err(Status::unavailable("connection reset")));
                }
                return parts;
            }
            if tokio::time::timeout_at(ends, arrived).await.is_err() {
                return vec![
                    said(Code::MessageNotFound),
                    part(Content::NextOffset(end as i64)),
                ];
            }
        }
    }
}

fn endpoints_of(address: &str) -> v2::Endpoints {
    let (host, port) = address.rsplit_once(':').expect("host:port");
    let address = v2::Address {
        host: host.to_owned(),
        port: port.parse().expect("a port"),
    };
    v2::Endpoints {
        scheme: v2::AddressScheme::IPv4 as i32,
        addresses: vec![address],
    }
}

pub(crate) fn delivered(queue: usize, offset: u64, attempt: u32, encoded: &Bytes) -> Bytes {
    let delivery = Delivery {
        queue_id: queue as u32,
        queue_offset: offset,
        store_timestamp_ms: 1_700_000_000_000,
        store_host: "fake",
        receipt_handle: None,
        attempt,
        invisible_duration: None,
    };
    deliver(encoded, &delivery)
}

/// Refuses in the form of the call if this broker does not lead, or another group is meant.
macro_rules! lead {
    ($self:ident, $request:ident, $refusal:expr) => {
        if !$self.is_meant(&$request) {
            return Ok(Response::new($refusal));
        }
        if !$self.leads().await {
            return Ok($self.answer($refusal));
        }
    };
}

#[tonic::async_trait]
impl MessagingService for FakeBroker {
    async fn query_route(
        &self,
        request: Request<v2::QueryRouteRequest>,
    ) -> Result<Response<v2::QueryRouteResponse>, Status> {
        self.leads().await;
        let topic = request.into_inner().topic.unwrap_or_default();
        if topic.name != TOPIC {
            let refusal = v2::QueryRouteResponse {
                status: status(Code::TopicNotFound, "no such topic"),
                message_queues: vec![],
            };
            return Ok(self.answer(refusal));
        }
        let (leader, count) = {
            let world = self.world();
            (world.addresses[world.leader].clone(), world.queues.len())
        };
        let endpoints = endpoints_of(&leader);
        let broker = v2::Broker {
            name: self.world().name.clone(),
            id: 0,
            endpoints: Some(endpoints),
        };
        let queue = |id| v2::MessageQueue {
            topic: Some(topic.clone()),
            id,
            permission: v2::Permission::ReadWrite as i32,
            broker: Some(broker.clone()),
            accept_message_types: vec![],
        };
        let mut message_queues: Vec<v2::MessageQueue> = (0..count as i32).map(queue).collect();
        let elsewhere = self.world().elsewhere.clone();
        if let Some((name, leader, numbers)) = elsewhere {
            message_queues.retain(|queue| !numbers.contains(&queue.id));
            message_queues.extend(numbers.map(queue).map(|mut queue| {
                let broker = queue.broker.as_mut().expect("has one");
                broker.name.clone_from(&name);
                broker.endpoints = Some(endpoints_of(&leader));
                queue
            }));
        }
        Ok(self.answer(v2::QueryRouteResponse {
            status: status(Code::Ok, ""),
            message_queues,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<v2::HeartbeatRequest>,
    ) -> Result<Response<v2::HeartbeatResponse>, Status> {
        lead!(
            self,
            request,
            v2::HeartbeatResponse {
                status: status(Code::HaNotAvailable, "not the leader")
            }
        );
        let client_id = request
            .metadata()
            .get("x-mq-client-id")
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let wish = header(&request, place::CONSUME_FROM);
        let asks = header::<String, _>(&request, place::LOG_TIME).is_some();
        let process = header::<String, _>(&request, "x-raftmq-incarnation").unwrap_or_default();
        if request.get_ref().group.is_some() {
            let mut world = self.world();
            let known = world.processes.entry(client_id.clone());
            let is_another = *known.or_insert(process.clone()) != process;
            drop(world);
            if is_another {
                return Ok(self.answer(v2::HeartbeatResponse {
                    status: status(Code::PreconditionFailed, "another process has this id"),
                }));
            }
        }
        let mut answer = self.answer(v2::HeartbeatResponse {
            status: status(Code::Ok, ""),
        });
        if let Some(group) = request.into_inner().group {
            let mut world = self.world();
            let start = world.start(&group.name, wish);
            world.members.insert(client_id, group.name);
            let mut say = |name, value: String| {
                let value = value.parse().expect("ascii");
                answer.metadata_mut().insert(name, value);
            };
            say(place::CONSUME_FROM, start.to_string());
            if asks {
                let ends = world.ends();
                world.moments.push(ends);
                say(place::LOG_TIME, world.moments.len().to_string());
            }
        }
        Ok(answer)
    }

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<v2::SendMessageResponse>, Status> {
        if !self.leads().await {
            self.world().misdirected += 1;
            let refusal = v2::SendMessageResponse {
                status: status(Code::HaNotAvailable, "not the leader"),
                entries: vec![],
            };
            return Ok(self.answer(refusal));
        }
        let sequenced = request.metadata().contains_key("x-raftmq-sequenced");
        self.world().sequenced.push(sequenced);
        let answer = self.send(request.into_inner().messages).await?;
        let entries = answer.entries.iter();
        let queue = |id: &String| self.world().seen.get(id).map(|(queue, _)| *queue);
        let queues = entries.filter_map(|entry| queue(&entry.message_id));
        let queues: Vec<String> = queues.map(|queue| format!("{queue}*1")).collect();
        let mut answer = self.answer(answer);
        if !queues.is_empty() {
            let queues = queues.join(",").parse().expect("ascii");
            answer.metadata_mut().insert("x-raftmq-queues", queues);
        }
        Ok(answer)
    }

    type PullMessageStream = BoxStream<'static, Result<PullMessageResponse, Status>>;

    async fn pull_message(
        &self,
        request: Request<v2::PullMessageRequest>,
    ) -> Result<Response<Self::PullMessageStream>, Status> {
        let refusal = Content::Status(v2::Status {
            code: Code::HaNotAvailable as i32,
            message: "not the leader".to_owned(),
        });
        let refusal = PullMessageResponse {
            content: Some(refusal),
        };
        lead!(self, request, stream::iter([Ok(refusal)]).boxed());
        let life = self.world().life();
        let refused = |code| PullMessageResponse {
            content: status(code, "").map(Content::Status),
        };
        let parts = match self.world().means_another(&request) {
            true => None,
            false => Some(request.into_inner()),
        };
        let parts = match parts {
            None => vec![Ok(refused(Code::PreconditionFailed))],
            Some(request) => self.pull(&request).await,
        };
        if !self.leads().await {
            return Err(Status::unavailable("the leader changed"));
        }
        let mut answer = self.answer(stream::iter(parts).boxed());
        let life = life.to_string().parse().expect("ascii");
        answer.metadata_mut().insert(place::LIFE, life);
        Ok(answer)
    }

    async fn update_offset(
        &self,
        request: Request<v2::UpdateOffsetRequest>,
    ) -> Result<Response<v2::UpdateOffsetResponse>, Status> {
        lead!(
            self,
            request,
            v2::UpdateOffsetResponse {
                status: status(Code::HaNotAvailable, "not the leader")
            }
        );
        let mut world = self.world();
        if world.means_another(&request) {
            drop(world);
            let status = status(Code::PreconditionFailed, "made again");
            return Ok(self.answer(v2::UpdateOffsetResponse { status }));
        }
        let request = request.into_inner();
        let (group, queue) = (
            request.group.expect("a group").name,
            request.message_queue.expect("a queue").id as u32,
        );
        let known = world.offsets.entry((group, queue)).or_default();
        *known = (*known).max(request.offset as u64);
        world.commits.push((queue, request.offset as u64));
        drop(world);
        Ok(self.answer(v2::UpdateOffsetResponse {
            status: status(Code::Ok, ""),
        }))
    }

    async fn get_offset(
        &self,
        request: Request<v2::GetOffsetRequest>,
    ) -> Result<Response<v2::GetOffsetResponse>, Status> {
        lead!(
            self,
            request,
            v2::GetOffsetResponse {
                status: status(Code::HaNotAvailable, "not the leader"),
                offset: 0
            }
        );
        let wish = header(&request, place::CONSUME_FROM);
        let start_of: Option<StartOf> = header(&request, place::START);
        let request = request.into_inner();
        let group = request.group.expect("a group").name;
        let queue = request.message_queue.expect("a queue").id as u32;
        let mut world = self.world();
        let committed = world.offsets.get(&(group.clone(), queue)).copied();
        let (said, offset) = match (start_of, committed) {
            (Some(StartOf::Group), Some(offset)) => (place::COMMITTED.to_owned(), Some(offset)),
            (None, committed) => (String::new(), committed),
            (Some(of), _) => {
                let start = world.start(&group, wish);
                let ends = match of {
                    StartOf::Group => world.starts[&group].1.clone(),
                    StartOf::Member { since_ms } => world.moments[since_ms as usize - 1].clone(),
                };
                let latest = ends.get(queue as usize).copied().unwrap_or(0);
                let offset = match start {
                    StartAt::Earliest => world.min_offset,
                    StartAt::Latest { .. } => latest,
                    // Message n was stored n seconds after the epoch.
                    StartAt::TimeMs(time_ms) => time_ms / 1_000,
                };
                (start.to_string(), Some(offset))
            }
        };
        let life = world.life().to_string().parse().expect("ascii");
        drop(world);
        let mut answer = self.answer(match offset {
            Some(offset) => v2::GetOffsetResponse {
                status: status(Code::Ok, ""),
                offset: offset as i64,
            },
            None => v2::GetOffsetResponse {
                status: status(Code::OffsetNotFound, "none"),
                offset: 0,
            },
        });
        let said = said.parse().expect("ascii");
        answer.metadata_mut().insert(place::START, said);
        answer.metadata_mut().insert(place::LIFE, life);
        Ok(answer)
    }

    async fn query_offset(
        &self,
        request: Request<v2::QueryOffsetRequest>,
    ) -> Result<Response<v2::QueryOffsetResponse>, Status> {
        lead!(
            self,
            request,
            v2::QueryOffsetResponse {
                status: status(Code::HaNotAvailable, "not the leader"),
                offset: 0
            }
        );
        let request = request.into_inner();
        let queue = request.message_queue.as_ref().expect("a queue").id as usize;
        let offset = {
            let world = self.world();
            match request.query_offset_policy() {
                v2::QueryOffsetPolicy::Beginning => world.min_offset as i64,
                // Message n was stored n seconds after the epoch.
                v2::QueryOffsetPolicy::Timestamp => request.timestamp.map_or(0, |at| at.seconds),
                _ => world.queues[queue].len() as i64,
            }
        };
        Ok(self.answer(v2::QueryOffsetResponse {
            status: status(Code::Ok, ""),
            offset,
        }))
    }

    async fn notify_client_termination(
        &self,
        request: Request<v2::NotifyClientTerminationRequest>,
    ) -> Result<Response<v2::NotifyClientTerminationResponse>, Status> {
        lead!(
            self,
            request,
            v2::NotifyClientTerminationResponse {
                status: status(Code::HaNotAvailable, "not the leader")
            }
        );
        let client_id = request
            .metadata()
            .get("x-mq-client-id")
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default();
        let mut world = self.world();
        world.members.remove(client_id);
        world.processes.remove(client_id);
        drop(world);
        Ok(self.answer(v2::NotifyClientTerminationResponse {
            status: status(Code::Ok, ""),
        }))
    }

    // The SDK does not call the rest.
    async fn query_assignment(
        &self,
        _: Request<v2::QueryAssignmentRequest>,
    ) -> Result<Response<v2::QueryAssignmentResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
    type ReceiveMessageStream = BoxStream<'static, Result<ReceiveMessageResponse, Status>>;
    async fn receive_message(
        &self,
        _: Request<v2::ReceiveMessageRequest>,
    ) -> Result<Response<Self::ReceiveMessageStream>, Status> {
        Err(Status::unimplemented("fake"))
    }
    async fn ack_message(
        &self,
        _: Request<v2::AckMessageRequest>,
    ) -> Result<Response<v2::AckMessageResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
    async fn forward_message_to_dead_letter_queue(
        &self,
        _: Request<v2::ForwardMessageToDeadLetterQueueRequest>,
    ) -> Result<Response<v2::ForwardMessageToDeadLetterQueueResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
    async fn end_transaction(
        &self,
        _: Request<v2::EndTransactionRequest>,
    ) -> Result<Response<v2::EndTransactionResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
    type TelemetryStream = BoxStream<'static, Result<v2::TelemetryCommand, Status>>;
    async fn telemetry(
        &self,
        _: Request<tonic::Streaming<v2::TelemetryCommand>>,
    ) -> Result<Response<Self::TelemetryStream>, Status> {
        Err(Status::unimplemented("fake"))
    }
    async fn change_invisible_duration(
        &self,
        _: Request<v2::ChangeInvisibleDurationRequest>,
    ) -> Result<Response<v2::ChangeInvisibleDurationResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
    async fn recall_message(
        &self,
        _: Request<v2::RecallMessageRequest>,
    ) -> Result<Response<v2::RecallMessageResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
    async fn sync_lite_subscription(
        &self,
        _: Request<v2::SyncLiteSubscriptionRequest>,
    ) -> Result<Response<v2::SyncLiteSubscriptionResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
}

impl FakeBroker {
    /// The broker that an operator's call is for: every broker passes them on.
    pub(crate) fn meant<T>(&self, request: &Request<T>) -> FakeBroker {
        let address = request.metadata().get("x-raftmq-broker");
        let address = address.and_then(|address| address.to_str().ok());
        let addresses = self.world().addresses.clone();
        let number = addresses
            .iter()
            .position(|one| Some(one.as_str()) == address);
        FakeBroker {
            number: number.unwrap_or(self.number),
            ..self.clone()
        }
    }
}

/// What a header of a call says.
pub(crate) fn header<T: std::str::FromStr, R>(
    request: &Request<R>,
    name: &'static str,
) -> Option<T> {
    request.metadata().get(name)?.to_str().ok()?.parse().ok()
}
