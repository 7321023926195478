//! The commands a person types, against a running group: what they print and how they end.

use super::cluster::{Cluster, PATIENCE, eventually};
use super::terminal::Terminal;

/// Catches a command that says done and is not, or fails without saying so by its exit code.
#[tokio::test(flavor = "multi_thread")]
async fn topics_messages_and_status_by_hand() {
    let cluster = Cluster::start().await;
    let terminal = Terminal::new(&cluster);
    terminal
        .expect(0, &["topic", "create", "orders", "--queues", "2"], "")
        .await;
    terminal.expect(1, &["topic", "create", "orders"], "").await;
    terminal
        .expect(0, &["topic", "create", "orders", "--if-absent"], "")
        .await;
    terminal
        .expect(4, &["topic", "describe", "nothing"], "")
        .await;
    terminal
        .expect(4, &["produce", "nothing", "hello"], "")
        .await;
    terminal.expect(2, &["produce"], "").await;

    let receipts = terminal
        .expect(0, &["produce", "orders", "--json"], "one\ntwo\n\nthree\n")
        .await;
    assert_eq!(receipts.lines().count(), 3, "{receipts}");
    terminal
        .expect(
            0,
            &[
                "produce", "orders", "four", "--tag", "new", "--keys", "k1,k2",
            ],
            "",
        )
        .await;

    terminal.expect(0, &["topic", "delete", "orders"], "").await;
    terminal
        .expect(4, &["topic", "describe", "orders"], "")
        .await;
}

/// Catches messages that are printed twice, or not at all, and output that no program can read.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_produced_is_consumed_once_and_can_be_read_again() {
    let cluster = Cluster::start().await;
    let terminal = Terminal::new(&cluster);
    terminal
        .expect(0, &["topic", "create", "orders", "--queues", "2"], "")
        .await;
    terminal
        .expect(0, &["produce", "orders"], "one\ntwo\n\nthree\n")
        .await;
    terminal
        .expect(
            0,
            &[
                "produce", "orders", "four", "--tag", "new", "--keys", "k1,k2",
            ],
            "",
        )
        .await;

    let list: serde_json::Value =
        serde_json::from_str(&terminal.expect(0, &["topic", "list", "--json"], "").await).unwrap();
    assert_eq!(list[0]["name"], "orders");
    assert_eq!(list[0]["queues"].as_array().unwrap().len(), 2);

    let consume = [
        "consume",
        "orders",
        "--group",
        "readers",
        "--idle-timeout-ms",
        "1500",
    ];
    let text = terminal.expect(0, &consume, "").await;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["four", "one", "three", "two"]);
    assert_eq!(
        terminal.expect(0, &consume, "").await,
        "",
        "what was read was not committed"
    );
    let again = [
        &consume[..],
        &["--from", "earliest", "--count", "2", "--format", "json"],
    ]
    .concat();
    let text = terminal.expect(0, &again, "").await;
    assert_eq!(text.lines().count(), 2, "{text}");
    for line in text.lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(message["topic"], "orders");
    }
    terminal
        .expect(
            3,
            &[&consume[..], &["--from", "latest", "--count", "1"]].concat(),
            "",
        )
        .await;

    let status = terminal
        .expect(0, &["cluster", "status", "--json"], "")
        .await;
    let status: serde_json::Value = serde_json::from_str(status.lines().next().unwrap()).unwrap();
    let leaders = status
        .as_array()
        .unwrap()
        .iter()
        .filter(|broker| broker["serving"] == true);
    assert_eq!((status.as_array().unwrap().len(), leaders.count()), (3, 1));

    terminal.expect(0, &["topic", "delete", "orders"], "").await;
    terminal
        .expect(4, &["topic", "describe", "orders"], "")
        .await;
}

