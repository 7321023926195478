//! Writes a few valid inputs for each target that needs them: `seeds <corpus directory>`.

use std::fs::{create_dir_all, write};
use std::path::PathBuf;

use bytes::Bytes;
// Its code counts what is covered, here too.
use libfuzzer_sys as _;
use prost::Message;
use proto::cluster::{
    GossipEntry, GossipRequest, RegisterRequest, Registration, Replica, TopicRoute,
};
use proto::command::command::Body;
use proto::command::{Append, Command, Entry, IdRun, PutGroup, PutTopic};
use proto::raft::{AppendRequest, LogId, SnapshotFile, SnapshotOffer, Vote, VoteRequest};
use proto::v2;
use store::{CheckpointFile, CheckpointMeta};

const MEMBERSHIP: &str = r#"{"log_id":null,"membership":{"configs":[[1]],"nodes":{"1":{"peer_address":"a:1","client_address":"a:2","replica_id":7}}}}"#;

fn main() {
    let corpus = std::env::args_os()
        .nth(1)
        .expect("the corpus directory is missing");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let dir = PathBuf::from(&corpus).join(target);
        create_dir_all(&dir).expect("the corpus directory can be made");
        write(dir.join(format!("seed-{name}")), bytes).expect("a seed can be written");
    };
    for target in ["message", "received"] {
        put(target, "full", &message().encode_to_vec());
    }
    put("entry", "pieces", &pieces());
    put(
        "entry",
        "script",
        &[
            1, 3, 0, 3, 0, 0, 5, 0, 0, 0, 0, 2, 11, 1, 9, 9, 0, 0, 1, 1, 5, 3, 11, 2, 9, 9, 7, 2,
        ],
    );
    put("entry", "redelivery", &redelivery_script());
    put("wire", "append", &append_request().encode_to_vec());
    put("wire", "vote", &vote_request().encode_to_vec());
    put("snapshot", "offer", &offer().encode_to_vec());
    put(
        "applied",
        "row",
        &[&[1; 17], MEMBERSHIP.as_bytes()].concat(),
    );
    put("applied", "membership", MEMBERSHIP.as_bytes());
    put(
        "names",
        "register",
        &RegisterRequest {
            registration: Some(registration(1)),
            lease_ms: 5000,
        }
        .encode_to_vec(),
    );
    put("names", "gossip", &gossip().encode_to_vec());
    let meta = meta().encode();
    put("checkpoint", "meta", &meta[8..meta.len() - 4]);
    put(
        "rows",
        "topic",
        &[
            &[9, 2, 0, 0, 0, 0, 0, 0, 0, 1, 5, 10, 1, b't', 16, 2][..],
            &[13, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 16],
            &[0; 16],
        ]
        .concat(),
    );
    put("superblock", "body", &superblock());
    put(
        "record",
        "two",
        &[record(1, b"body"), record(2, b"")].concat(),
    );
    put("segment", "index", &index());
    put("mark", "slots", &[1; 1024]);
}

fn message() -> v2::Message {
    v2::Message {
        topic: Some(v2::Resource {
            resource_namespace: "n".into(),
            name: "orders".into(),
        }),
        user_properties: [("key".into(), "value".into())].into(),
        system_properties: Some(v2::SystemProperties {
            tag: Some("new".into()),
            keys: vec!["k1".into(), "k2".into()],
            message_id: "01A0010203040506070123456700000000".into(),
            message_group: Some("g".into()),
            born_timestamp: Some(prost_types::Timestamp {
                seconds: 7,
                nanos: 5,
            }),
            queue_offset: Some(42),
            ..Default::default()
        }),
        body: Bytes::from_static(b"hello"),
    }
}

