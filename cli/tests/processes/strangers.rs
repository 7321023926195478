//! Whoever reaches a port and does not hold the cluster's secret, and servers that hold it and err: refused, told
//! nothing, and the group serves on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cli::process::Member;
use host::network::{ChannelOptions, ClusterSecret, channel};
use proto::cluster::{self, NameRequest, RegisterRequest, Registration, Replica};
use proto::raft as wire;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::cluster::{Cluster, PATIENCE, eventually, program};
use super::terminal::Terminal;
use super::traffic::{Writer, expect_nothing_lost};

/// Longest wait for one refusal.
const SOON: Duration = Duration::from_secs(10);
/// What a proof begins with, as `host` has it.
const MAGIC: &[u8] = b"\xf0RaftMQ\x01";
const NONCE_BYTES: usize = 32;
const MAC_BYTES: usize = 32;

fn connect(address: &str, secret: Option<ClusterSecret>) -> Channel {
    let options = ChannelOptions {
        secret,
        ..ChannelOptions::default()
    };
    channel(address, &options).unwrap()
}

/// The secret of this cluster, as an operator has it.
fn secret(cluster: &Cluster) -> ClusterSecret {
    ClusterSecret::load(&cluster.plan().secret_file()).unwrap()
}

/// One of another cluster.
fn wrong_secret() -> ClusterSecret {
    ClusterSecret::from_text(&"fedcba9876543210".repeat(4)).unwrap()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what)
        .await
        .expect("an answer or an error")
}

/// All that a server says to `bytes`, which are followed by nothing.
fn said(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON * 2)).unwrap();
    // It may hang up in the middle, which is what it should do.
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    said
}

/// An Append from a leader of the highest term, which deletes what there is.
fn forged_append() -> wire::AppendRequest {
    let vote = wire::Vote {
        term: u64::MAX,
        candidate: 1,
        committed: true,
    };
    let entry = wire::Entry {
        term: u64::MAX,
        index: 1_000_000,
        kind: 1,
        body: bytes::Bytes::from_static(b"forged"),
    };
    wire::AppendRequest {
        vote: Some(vote),
        entries: vec![entry],
        cluster_id: "test".into(),
        group: "test".into(),
        sender: Some(sender(1, 0)),
        ..Default::default()
    }
}

fn sender(broker_id: u64, target_replica_id: u64) -> wire::Sender {
    wire::Sender {
        broker_id,
        replica_id: 7,
        incarnation: 1 << 32,
        target: 0,
        target_replica_id,
        ..Default::default()
    }
}

fn highest_registration() -> RegisterRequest {
    let replica = Replica {
        broker_id: 1,
        client_address: "127.0.0.1:1".into(),
        peer_address: String::new(),
    };
    let registration = Registration {
        group: "test".into(),
        epoch: u64::MAX,
        version: u64::MAX,
        leader: 1,
        replicas: vec![replica],
        cluster_id: "test".into(),
        ..Default::default()
    };
    RegisterRequest {
        registration: Some(registration),
        lease_ms: 60_000,
    }
}

/// Everything that a stranger may try on a peer port; each must fail.
async fn attack_peers(address: &str, secret: Option<ClusterSecret>) {
    let mut raft = proto::raft::raft_client(connect(address, secret.clone()));
    soon(raft.append(forged_append())).await.unwrap_err();
    let fetch = wire::FetchEntriesRequest {
        cluster_id: "test".into(),
        group: "test".into(),
        first_index: 1,
        last_index: 100,
        ..Default::default()
    };
    soon(raft.fetch_entries(fetch)).await.unwrap_err();
    let status = wire::StatusRequest {
        cluster_id: "test".into(),
        group: "test".into(),
        sender: Some(sender(9, 0)),
        announcement: None,
    };
    soon(raft.status(status)).await.unwrap_err();
    let mut admin = cluster::broker_admin_client(connect(address, secret));
    let orders = NameRequest {
        name: "orders".into(),
    };
    soon(admin.delete_topic(orders)).await.unwrap_err();
}

