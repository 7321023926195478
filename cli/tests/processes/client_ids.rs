//! Consumer groups as their operators see them: who claims whose client id, and what a group has yet to do.

use std::time::Duration;

use raftmq_client::{Client, Code, Delivery, Filter, Message, PullConsumer};
use tokio::time::Instant;

use super::cluster::{Cluster, PATIENCE, eventually};
use super::terminal::Terminal;

const BEAT: Duration = Duration::from_millis(500);

async fn named(cluster: &Cluster, client_id: &str) -> Client {
    let builder = Client::builder().seeds(cluster.plan().seeds());
    builder.client_id(client_id).build().await.unwrap()
}

fn consumer(client: &Client) -> PullConsumer {
    let builder = client.pull_consumer("billing").heartbeat_interval(BEAT);
    builder.build().unwrap()
}

async fn fill(client: &Client, topic: &str, count: u32) {
    let producer = client.producer().build().unwrap();
    for number in 0..count {
        let message = Message::builder(topic).body(number.to_string());
        producer.send(message.build().unwrap()).await.unwrap();
    }
    producer.close().await.unwrap();
}

/// Catches two processes with one client id that both hold all queues and both get everything, without a word to anybody; and a
/// process that was killed and is kept out of its own id.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_is_one_living_process() {
    let cluster = Cluster::start().await;
    let terminal = Terminal::new(&cluster);
    cluster.topic("orders").await;
    let (one, other) = (named(&cluster, "c").await, named(&cluster, "c").await);
    let first = consumer(&one);
    first.subscribe("orders", Filter::All).await.unwrap();
    let second = consumer(&other);
    let refused = second.subscribe("orders", Filter::All).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::PreconditionFailed), "{refused}");
    assert!(refused.to_string().contains("client id"), "{refused}");
    assert_eq!(second.assignment(), []);
    assert_eq!(first.assignment().len(), 4);
    let describe = ["consumer-group", "describe", "billing"];
    let text = terminal.expect(0, &describe, "").await;
    assert!(text.contains("another process claimed this id"), "{text}");

    // It dies without a word; the one that takes its place waits until it was missed, and not longer.
    second.close().await.unwrap();
    drop(first);
    let third = consumer(&named(&cluster, "c").await);
    let began = Instant::now();
    third.subscribe("orders", Filter::All).await.unwrap();
    let waited = began.elapsed();
    assert!(waited >= BEAT && waited < 20 * BEAT, "{waited:?}");
    let taken = eventually(PATIENCE, || async {
        (third.assignment().len() == 4).then_some(())
    });
    taken.await.expect("it takes the queues");
    third.close().await.unwrap();
}

/// Catches a backlog that is not counted: nothing committed yet, and what waits for another delivery; and one that was skipped
/// and comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_all_that_is_not_finished() {
    let cluster = Cluster::start().await;
    let terminal = Terminal::new(&cluster);
    cluster.topic("orders").await;
    let client = cluster.client().await;
    fill(&client, "orders", 20).await;
    let create = [
        "consumer-group",
        "create",
        "billing",
        "--retry-backoff",
        "1h",
    ];
    terminal.expect(0, &create, "").await;
    let figures = async || {
        let words = ["consumer-group", "describe", "billing"];
        let group = terminal.json(&words).await;
        (
            group["lag"].as_u64().unwrap(),
            group["retries"].as_u64().unwrap(),
        )
    };
    let looks = consumer(&client);
    looks.subscribe("orders", Filter::All).await.unwrap();
    let nothing_committed = eventually(PATIENCE, || async {
        (figures().await == (20, 0)).then_some(())
    });
    nothing_committed.await.expect("all of it is unread");
    let list = terminal.json(&["consumer-group", "list"]).await;
    assert_eq!(list[0]["lag"], 20, "{list}");
    looks.close().await.unwrap();

    let push = client
        .push_consumer("billing")
        .subscribe("orders", Filter::All);
    let push = push.commit_interval(Duration::from_millis(100));
    let fails = async |delivery: Delivery| match delivery.offset % 2 {
        0 => Ok(()),
        _ => Err("told to fail"),
    };
    let push = push.listen(fails).await.unwrap();
    let failed = eventually(PATIENCE, || async {
        let (lag, retries) = figures().await;
        (lag == retries && retries > 0).then_some(retries)
    });
    let failed = failed.await.expect("what failed waits, and is behind");
    push.close().await.unwrap();
    let skip = ["consumer-group", "skip-backlog", "billing", "--force"];
    let text = terminal.expect(0, &skip, "").await;
    assert!(text.contains("retries given up"), "{text}");
    assert_eq!(
        figures().await,
        (failed, failed),
        "a dry run changed something"
    );
    let skip = [&skip[..], &["--yes"]].concat();
    terminal.expect(0, &skip, "").await;
    assert_eq!(figures().await, (0, 0));
}
