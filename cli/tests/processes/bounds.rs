//! Clients that take and do not give: answers that are not read, requests that do not end, places that are not used. A broker
//! holds a bounded amount for them, cuts them off, and serves the others all the while.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use cli::process::{Member, Usage, reset_peak};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use prost::Message as _;
use proto::cluster::Transfers;
use proto::v2::{self, PullMessageRequest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tonic::codegen::http;

use super::cluster::{Cluster, PATIENCE, eventually};
use super::traffic::{Writer, expect_nothing_lost, send};

const MIB: u64 = 1 << 20;
/// What a broker may take more than before: its budget (`transfer_bytes_max`, 256 MiB), what lies in the windows of the
/// connections and in copies under way, and the log's own memory that is read meanwhile.
const GROWTH_MAX: u64 = 400 * MIB;
const LONG_POLL: Duration = Duration::from_secs(25);

/// A client of which every byte is known.
struct Raw {
    requests: SendRequest<Bytes>,
    tasks: JoinSet<()>,
}

impl Raw {
    /// Connects from `host`, an address of this machine.
    async fn connect(host: &str, port: u16, window_bytes: u32) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(host.parse().unwrap(), 0))
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream: TcpStream = socket.connect(address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window_bytes);
        let (requests, connection) = builder.handshake(stream).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = connection.await;
        });
        Raw { requests, tasks }
    }

    /// Begins a call of the messaging service.
    async fn call(&self, method: &str) -> Option<(ResponseFuture, SendStream<Bytes>)> {
        let request = http::Request::post(format!(
            "http://broker/apache.rocketmq.v2.MessagingService/{method}"
        ));
        let request = request
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-mq-client-id", "stranger")
            .header("grpc-timeout", "60S");
        let mut requests = self.requests.clone().ready().await.ok()?;
        requests.send_request(request.body(()).unwrap(), false).ok()
    }

    /// Pulls a queue of `topic` from an offset on; the answer's head, and nobody reads on.
    async fn pull(&self, topic: &str, queue: i32, offset: i64) -> Option<RecvStream> {
        let resource = |name: &str| {
            Some(v2::Resource {
                name: name.to_owned(),
                ..Default::default()
            })
        };
        let message = PullMessageRequest {
            group: resource("strangers"),
            message_queue: Some(v2::MessageQueue {
                topic: resource(topic),
                id: queue,
                ..Default::default()
            }),
            offset,
            batch_size: 1_024,
            long_polling_timeout: LONG_POLL.try_into().ok(),
            ..Default::default()
        };
        let (answer, mut body) = self.call("PullMessage").await?;
        body.send_data(framed(&message.encode_to_vec()), true)
            .ok()?;
        Some(answer.await.ok()?.into_body())
    }

    fn is_closed(&mut self) -> bool {
        self.tasks.try_join_next().is_some() || self.tasks.is_empty()
    }
}

/// A message as gRPC sends it.
fn framed(message: &[u8]) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    bytes.into()
}

/// A broker, and how much it takes.
struct Watched {
    broker_id: u64,
    port: u16,
    pid: u32,
    before: u64,
}

impl Watched {
    async fn leader(cluster: &mut Cluster) -> Watched {
        let led = cluster.led().await;
        Watched::broker(cluster, led.broker_id)
    }

    fn broker(cluster: &mut Cluster, broker_id: u64) -> Watched {
        let port = cluster.plan().brokers[&broker_id].client;
        let pid = cluster.member(Member::Broker(broker_id)).pid().unwrap();
        reset_peak(pid);
        Watched {
            port,
            pid,
            before: Usage::of(pid).resident_bytes,
            broker_id,
        }
    }

    /// What it grew by at most.
    fn expect_bounded(&self) {
        let peak = Usage::of(self.pid).resident_peak_bytes;
        let grew = peak.saturating_sub(self.before);
        assert!(grew < GROWTH_MAX, "grew by {} MiB", grew / MIB);
    }

    /// Waits until it says what is wanted; its memory stays bounded meanwhile.
    async fn wait_for(&self, cluster: &Cluster, wanted: impl Fn(&Transfers) -> bool) -> Transfers {
        let last = std::cell::RefCell::new(Transfers::default());
        let found = eventually(PATIENCE, || async {
            self.expect_bounded();
            let status = cluster.status(self.broker_id).await?;
            *last.borrow_mut() = status.transfers?;
            status.transfers.filter(|transfers| wanted(transfers))
        });
        let found = found.await;
        found.unwrap_or_else(|| panic!("{:?}\n{}", last.into_inner(), cluster.last_words()))
    }
}

/// Begins 400 pulls each over 8 connections from as many addresses, and reads nothing.
async fn pull_and_do_not_read(port: u16) -> JoinSet<()> {
    let mut pulls = JoinSet::new();
    for host in 2..10 {
        let host = format!("127.0.0.{host}");
        let raw = std::sync::Arc::new(Raw::connect(&host, port, 1_024).await);
        for pull in 0..400 {
            let raw = raw.clone();
            pulls.spawn(async move {
                let unread = raw.pull("orders", pull % 4, 0).await;
                std::future::pending::<()>().await;
                drop(unread);
            });
        }
    }
    pulls
}