/// Catches a stranger who reaches anything that is for servers or operators, whatever he brings.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_reach_nothing_that_is_for_servers_or_operators() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let term = cluster.led().await.term;
    let writer = Writer::start(&cluster, "orders", 100).await;
    let plan = cluster.plan().clone();
    for id in cluster.ids() {
        for address in [plan.peer_address(id), plan.admin_address(id)] {
            attack_peers(&address, None).await;
            attack_peers(&address, Some(wrong_secret())).await;
            for bytes in [
                &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
                b"GET / HTTP/1.1\r\n\r\n",
            ] {
                assert_eq!(said(&address, bytes), b"", "{address} says something");
            }
        }
        // Administration is not on the clients' port at all, with or without a secret.
        let mut admin = cluster::broker_admin_client(connect(&plan.client_address(id), None));
        let orders = NameRequest {
            name: "orders".into(),
        };
        let refused = soon(admin.delete_topic(orders)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    }
    replayed(&plan.peer_address(1), secret(&cluster)).await;
    strangers_at_the_name_server(&cluster).await;

    writer.wait_for_acks(100).await;
    let acked = writer.finish().await;
    assert_eq!(cluster.ended(), Vec::new(), "{}", cluster.last_words());
    assert!(cluster.led().await.term < term + 1_000);
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Overhears a proof that holds, and says the same again.
async fn replayed(address: &str, secret: ClusterSecret) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let between = listener.local_addr().unwrap().to_string();
    let server = address.to_owned();
    let overhearing = tokio::task::spawn_blocking(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(server).unwrap();
        let mut overheard = vec![0; MAGIC.len() + NONCE_BYTES];
        client.read_exact(&mut overheard).unwrap();
        server.write_all(&overheard).unwrap();
        let mut answer = [0; NONCE_BYTES + MAC_BYTES];
        server.read_exact(&mut answer).unwrap();
        client.write_all(&answer).unwrap();
        // The proof, and what HTTP/2 begins with.
        let mut rest = [0; MAC_BYTES + 24];
        client.read_exact(&mut rest).unwrap();
        server.write_all(&rest).unwrap();
        let mut settings = [0; 9];
        server.read_exact(&mut settings).unwrap();
        overheard.extend(rest);
        (overheard, answer)
    });
    let mut admin = cluster::broker_admin_client(connect(&between, Some(secret)));
    let asking = tokio::spawn(async move { admin.list_topics(cluster::ListRequest {}).await });
    let (overheard, answer) = overhearing.await.unwrap();
    asking.abort();
    assert_eq!(&overheard[..MAGIC.len()], MAGIC);
    let said = said(address, &overheard);
    assert_eq!(
        said.len(),
        answer.len(),
        "a nonce and a MAC, and no word more"
    );
    assert_ne!(said, answer, "the nonce is new");
}

async fn strangers_at_the_name_server(cluster: &Cluster) {
    let address = cluster.plan().name_server_address();
    let refusal = |answer: Result<(), Status>| {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert_eq!(status.message(), "", "a stranger is told nothing");
    };
    let mut stranger = cluster::name_server_client(connect(&address, None));
    let registered = soon(stranger.register(highest_registration())).await;
    refusal(registered.map(drop));
    let gossip = cluster::GossipRequest {
        from: "127.0.0.1:2".into(),
        entries: vec![cluster::GossipEntry {
            registration: highest_registration().registration,
            renewal: u64::MAX,
            lease_ms: 60_000,
        }],
        ..Default::default()
    };
    refusal(soon(stranger.gossip(gossip)).await.map(drop));
    let table = soon(stranger.query_table(cluster::QueryTableRequest::default())).await;
    refusal(table.map(drop));
    let mut liar = cluster::name_server_client(connect(&address, Some(wrong_secret())));
    soon(liar.register(highest_registration()))
        .await
        .unwrap_err();
    // Who holds the secret and errs is refused too, and told why.
    let mut server = cluster::name_server_client(connect(&address, Some(secret(cluster))));
    let refused = soon(server.register(highest_registration()))
        .await
        .unwrap_err();
    assert!(refused.message().contains("cannot follow"), "{refused}");
}