fn pieces() -> Vec<u8> {
    let topic = PutTopic {
        name: "t".into(),
        queue_count: 2,
        create: true,
        ..Default::default()
    };
    let group = PutGroup {
        name: "g".into(),
        create: true,
        ..Default::default()
    };
    let ids = vec![IdRun {
        first: Bytes::from_static(&[7; 16]),
        count: 2,
        ..IdRun::default()
    }];
    let append = Append {
        topic_id: 0,
        queue: 1,
        sizes_bytes: vec![2, 3],
        ids,
        messages: Bytes::from_static(b"aabbb"),
        digests: vec![1, 2],
    };
    let mut bytes = vec![0];
    for body in [
        Body::PutTopic(topic),
        Body::PutGroup(group),
        Body::Append(append),
    ] {
        let command = Command { body: Some(body) };
        let entry = Entry {
            time_ms: 5,
            commands: vec![command],
            dedup_window_ms: 9,
            dedup_bytes_max: 9,
        };
        let entry = entry.encode_to_vec();
        bytes.extend_from_slice(&(entry.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&entry);
    }
    bytes
}

/// A topic, a group of two attempts, three messages; the first is sent back twice and dies, the second waits
/// and is settled, the third is kept once more.
fn redelivery_script() -> Vec<u8> {
    let end = |time: u8| vec![11, time, 9, 9];
    let topic = vec![3, 0, 1, 0, 0];
    let group = vec![5, 0, 0, 0, 0, 2];
    let messages = vec![0, 0, 0, 1, 1, 3];
    let send_back = |offset, attempt| vec![8, 0, 0, 0, 1, offset, attempt, 1, 1, 0];
    let settle = vec![9, 0, 0, 0, 1, 1, 2];
    let keep = vec![10, 0, 1, 2, 0, 2];
    let drop_letters = vec![10, 1, 9];
    let script = [vec![1], topic, group, end(1), messages, end(2)];
    let sent_back = [send_back(0, 1), send_back(1, 1), send_back(2, 1), end(3)];
    let last = [
        send_back(0, 2),
        settle,
        keep,
        end(4),
        vec![7, 3],
        drop_letters,
        end(9),
    ];
    [script.concat(), sent_back.concat(), last.concat()].concat()
}

fn vote() -> Option<Vote> {
    Some(Vote {
        term: 3,
        candidate: 1,
        committed: true,
    })
}

fn append_request() -> AppendRequest {
    let membership = Bytes::from_static(br#"{"configs":[[1]],"nodes":{"1":{"peer_address":"a:1","client_address":"a:2","replica_id":7}}}"#);
    let entry = |index, kind, body| proto::raft::Entry {
        term: 3,
        index,
        kind,
        body,
    };
    AppendRequest {
        vote: vote(),
        previous: Some(LogId { term: 2, index: 4 }),
        committed: Some(LogId { term: 2, index: 3 }),
        entries: vec![
            entry(5, 1, Bytes::from_static(b"x")),
            entry(6, 2, membership),
            entry(7, 0, Bytes::new()),
        ],
        ..Default::default()
    }
}

fn vote_request() -> VoteRequest {
    VoteRequest {
        vote: vote(),
        last: Some(LogId { term: 2, index: 4 }),
        ..Default::default()
    }
}

fn offer() -> SnapshotOffer {
    let file = |name: &str, segment| SnapshotFile {
        name: name.into(),
        size_bytes: 64,
        crc32c: 7,
        segment,
        last_index: 4,
        ..Default::default()
    };
    SnapshotOffer {
        last: Some(LogId { term: 2, index: 4 }),
        membership: Bytes::from_static(MEMBERSHIP.as_bytes()),
        files: vec![
            file("checkpoint/META", false),
            file("checkpoint/tables/image", false),
            file("log/00000000000000000000.seg", true),
        ],
        snapshot_id: "2-4-00000000".into(),
        ..Default::default()
    }
}

fn registration(epoch: u64) -> Registration {
    Registration {
        group: "g".into(),
        epoch,
        version: 1,
        leader: 1,
        replicas: vec![Replica {
            broker_id: 1,
            client_address: "a:8081".into(),
            peer_address: "[::1]:9081".into(),
        }],
        topics: vec![TopicRoute {
            name: "t".into(),
            queue_count: 2,
            message_type: 0,
            first_queue: 0,
        }],
        cluster_id: "c".into(),
    }
}

fn gossip() -> GossipRequest {
    let entry = |epoch| GossipEntry {
        registration: Some(registration(epoch)),
        renewal: 5,
        lease_ms: 5000,
    };
    GossipRequest {
        from: "b:9876".into(),
        members: vec!["c:9876".into()],
        entries: vec![entry(1), entry(2)],
        ..Default::default()
    }
}

fn meta() -> CheckpointMeta {
    let files = vec![CheckpointFile {
        name: "image".into(),
        size_bytes: 9,
        crc32c: 7,
    }];
    CheckpointMeta {
        log_id: store::LogId { term: 1, index: 2 },
        applied: Bytes::from_static(b"row"),
        files,
    }
}

fn superblock() -> Vec<u8> {
    let mut body = b"\x01\0\0\0c\x01\0\0\0g\x01\0\0\0\0\0\0\0\0\0\0\0\x01".to_vec();
    body.extend_from_slice(&[1; 40]);
    body
}

fn record(term: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    (bytes[4], bytes[16]) = (body.len() as u8, term);
    [&bytes[..], body].concat()
}

fn index() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    (bytes[4], bytes[8], bytes[16], bytes[24]) = (1, 7, 2, 200);
    [&bytes[..], &64_u32.to_le_bytes(), &96_u32.to_le_bytes()].concat()
}