/// Catches answers that are made for whoever does not read them: 3,200 of 4 MiB, over 8 connections. Others send and pull
/// meanwhile, and the connections are cut off.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_take_a_bounded_amount_of_memory() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    cluster.topic("others").await;
    cluster.topic("large").await;
    let client = cluster.client().await;
    send(&client, "orders", 0..64, MIB as usize).await;
    let leader = Watched::leader(&mut cluster).await;
    let mut pulls = pull_and_do_not_read(leader.port).await;
    let held = leader
        .wait_for(&cluster, |transfers| transfers.answer_bytes > 32 * MIB)
        .await;
    assert!(held.answer_bytes <= held.answer_bytes_max, "{held:?}");
    let writer = Writer::start(&cluster, "others", 100).await;
    writer.wait_for_acks(200).await;
    send(&client, "large", 0..4, MIB as usize).await;
    leader
        .wait_for(&cluster, |transfers| transfers.answers_cut >= 8)
        .await;
    leader
        .wait_for(&cluster, |transfers| transfers.answer_bytes == 0)
        .await;
    pulls.abort_all();
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "others", &acked).await;
    expect_nothing_lost(&cluster, "large", &(0..4).collect()).await;
    leader.expect_bounded();
}

/// Catches answers that a follower fetches for whoever does not read them, a leader that makes them, and one that cuts a
/// follower off for what its clients do.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_at_a_follower_are_bounded_there_and_at_the_leader() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    cluster.topic("others").await;
    let client = cluster.client().await;
    send(&client, "orders", 0..64, MIB as usize).await;
    let leader = Watched::leader(&mut cluster).await;
    let mut brokers = cluster.plan().brokers.keys().copied();
    let other = brokers.find(|broker| *broker != leader.broker_id);
    let follower = Watched::broker(&mut cluster, other.unwrap());
    let mut pulls = pull_and_do_not_read(follower.port).await;
    let held = follower
        .wait_for(&cluster, |transfers| transfers.answer_bytes > 8 * MIB)
        .await;
    assert!(held.answer_bytes <= held.answer_bytes_max, "{held:?}");
    let writer = Writer::start(&cluster, "others", 100).await;
    writer.wait_for_acks(200).await;
    follower
        .wait_for(&cluster, |transfers| transfers.answers_cut >= 8)
        .await;
    for broker in [&follower, &leader] {
        let none = |transfers: &Transfers| transfers.answer_bytes == 0;
        broker.wait_for(&cluster, none).await;
    }
    pulls.abort_all();
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "others", &acked).await;
    let status = cluster.status(leader.broker_id).await.unwrap();
    assert_eq!(status.transfers.unwrap().answers_cut, 0);
    leader.expect_bounded();
    follower.expect_bounded();
}

/// Catches requests that are gathered for whoever does not end them: 60 of 16 MiB. Others send meanwhile, large and small,
/// and the connections are cut off.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_do_not_end_take_a_bounded_amount_of_memory() {
    let mut cluster = Cluster::start().await;
    cluster.topic("others").await;
    cluster.topic("large").await;
    let client = cluster.client().await;
    let leader = Watched::leader(&mut cluster).await;
    let mut uploads = Vec::new();
    let request = framed(&vec![7; 16 * MIB as usize]);
    for host in 2..62 {
        let host = format!("127.0.0.{host}");
        let raw = Raw::connect(&host, leader.port, 65_535).await;
        let (answer, mut body) = raw.call("SendMessage").await.unwrap();
        // All but the last byte; more than the window is sent as the broker reads.
        body.send_data(request.slice(..request.len() - 1), false)
            .unwrap();
        uploads.push((raw, answer, body));
    }
    let held = leader
        .wait_for(&cluster, |transfers| transfers.request_bytes > 64 * MIB)
        .await;
    assert!(held.request_bytes <= held.request_bytes_max, "{held:?}");
    let writer = Writer::start(&cluster, "others", 100).await;
    writer.wait_for_acks(200).await;
    send(&client, "large", 0..4, MIB as usize).await;
    let ended =
        |transfers: &Transfers| transfers.requests_cut >= 7 && transfers.request_bytes < MIB;
    leader.wait_for(&cluster, ended).await;
    for (_raw, answer, _body) in uploads {
        // Its connection was closed, or it was told that there was no room in time.
        let ended = tokio::time::timeout(PATIENCE, answer).await;
        assert!(ended.is_ok(), "one goes on");
    }
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "others", &acked).await;
    expect_nothing_lost(&cluster, "large", &(0..4).collect()).await;
    leader.expect_bounded();
}

/// Catches one address that takes every place by being there, and a call that ends for a newcomer although others are idle.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_one_address_lock_nobody_out() {
    const PLACES: i64 = 128;
    cli::process::raise_file_limit();
    let mut cluster = Cluster::start_with(|plan| plan.with("connections_max", PLACES)).await;
    cluster.topic("orders").await;
    let leader = Watched::leader(&mut cluster).await;
    // A call that waits, from the address that will have most.
    let waiting = Raw::connect("127.0.0.1", leader.port, 65_535).await;
    let mut poll = Box::pin(waiting.pull("orders", 0, 0));
    let early = tokio::time::timeout(Duration::from_millis(500), &mut poll).await;
    assert!(early.is_err(), "nothing was there to be pulled");
    let mut idle = Vec::new();
    for _ in 0..2 * PLACES {
        idle.push(Raw::connect("127.0.0.1", leader.port, 65_535).await);
    }
    let places = PLACES as u64;
    let full =
        |transfers: &Transfers| transfers.gave_way >= places && transfers.connections <= places;
    leader.wait_for(&cluster, full).await;
    for host in ["127.0.0.2", "127.0.0.1"] {
        let newcomer = Raw::connect(host, leader.port, 65_535).await;
        let (answer, mut body) = newcomer.call("Heartbeat").await.expect(host);
        body.send_data(framed(&[]), true).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect(host);
        assert_eq!(answer.expect(host).status(), 200, "{host}");
    }
    let client = cluster.client().await;
    send(&client, "orders", 0..40, 100).await;
    let polled = tokio::time::timeout(LONG_POLL, poll).await;
    assert!(
        polled.is_ok_and(|answer| answer.is_some()),
        "the call was ended"
    );
    assert!(idle.iter_mut().any(Raw::is_closed));
}