/// Catches a peer that holds the secret and errs, and by that ends a replica that is well, or takes the group to a term
/// from which no election leads on.
#[tokio::test(flavor = "multi_thread")]
async fn a_confused_peer_ends_nobody() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let term = cluster.led().await.term;
    let writer = Writer::start(&cluster, "orders", 100).await;
    for id in cluster.ids() {
        let address = cluster.plan().peer_address(id);
        let mut raft = proto::raft::raft_client(connect(&address, Some(secret(&cluster))));
        let for_another = wire::VoteRequest {
            vote: Some(wire::Vote {
                term: term + 1,
                candidate: 9,
                committed: false,
            }),
            cluster_id: "test".into(),
            group: "test".into(),
            sender: Some(wire::Sender {
                target: id,
                ..sender(9, 4_711)
            }),
            ..Default::default()
        };
        let refused = soon(raft.vote(for_another.clone())).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let leap = |term| wire::VoteRequest {
            vote: Some(wire::Vote {
                term,
                candidate: 9,
                committed: false,
            }),
            sender: Some(sender(9, 0)),
            ..for_another.clone()
        };
        for told in [u64::MAX, 1 << 62, 1 << 41] {
            for refused in [
                soon(raft.vote(leap(told))).await.unwrap_err(),
                soon(raft.pre_vote(leap(told))).await.unwrap_err(),
            ] {
                assert!(refused.message().contains("cannot follow"), "{refused}");
            }
        }
        let forged = wire::AppendRequest {
            sender: Some(sender(9, 0)),
            ..forged_append()
        };
        let refused = soon(raft.append(forged)).await.unwrap_err();
        assert!(refused.message().contains("cannot follow"), "{refused}");
    }
    writer.wait_for_acks(100).await;
    let acked = writer.finish().await;
    assert_eq!(cluster.ended(), Vec::new(), "{}", cluster.last_words());
    assert!(cluster.led().await.term < term + 1_000);
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches a broker with another secret that is let in, or that keeps the others from serving.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_another_secret_stays_outside() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let id = cluster.followers().await[0];
    cluster.kill(id).await;
    let other = cluster.directory().join("another-secret");
    ClusterSecret::create(&other).unwrap();
    let mut settings = cluster.plan().broker_settings(id);
    settings.insert("secret_file".into(), other.display().to_string().into());
    let config = cluster.plan().config(Member::Broker(id));
    std::fs::write(&config, toml::to_string(&settings).unwrap()).unwrap();
    cluster.start_broker(id).unwrap();
    let log = cluster.plan().log(Member::Broker(id));
    let told = eventually(PATIENCE, || async {
        let log = std::fs::read_to_string(&log).unwrap();
        log.contains("did not prove").then_some(())
    });
    told.await.expect("its log says why nobody answers");
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(100).await;
    let acked = writer.finish().await;
    // With the right one it is a replica like the others.
    cluster.kill(id).await;
    let settings = cluster.plan().broker_settings(id);
    std::fs::write(&config, toml::to_string(&settings).unwrap()).unwrap();
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches a server that starts without a secret, or with one that everybody on the machine can read, and a line that
/// does not say what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_secret_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let terminal = Terminal::at("127.0.0.1:1");
    let path = directory.path().join("secret");
    let file = path.to_str().unwrap();
    let data = directory.path().join("data");
    let broker = [
        "broker",
        "--secret-file",
        file,
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let nameserver = ["nameserver", "--secret-file", file];
    for words in [&broker[..], &nameserver] {
        let said = terminal.complaint(1, words).await;
        assert!(said.contains("raftmq secret new"), "{said}");
    }
    terminal.expect(0, &["secret", "new", file], "").await;
    let made = std::fs::read_to_string(&path).unwrap();
    terminal.complaint(1, &["secret", "new", file]).await;
    terminal
        .expect(0, &["secret", "new", file, "--if-missing"], "")
        .await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), made, "it stays");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    for words in [&broker[..], &nameserver] {
        let said = terminal.complaint(1, words).await;
        assert!(said.contains("others can read it"), "{said}");
        assert!(!said.contains(made.trim()), "the secret is shown: {said}");
    }
    assert!(!data.exists(), "something was touched");
}

/// Catches an administration command that goes on without the secret, or says nothing of what it lacks.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_without_the_secret_is_told_what_is_missing() {
    let cluster = Cluster::start().await;
    let stranger = Terminal::at(&cluster.plan().name_server_address());
    let said = stranger.complaint(1, &["topic", "create", "orders"]).await;
    assert!(said.contains("--secret-file"), "{said}");
    let operator = Terminal::new(&cluster);
    operator.expect(0, &["topic", "create", "orders"], "").await;
    // To send and to read, nobody needs it.
    stranger.expect(0, &["produce", "orders", "x"], "").await;
    let consume = ["consume", "orders", "--group", "g", "--count", "1"];
    assert_eq!(stranger.expect(0, &consume, "").await, "x\n");
}

/// Catches a hook for tests in what users get.
#[test]
fn the_program_has_no_hooks_for_tests() {
    let bytes = std::fs::read(program()).unwrap();
    let hook = super::cluster::DISK_FAULTS.as_bytes();
    let found = bytes.windows(hook.len()).any(|window| window == hook);
    assert!(!found, "{} is in the program", super::cluster::DISK_FAULTS);
}
