//! SIGSTOP: a leader that stands still and then goes on as if nothing had happened, a name server that does not answer.

use std::ffi::OsString;
use std::time::Duration;

use cli::process::{Child, Member, free_ports};
use raftmq_client::{Client, Message};
use tokio::time::Instant;

use super::cluster::{Cluster, LEADER_PATIENCE, PATIENCE, eventually, program};
use super::terminal::Terminal;
use super::traffic::{Writer, expect_nothing_lost};

const PAUSE: Duration = Duration::from_secs(10);
/// Longest that a first message may take with a name server that hangs: less than one attempt at asking it.
const BEGIN_MAX: Duration = Duration::from_millis(2_500);
/// Clients that begin: one of them may meet a busy machine.
const BEGINNERS: usize = 3;

/// Catches a leader that, waking up, answers sends or reads by what it believed before it slept.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_slept_ten_seconds_has_lost_the_lead_and_nothing_else() {
    let mut cluster = Cluster::start().await;
    cluster.topic("orders").await;
    let writer = Writer::start(&cluster, "orders", 100).await;
    writer.wait_for_acks(200).await;
    let led = cluster.led().await;
    cluster.broker(led.broker_id).pause();
    let slept = tokio::time::Instant::now();
    let new = cluster
        .wait_for_leader_after(led.term, LEADER_PATIENCE)
        .await
        .unwrap();
    assert_ne!(new.broker_id, led.broker_id);
    writer.wait_for_acks(200).await;
    tokio::time::sleep(PAUSE.saturating_sub(slept.elapsed())).await;
    cluster.broker(led.broker_id).resume();
    cluster
        .wait_for_status(led.broker_id, "follows the new leader", |status| {
            !status.serving && status.term >= new.term && status.leader != led.broker_id
        })
        .await;
    cluster.wait_until_caught_up(led.broker_id).await;
    writer.wait_for_acks(100).await;
    let acked = writer.finish().await;
    expect_nothing_lost(&cluster, "orders", &acked).await;
}

/// Runs one more name server, a peer of the group's own.
fn another_name_server(cluster: &Cluster, number: usize, address: &str) -> Child {
    let mut settings = cluster.plan().name_server_settings();
    for key in ["listen", "advertise"] {
        settings.insert(key.to_owned(), address.into());
    }
    let peers = vec![cluster.plan().name_server_address()];
    settings.insert("peers".to_owned(), peers.into());
    let name = format!("nameserver-{number}");
    let file = |kind: &str| cluster.directory().join(format!("{name}.{kind}"));
    std::fs::write(file("toml"), settings.to_string()).unwrap();
    let words: [OsString; 4] = [
        "nameserver".into(),
        "--config".into(),
        file("toml").into(),
        "--until-stdin-closes".into(),
    ];
    Child::start(&name, program(), &words, &[], &file("log")).unwrap()
}

/// How long a client that knows these addresses takes from nothing to its first acknowledged message.
async fn begin(seeds: &[String]) -> Duration {
    let began = Instant::now();
    let client = Client::builder().seeds(seeds.to_vec());
    let client = client.start_timeout(PATIENCE).build().await.unwrap();
    let producer = client.producer().send_timeout(PATIENCE).build().unwrap();
    let message = Message::new("orders", "from the SDK").unwrap();
    producer.send(message).await.unwrap();
    began.elapsed()
}

/// Waits until the name server at `address` tells clients where the topic is.
async fn knows_the_way(address: &str) {
    let known = eventually(PATIENCE, || async {
        let client = Client::builder().seeds(vec![address.to_owned()]);
        let client = client.build().await.ok()?;
        client.queues("orders").await.ok()
    });
    assert!(known.await.is_some(), "{address} knows no route");
}

/// Catches clients that wait for the first name server that they know, which accepts connections and says nothing, before they
/// ask the second one. A process that stands still is such a server.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_name_server_that_hangs_holds_up_no_client_that_begins() {
    let ports = free_ports(2).unwrap();
    let mut name_servers: Vec<String> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let mut cluster = Cluster::start_with(|plan| {
        name_servers.insert(0, plan.name_server_address());
        plan.with("name_servers", name_servers.clone())
    })
    .await;
    let others = name_servers.iter().enumerate().skip(1);
    let _others: Vec<Child> = others
        .map(|(number, address)| another_name_server(&cluster, number, address))
        .collect();
    cluster.topic("orders").await;
    for address in &name_servers {
        knows_the_way(address).await;
    }
    cluster.member(Member::NameServer).pause();
    let terminal = Terminal::with_seeds(&cluster, &name_servers.join(","));
    let (mut by_sdk, mut by_command) = (Vec::new(), Vec::new());
    for _ in 0..BEGINNERS {
        by_sdk.push(begin(&name_servers).await);
        let began = Instant::now();
        let words = ["produce", "orders", "from a person"];
        terminal.expect(0, &words, "").await;
        by_command.push(began.elapsed());
    }
    for times in [&by_sdk, &by_command] {
        let shortest = times.iter().min().unwrap();
        assert!(*shortest < BEGIN_MAX, "{by_sdk:?}, {by_command:?}");
    }
}
