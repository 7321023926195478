//! Data that is not this broker's: another's directory, none at all, one that two processes use.

use std::path::Path;

use super::cluster::{Cluster, PATIENCE, eventually};
use super::traffic::{Writer, expect_nothing_lost, send};

pub(crate) fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Changes keys of a broker's configuration file.
pub(crate) fn reconfigure(cluster: &Cluster, id: u64, keys: &[(&str, &str)]) {
    let mut settings = cluster.plan().broker_settings(id);
    for (key, value) in keys {
        settings.insert((*key).to_owned(), toml::Value::String((*value).to_owned()));
    }
    let path = cluster.plan().config(cli::process::Member::Broker(id));
    std::fs::write(path, toml::to_string(&settings).unwrap()).unwrap();
}

/// Catches a broker that votes and serves with the memory of another, or of another cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_another_is_refused() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let followers = cluster.followers().await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(50).await;
    let (id, other) = (followers[0], followers[1]);
    cluster.kill(id).await;
    let stolen = cluster.directory().join("stolen");
    copy_directory(&cluster.plan().broker_directory(other), &stolen);
    let own = cluster.plan().broker_directory(id).display().to_string();
    let stolen = stolen.display().to_string();
    for (keys, named) in [
        (
            [("data_dir", stolen.as_str()), ("cluster_id", "test")],
            "broker",
        ),
        (
            [("data_dir", own.as_str()), ("cluster_id", "another")],
            "cluster",
        ),
    ] {
        reconfigure(&cluster, id, &keys);
        cluster.start_broker(id).unwrap();
        assert_eq!(cluster.wait_for_end(id).await, Some(1), "{keys:?}");
        let words = cluster.broker(id).last_words(5);
        let says_so = |line: &str| line.starts_with("raftmq: ") && line.contains(named);
        assert!(words.lines().any(says_so), "{words}");
    }
    reconfigure(&cluster, id, &[]);
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches a replica that forgot its votes and entries and votes again all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_replica_is_refused_under_its_old_id() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(50).await;
    let id = cluster.followers().await[0];
    cluster.kill(id).await;
    std::fs::remove_dir_all(cluster.plan().broker_directory(id)).unwrap();
    cluster.start_broker(id).unwrap();
    assert_eq!(cluster.wait_for_end(id).await, Some(1));
    let words = cluster.broker(id).last_words(1);
    assert!(words.starts_with("raftmq: "), "{words}");
    writer.wait_for_acks(50).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// How far broker `of` is known to have come, in the file of broker `id`. The layout is that of `raft/src/promises.rs`.
fn known_end(cluster: &Cluster, id: u64, of: u64) -> u64 {
    let path = cluster.plan().broker_directory(id).join("peers");
    let bytes = std::fs::read(path).unwrap_or_default();
    let peers = bytes.get(8..).unwrap_or_default().chunks_exact(40);
    let number = |peer: &[u8], at: usize| u64::from_le_bytes(peer[at..at + 8].try_into().unwrap());
    let mut peers = peers.filter(|peer| number(peer, 0) == of);
    peers.next().map_or(0, |peer| number(peer, 32))
}

/// Catches a replica that was set back, and whose peers believe it because they were started again themselves: it and one that
/// was behind would agree without what was acknowledged since. And one that is believed once it was started often enough.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_replica_is_refused_by_peers_that_were_restarted() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let client = cluster.client().await;
    send(&client, "orders", 0..100, 100).await;
    let followers = cluster.followers().await;
    let (id, behind) = (followers[0], followers[1]);
    cluster.wait_until_caught_up(id).await;
    cluster.kill(id).await;
    let own = cluster.plan().broker_directory(id);
    let copy = cluster.directory().join("copy");
    copy_directory(&own, &copy);
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;
    send(&client, "orders", 100..300, 100).await;
    cluster.wait_until_caught_up(id).await;
    let came = cluster.status(id).await.unwrap().applied;
    let known = eventually(PATIENCE, || async {
        let known = |peer| (known_end(&cluster, peer, id) > came).then_some(());
        known(behind).and(known(cluster.led().await.broker_id))
    });
    known.await.expect("peers keep how far it came");
    let leader = cluster.led().await.broker_id;
    for broker in [id, behind, leader] {
        cluster.kill(broker).await;
    }
    std::fs::remove_dir_all(&own).unwrap();
    copy_directory(&copy, &own);
    cluster.start_broker(behind).unwrap();
    for _ in 0..3 {
        cluster.start_broker(id).unwrap();
        assert_eq!(cluster.wait_for_end(id).await, Some(1));
        let words = cluster.broker(id).last_words(1);
        let says_so = words.starts_with("raftmq: ")
            && words.contains("older copy")
            && words.contains("raftmq group replace");
        assert!(says_so, "{words}");
    }
    cluster.start_broker(leader).unwrap();
    cluster.wait_for_leader(PATIENCE).await.unwrap();
    expect_nothing_lost(&cluster, "orders", &(0..300).collect()).await;
}

/// Catches two processes that vote as one: a copied machine, a container started twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_of_one_id_is_refused() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(50).await;
    let id = cluster.followers().await[0];
    cluster.kill(id).await;
    let copy = cluster.directory().join("copy");
    copy_directory(&cluster.plan().broker_directory(id), &copy);
    cluster.start_broker(id).unwrap();
    cluster.wait_until_caught_up(id).await;

    let ports = cli::process::free_ports(2).unwrap();
    let config = cluster.directory().join("second.toml");
    let mut settings = cluster.plan().broker_settings(id);
    settings.insert("data_dir".to_owned(), copy.display().to_string().into());
    settings.insert(
        "listen".to_owned(),
        format!("127.0.0.1:{}", ports[0]).into(),
    );
    settings.insert(
        "peer_listen".to_owned(),
        format!("127.0.0.1:{}", ports[1]).into(),
    );
    std::fs::write(&config, toml::to_string(&settings).unwrap()).unwrap();
    let log = cluster.directory().join("second.log");
    let arguments = ["broker".into(), "--config".into(), config.into()];
    let program = super::cluster::program();
    let mut second = cli::process::Child::start("second", program, &arguments, &[], &log).unwrap();
    let status = second.wait(super::cluster::PATIENCE).await;
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(1),
        "{}",
        second.last_words(5)
    );
    assert!(
        second.last_words(1).starts_with("raftmq: "),
        "{}",
        second.last_words(1)
    );

    assert!(
        cluster.status(id).await.is_some(),
        "the first of the two was disturbed"
    );
    writer.wait_for_acks(50).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches two processes writing one log.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused() {
    let cluster = Cluster::start().await;
    let id = cluster.followers().await[0];
    let log = cluster.directory().join("second.log");
    let config = cluster.plan().config(cli::process::Member::Broker(id));
    let arguments = ["broker".into(), "--config".into(), config.into()];
    let program = super::cluster::program();
    let mut second = cli::process::Child::start("second", program, &arguments, &[], &log).unwrap();
    let status = second.wait(super::cluster::PATIENCE).await;
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(1),
        "{}",
        second.last_words(5)
    );
}
