//! Strangers: garbage on every port, messages that are too large, a thousand connections, readers that
//! do not read. No panic, bounded memory, and the others are served all the while.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use cli::process::{Member, Usage};
use host::network::{ChannelOptions, channel};
use proto::opaque::SendMessageRequest;
use proto::opaque::messaging_service_client::MessagingServiceClient;
use proto::v2::{self, Code, PullMessageRequest};
use raftmq_client::Message;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::cluster::Cluster;
use super::traffic::{Writer, expect_nothing_lost, send};

const MIB: u64 = 1 << 20;
/// Far above what a broker needs here, far below what unbounded buffering would take.
const MEMORY_MAX: u64 = 400 * MIB;

fn ports(cluster: &Cluster) -> Vec<u16> {
    let plan = cluster.plan();
    let brokers = plan
        .brokers
        .values()
        .flat_map(|ports| [ports.client, ports.peer, ports.admin]);
    [plan.name_server_port].into_iter().chain(brokers).collect()
}

/// Requires that every process lives, never panicked, and stayed within its memory.
fn expect_all_well(cluster: &mut Cluster) {
    assert_eq!(cluster.ended(), Vec::new(), "{}", cluster.last_words());
    for member in cluster.plan().members() {
        let child = cluster.member(member);
        let log = std::fs::read_to_string(child.log()).unwrap();
        assert!(!log.contains("panicked"), "{member}: {log}");
        let peak = Usage::of(child.pid().unwrap()).resident_peak_bytes;
        assert!(peak < MEMORY_MAX, "{member} took {} MiB", peak / MIB);
    }
}

async fn messaging(cluster: &Cluster) -> MessagingServiceClient<Channel> {
    let led = cluster.led().await;
    let address = cluster.plan().client_address(led.broker_id);
    proto::opaque::messaging_client(channel(&address, &ChannelOptions::default()).unwrap())
}

fn named<T>(body: T) -> Request<T> {
    let mut request = Request::new(body);
    request
        .metadata_mut()
        .insert("x-mq-client-id", MetadataValue::from_static("stranger"));
    request
}

/// Catches a parser that panics, hangs or grows on bytes that are no HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_port_harms_nobody() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let noise: Vec<u8> = (0..1_u32 << 16)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let frame = |length: u32, kind: u8| {
        let mut bytes = preface.clone();
        bytes.extend_from_slice(&length.to_be_bytes()[1..]);
        bytes.extend_from_slice(&[kind, 0, 0, 0, 0, 1]);
        bytes.extend_from_slice(&noise[..1024]);
        bytes
    };
    let mut garbage = vec![
        noise.clone(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        preface.clone(),
        [preface.clone(), noise.clone()].concat(),
        vec![0; 1 << 20],
    ];
    garbage.extend((0..=10).map(|kind| frame(0x00FF_FFFF, kind)));
    garbage.extend((0..=10).map(|kind| frame(17, kind)));
    let mut held = Vec::new();
    for port in ports(&cluster) {
        for bytes in &garbage {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream
                .set_write_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            // The server may hang up in the middle, which is what it should do.
            let _ = stream.write_all(bytes);
            held.push(stream);
        }
    }
    writer.wait_for_acks(200).await;
    drop(held);
    let acked = writer.finish().await;
    expect_all_well(&mut cluster);
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches calls of the right service with the wrong content: empty, nonsense, half.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_a_message_is_answered_with_a_code() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let mut client = messaging(&cluster).await;
    let nonsense: [&[u8]; 5] = [
        b"",
        b"\xff\xff\xff\xff",
        b"\x0a\x7f",
        b"\x0a\x02\x12\x00",
        &[0x80; 64],
    ];
    for bytes in nonsense {
        let messages = vec![
            bytes::Bytes::from_static(b""),
            bytes::Bytes::copy_from_slice(bytes),
        ];
        let answer = client
            .send_message(named(SendMessageRequest { messages }))
            .await;
        let code = answer.unwrap().into_inner().status.unwrap().code;
        assert_ne!(code, i32::from(Code::Ok), "{bytes:?}");
        assert!((40_000..60_000).contains(&code), "{bytes:?}: {code}");
    }
    expect_all_well(&mut cluster);
}