/// Catches a status that calls a group well while one of its brokers is dead.
#[tokio::test(flavor = "multi_thread")]
async fn status_fails_while_a_broker_is_dead() {
    let mut cluster = Cluster::start().await;
    let terminal = Terminal::new(&cluster);
    terminal.expect(0, &["cluster", "status"], "").await;
    let follower = cluster.followers().await[0];
    cluster.kill(follower).await;
    let text = terminal.expect(6, &["cluster", "status"], "").await;
    assert!(text.contains("no answer"), "{text}");
    terminal.expect(6, &["cluster", "health"], "").await;
    let serving = ["cluster", "health", "--serving", "--wait", "20s"];
    terminal.expect(0, &serving, "").await;
    // Two of three gone: nobody can write, and every look says so.
    let second = cluster.led().await.broker_id;
    cluster.kill(second).await;
    let words = terminal.complaint(6, &serving[..3]).await;
    assert!(
        words.contains("1 of 3 voters answer, 2 are needed"),
        "{words}"
    );
    terminal.expect(5, &["group", "transfer-leader"], "").await;
    let text = terminal.expect(6, &["doctor", "--watch", "1ms"], "").await;
    assert!(
        text.contains("YES  a broker group without a leader"),
        "{text}"
    );
    let mut left = cluster.ids();
    left.retain(|id| ![follower, second].contains(id));
    cluster.kill(left[0]).await;
    nobody_of_the_group_is_left(&Terminal::new(&cluster)).await;
}

/// Only a name server is there to tell of the group, and it sends no client to it any more.
async fn nobody_of_the_group_is_left(terminal: &Terminal) {
    let expired = eventually(PATIENCE, || async {
        let route = terminal.json(&["route"]).await;
        let groups = route["name_servers"][0]["groups"].as_array()?;
        groups.is_empty().then_some(())
    });
    expired.await.expect("the registration runs out");
    terminal.expect(6, &["cluster", "status"], "").await;
    let words = ["cluster", "health", "--serving", "--expect-groups", "2"];
    let words = terminal.complaint(6, &words).await;
    for trouble in [
        "1 of 2 broker groups are known: test",
        "none of its 3 replicas answers",
    ] {
        assert!(words.contains(trouble), "{words}");
    }
    let text = terminal.expect(6, &["doctor", "--watch", "1ms"], "").await;
    let title = "YES  a broker group without a leader";
    assert!(text.contains(title), "{text}");
    // It may have the topic when it comes back.
    let words = terminal.complaint(5, &["topic", "delete", "orders"]).await;
    assert!(words.contains("not deleted anywhere"), "{words}");
}

/// Catches a command that waits for ever for servers that are not there.
#[tokio::test(flavor = "multi_thread")]
async fn without_servers_a_command_ends_with_a_clear_line() {
    let port = cli::process::free_ports(1).unwrap()[0];
    let terminal = Terminal::at(&format!("127.0.0.1:{port}"));
    let output = terminal.run(&["topic", "list"], "").await;
    assert_eq!(output.status.code(), Some(5));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains(&terminal.seeds), "{words}");
}

/// Catches a demo that loses a line, or that would not tell.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_with_nothing_lost() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines");
    let lines: String = (0..3_000)
        .map(|n| {
            if n % 100 == 0 {
                "\n".into()
            } else {
                format!("line {n}\n")
            }
        })
        .collect();
    std::fs::write(&file, lines).unwrap();
    let terminal = Terminal::at("");
    let text = terminal
        .expect(0, &["demo", "--file", file.to_str().unwrap()], "")
        .await;
    let verdict: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for (key, value) in [
        ("sent", 3_000),
        ("acked", 3_000),
        ("received", 3_000),
        ("lost", 0),
        ("out_of_order", 0),
    ] {
        assert_eq!(verdict[key], value, "{key}: {verdict}");
    }
    // How many come twice depends on how busy the machine is when queues change hands: 0 to 1,032 were seen. That a hand-over
    // doubles nothing by itself is a test of the SDK.
    let doubled = verdict["duplicated"].as_u64().unwrap();
    let by_hand_over = verdict["duplicated_by_hand_over"].as_u64().unwrap();
    assert!(by_hand_over <= doubled, "{verdict}");
    assert!(
        verdict["leader_changes"].as_u64().unwrap() >= 1,
        "{verdict}"
    );
}
