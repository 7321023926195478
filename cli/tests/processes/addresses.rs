//! Brokers that come back with other addresses: found without a word of anybody, or with one.

use std::time::Duration;

use cli::process::Member;

use super::cluster::{Cluster, PATIENCE, eventually};
use super::terminal::Terminal;
use super::traffic::{Writer, expect_nothing_lost};

/// Messages that a writer gets through in a moment.
const SOME: usize = 100;
/// Several times as long as an election takes.
const ELECTIONS: Duration = Duration::from_secs(5);

/// Stops a broker and gives it other ports.
async fn move_away(cluster: &mut Cluster, id: u64) {
    cluster.broker(id).end(PATIENCE).await;
    cluster.give_free_ports(id);
}

/// Writes the configuration of a broker: of the members, with the addresses of only these as they are now.
fn configure(cluster: &Cluster, id: u64, members_at_first: &toml::Value, known: &[u64]) {
    let mut settings = cluster.plan().broker_settings(id);
    let now = settings["members"].as_array().unwrap().clone();
    let at_first = members_at_first.as_array().unwrap();
    let members = now.into_iter().zip(at_first).map(|(now, at_first)| {
        let member = now["broker_id"].as_integer().unwrap();
        let is_known = known.iter().any(|id| i64::try_from(*id) == Ok(member));
        if is_known { now } else { at_first.clone() }
    });
    let members = toml::Value::Array(members.collect());
    settings.insert("members".to_owned(), members);
    let path = cluster.plan().config(Member::Broker(id));
    std::fs::write(path, settings.to_string()).unwrap();
}

fn members(cluster: &Cluster) -> toml::Value {
    cluster.plan().broker_settings(1)["members"].clone()
}

/// Waits until the leader's membership has every broker where it is.
async fn wait_until_logged(cluster: &Cluster) {
    let logged = eventually(PATIENCE, || async {
        let led = cluster.leader().await?;
        let replicas = cluster.status(led.broker_id).await?.replicas;
        let there = replicas.iter().all(|one| {
            one.peer_address == cluster.plan().peer_address(one.broker_id)
                && one.client_address == cluster.plan().client_address(one.broker_id)
        });
        (there && replicas.len() == 3).then_some(())
    });
    let logged = logged.await;
    assert!(
        logged.is_some(),
        "the log has old addresses\n{}",
        cluster.last_words()
    );
}

/// Catches a broker that is dialled for ever where it was, and clients that are sent there.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_elsewhere_is_found_without_a_command() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let at_first = members(&cluster);
    let writer = Writer::start(&cluster, "orders", SOME).await;
    writer.wait_for_acks(SOME).await;
    let moved = cluster.led().await.broker_id;
    move_away(&mut cluster, moved).await;
    configure(&cluster, moved, &at_first, &[moved]);
    cluster.start_broker(moved).unwrap();
    wait_until_logged(&cluster).await;
    cluster.wait_until_caught_up(moved).await;
    // Now it is needed where it is, and clients go there.
    let words = ["group", "transfer-leader", &moved.to_string()];
    Terminal::new(&cluster).expect(0, &words, "").await;
    writer.wait_for_acks(SOME).await;
    let other = cluster.followers().await[0];
    cluster.kill(other).await;
    writer.wait_for_acks(SOME).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Catches three brokers that have other addresses, and for which there is no help; and a command that only seems to help, since
/// they find each other without it.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_all_moved_are_brought_together_by_a_command() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let at_first = members(&cluster);
    let writer = Writer::start(&cluster, "orders", SOME).await;
    writer.wait_for_acks(SOME).await;
    let acked = writer.finish().await;
    for id in cluster.ids() {
        move_away(&mut cluster, id).await;
    }
    for id in cluster.ids() {
        configure(&cluster, id, &at_first, &[id]);
        cluster.start_broker(id).unwrap();
    }
    for id in cluster.ids() {
        cluster
            .wait_for_status(id, "answers operators", |_| true)
            .await;
    }
    let alone = cluster.wait_for_leader(ELECTIONS).await;
    assert!(alone.is_err(), "nobody was told, and {alone:?}");
    let terminal = Terminal::with_seeds(&cluster, &cluster.plan().seeds().join(","));
    let address = cluster.plan().peer_address(2);
    let words = [
        "group",
        "set-address",
        "--replica",
        "2",
        "--address",
        &address,
    ];
    let told = terminal.expect(0, &words, "").await;
    assert!(told.contains("looks for broker 2"), "{told}");
    assert!(
        told.contains("this is broker 2"),
        "it knows by itself: {told}"
    );
    // 1 and 3 reach 2, and hear of each other there.
    cluster.wait_for_leader(PATIENCE).await.unwrap();
    wait_until_logged(&cluster).await;
    cluster.topic("orders-after").await;
    let writer = Writer::start(&cluster, "orders-after", SOME).await;
    writer.wait_for_acks(SOME).await;
    let after = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
    expect_nothing_lost(&cluster, "orders-after", &after).await;
    let none = [
        "group",
        "set-address",
        "--replica",
        "7",
        "--address",
        &address,
    ];
    let output = terminal.run(&none, "").await;
    assert!(!output.status.success(), "there is no broker 7");
}