/// Catches a size that is checked after the memory was taken, and a refusal without a code.
#[tokio::test(flavor = "multi_thread")]
async fn oversize_messages_are_refused_by_their_codes() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let mut client = messaging(&cluster).await;
    let encoded = |body_bytes: usize| {
        let message = v2::Message {
            topic: Some(v2::Resource {
                name: "orders".to_owned(),
                ..Default::default()
            }),
            system_properties: Some(v2::SystemProperties {
                message_id: format!("01{:032X}", body_bytes),
                message_type: v2::MessageType::Normal.into(),
                ..Default::default()
            }),
            body: bytes::Bytes::from(vec![b'x'; body_bytes]),
            ..Default::default()
        };
        bytes::Bytes::from(prost::Message::encode_to_vec(&message))
    };
    let four_mib = 4 << 20;
    let cases = [
        (vec![encoded(four_mib + 1)], Code::MessageBodyTooLarge),
        (
            (0..5).map(|more| encoded(four_mib - more)).collect(),
            Code::PayloadTooLarge,
        ),
        (vec![encoded(0)], Code::MessageBodyEmpty),
    ];
    for (messages, expected) in cases {
        let answer = client
            .send_message(named(SendMessageRequest { messages }))
            .await;
        let status = answer.unwrap().into_inner().status.unwrap();
        assert_eq!(status.code, i32::from(expected), "{}", status.message);
    }
    // Above what gRPC takes at all: the call fails, the broker does not.
    let messages = vec![bytes::Bytes::from(vec![0; 140 << 20])];
    let mut unbounded = client.clone().max_encoding_message_size(usize::MAX);
    assert!(
        unbounded
            .send_message(named(SendMessageRequest { messages }))
            .await
            .is_err()
    );
    let answer = client
        .send_message(named(SendMessageRequest {
            messages: vec![encoded(10)],
        }))
        .await;
    assert_eq!(
        answer.unwrap().into_inner().status.unwrap().code,
        i32::from(Code::Ok)
    );
    expect_all_well(&mut cluster);
}

/// Catches a server that a thousand silent connections bring to its knees.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_leave_room_for_work() {
    cli::process::raise_file_limit();
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let led = cluster.led().await;
    let plan = cluster.plan().clone();
    let port = plan.brokers[&led.broker_id].client;
    let mut held = Vec::new();
    for port in [port, plan.name_server_port] {
        for _ in 0..1_000 {
            held.push(TcpStream::connect(("127.0.0.1", port)).unwrap());
        }
    }
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(cluster.client().await);
    }
    for (number, client) in clients.iter().enumerate() {
        let producer = client.producer().build().unwrap();
        let message = Message::new("orders", format!("{number} hello")).unwrap();
        producer.send(message).await.unwrap();
    }
    cluster.topic("later").await;
    let writer = Writer::start(&cluster, "later", 100).await;
    writer.wait_for_acks(200).await;
    drop(held);
    let acked = writer.finish().await;
    expect_all_well(&mut cluster);
    expect_nothing_lost(&cluster, "later", &acked).await;
}

/// Catches answers that pile up in the broker for readers that do not take them.
#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_cost_a_bounded_amount_of_memory() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let client = cluster.client().await;
    send(&client, "orders", 0..4_000, 16 << 10).await;
    let mut slow: Vec<(MessagingServiceClient<Channel>, Streaming<_>)> = Vec::new();
    for reader in 0..100 {
        let mut client = messaging(&cluster).await;
        let request = PullMessageRequest {
            group: Some(v2::Resource {
                name: "slow".to_owned(),
                ..Default::default()
            }),
            message_queue: Some(v2::MessageQueue {
                topic: Some(v2::Resource {
                    name: "orders".to_owned(),
                    ..Default::default()
                }),
                id: reader % 4,
                ..Default::default()
            }),
            offset: 0,
            batch_size: 1_024,
            ..Default::default()
        };
        let stream = client
            .pull_message(named(request))
            .await
            .unwrap()
            .into_inner();
        slow.push((client, stream));
    }
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(300).await;
    expect_all_well(&mut cluster);
    drop(slow);
    writer.finish().await;
    let leader = cluster.led().await.broker_id;
    assert!(cluster.member(Member::Broker(leader)).pid().is_some());
}
