//! What an operator does with a running cluster. One group serves many checks, because processes are slow
//! to start; the checks that change who is in the group come last.

use std::process::Stdio;

use cli::process::{Member, free_ports};
use serde_json::Value;
use tokio::time::Instant;

use super::cluster::{Cluster, PATIENCE, eventually};
use super::terminal::Terminal;

/// Catches commands that say done and are not, numbers that are not the brokers', output that no program can
/// read, and exit codes that a script cannot branch on.
#[tokio::test(flavor = "multi_thread")]
async fn an_operators_day() {
    let mut cluster = Cluster::start().await;
    let terminal = Terminal::new(&cluster);
    contexts(&cluster, &terminal).await;
    topics(&terminal).await;
    messages(&terminal).await;
    whole_messages_and_looking(&terminal).await;
    settings_of_consumer_groups(&terminal).await;
    living_members(&terminal).await;
    offsets(&terminal).await;
    well_while_all_is_well(&cluster, &terminal).await;
    leaders(&cluster, &terminal).await;
    the_doctor(&mut cluster, &terminal).await;
    a_name_server_that_nobody_told(&cluster, &terminal).await;
    a_wiped_replica_is_replaced_as_its_last_words_say(&mut cluster, &terminal).await;
    replicas_come_and_go(&mut cluster, &terminal).await;
    a_stopped_brokers_log(&mut cluster, &terminal).await;
}

/// The symptoms that the doctor finds. A slow disk is left out: the machine that runs the tests may be busy.
async fn symptoms(terminal: &Terminal) -> Vec<String> {
    let words = ["doctor", "--topic", "orders", "--watch", "100ms", "--json"];
    let output = terminal.run(&words, "").await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let code = if report["healthy"] == true { 0 } else { 6 };
    assert_eq!(output.status.code(), Some(code));
    let symptoms = report["symptoms"].as_array().unwrap().iter();
    let found = symptoms.filter(|symptom| symptom["found"] != Value::Array(Vec::new()));
    let names = found.map(|symptom| symptom["symptom"].as_str().unwrap().to_owned());
    names.filter(|name| name != "sends time out").collect()
}

async fn the_doctor(cluster: &mut Cluster, terminal: &Terminal) {
    let none: [&str; 0] = [];
    assert_eq!(symptoms(terminal).await, none);
    let text = terminal
        .run(&["doctor", "--topic", "nothing", "--watch", "1ms"], "")
        .await;
    assert_eq!(text.status.code(), Some(6));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("YES  no route for the topic"), "{text}");
    assert!(text.contains("raftmq topic create"), "{text}");
    let follower = cluster.followers().await[1];
    cluster.kill(follower).await;
    assert_eq!(symptoms(terminal).await, ["a replica is dead or behind"]);
    cluster.start_broker(follower).unwrap();
    cluster.wait_until_caught_up(follower).await;
}

async fn a_name_server_that_nobody_told(cluster: &Cluster, terminal: &Terminal) {
    let address = format!("127.0.0.1:{}", free_ports(1).unwrap()[0]);
    let mut lonely = terminal
        .command(&["nameserver", "--listen", &address, "--until-stdin-closes"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let seeds = format!("{},{address}", cluster.plan().name_server_address());
    let both = Terminal::with_seeds(cluster, &seeds);
    let route = eventually(PATIENCE, || async {
        let output = both.run(&["route", "orders", "--json"], "").await;
        let route: Value = serde_json::from_slice(&output.stdout).ok()?;
        let answered = route["name_servers"].as_array()?.iter();
        let all = answered.filter(|one| one["error"].is_null()).count() == 2;
        all.then_some((output.status.code(), route))
    });
    let (code, route) = route.await.expect("both name servers answer");
    assert_eq!(code, Some(6));
    let differences = route["differences"].as_array().unwrap();
    let words = differences[0].as_str().unwrap();
    assert!(
        words.contains(&format!("{address} believes nothing")),
        "{words}"
    );
    assert_eq!(
        symptoms(&both).await,
        ["a broker without a route", "name servers disagree"]
    );
    // Nobody is ill where nobody is, and it is no health either.
    let alone = Terminal::with_seeds(cluster, &address);
    for probe in ["health", "status"] {
        let words = alone.complaint(6, &["cluster", probe]).await;
        assert!(words.contains("has registered"), "{words}");
    }
    lonely.kill().unwrap();
    lonely.wait().unwrap();
    let words = both.complaint(6, &["route"]).await;
    assert!(words.contains("does not answer"), "{words}");
}

async fn a_stopped_brokers_log(cluster: &mut Cluster, terminal: &Terminal) {
    let id = 4;
    let directory = cluster.plan().broker_directory(id);
    let inspect = ["log", "inspect", directory.to_str().unwrap()];
    let words = terminal.complaint(1, &inspect).await;
    assert!(words.contains("is in use"), "{words}");
    cluster.kill(id).await;
    let report = terminal.json(&inspect).await;
    assert_eq!(
        (&report["broker_id"], &report["group"]),
        (&id.into(), &"test".into())
    );
    let segment = &report["segments"][0];
    assert_eq!(report["last"], segment["last"]);
    assert!(segment["records"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["damage"], Value::Array(Vec::new()));
    let entries = [&inspect[..], &["--entries"]].concat();
    let text = terminal.expect(0, &entries, "").await;
    assert!(
        text.contains("topic orders with 2 queues") && text.contains("membership"),
        "{text}"
    );

    let path = segment["path"].as_str().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let middle = usize::try_from(segment["bytes"].as_u64().unwrap()).unwrap() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let text = terminal.expect(6, &inspect, "").await;
    assert!(text.contains("damaged"), "{text}");
    let empty = cluster.directory().join("empty");
    std::fs::create_dir(&empty).unwrap();
    terminal
        .expect(4, &["log", "inspect", empty.to_str().unwrap()], "")
        .await;
    assert_eq!(
        std::fs::read_dir(empty).unwrap().count(),
        0,
        "looking made something"
    );
}

async fn contexts(cluster: &Cluster, terminal: &Terminal) {
    let seeds = cluster.plan().name_server_address();
    let elsewhere = Terminal::with_seeds(cluster, "127.0.0.1:1");
    let add = ["context", "add", "here", "--seeds", &seeds];
    elsewhere.expect(0, &add, "").await;
    let list = elsewhere.json(&["context", "list"]).await;
    assert_eq!(list[0]["name"], "here");
    assert_eq!(list[0]["current"], true);
    let status = elsewhere
        .json(&["cluster", "status", "--context", "here"])
        .await;
    assert_eq!(status.as_array().unwrap().len(), 3);
    elsewhere
        .expect(4, &["cluster", "status", "--context", "there"], "")
        .await;
    elsewhere
        .expect(
            2,
            &["cluster", "status", "--context", "here", "--seeds", "a:1"],
            "",
        )
        .await;
    elsewhere
        .expect(0, &["context", "remove", "here"], "")
        .await;
    assert_eq!(
        terminal.json(&["context", "list"]).await,
        Value::Array(Vec::new())
    );
}

async fn topics(terminal: &Terminal) {
    let create = [
        "topic",
        "create",
        "orders",
        "--queues",
        "2",
        "--attribute",
        "team=sales",
    ];
    terminal.expect(0, &create, "").await;
    let alter = [
        "topic",
        "alter",
        "orders",
        "--queues",
        "3",
        "--attribute",
        "tier=1",
    ];
    terminal.expect(0, &alter, "").await;
    let topic = terminal.json(&["topic", "describe", "orders"]).await;
    assert_eq!(topic["queues"].as_array().unwrap().len(), 3);
    assert_eq!(
        topic["attributes"]["team"], "sales",
        "what was not named has changed"
    );
    assert_eq!(topic["attributes"]["tier"], "1");
    terminal
        .expect(1, &["topic", "alter", "orders", "--queues", "1"], "")
        .await;
    terminal
        .expect(4, &["topic", "alter", "nothing", "--queues", "1"], "")
        .await;
    terminal
        .expect(4, &["topic", "delete", "nothing"], "")
        .await;
    a_part_of_a_topic(terminal).await;
}

/// Queues whose numbers begin where another broker group's end.
async fn a_part_of_a_topic(terminal: &Terminal) {
    let create = ["topic", "create", "part", "--queues", "2"];
    let words = [&create[..], &["--first-queue", "100"]].concat();
    terminal.expect(0, &words, "").await;
    let numbers = async || {
        let topic = terminal.json(&["topic", "describe", "part"]).await;
        let queues = topic["queues"].as_array().unwrap().iter();
        queues
            .map(|queue| queue["queue"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers().await, [100, 101]);
    let alter = ["topic", "alter", "part", "--queues", "3"];
    terminal.expect(0, &alter, "").await;
    assert_eq!(numbers().await, [100, 101, 102]);
    for first in ["queues.first=", "queues.first=7"] {
        let words = ["topic", "alter", "part", "--attribute", first];
        let words = terminal.complaint(1, &words).await;
        assert!(words.contains("cannot change"), "{words}");
    }
    let sent = terminal
        .expect(0, &["produce", "part", "--json"], "a\nb\nc\n")
        .await;
    assert_eq!(sent.lines().count(), 3);
    let looked = [
        "consume", "part", "--from", "earliest", "--count", "3", "--json",
    ];
    let read = terminal.expect(0, &looked, "").await;
    for line in sent.lines().chain(read.lines()) {
        let message: Value = serde_json::from_str(line).unwrap();
        assert!(message["queue"].as_u64().unwrap() >= 100, "{line}");
    }
    let deleted = terminal.json(&["topic", "delete", "part"]).await;
    assert_eq!(deleted["broker_groups"], serde_json::json!(["test"]));
}

async fn messages(terminal: &Terminal) {
    let produce = [
        "produce",
        "orders",
        "--tag",
        "new",
        "--keys",
        "k7,k8",
        "--message-group",
        "customer-1",
        "--property",
        "region=north",
        "--json",
    ];
    let receipts = terminal.expect(0, &produce, "one\ntwo\nthree\n").await;
    let receipts: Vec<Value> = receipts
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(receipts.len(), 3);
    let second = &receipts[1];
    let (queue, offset) = (second["queue"].to_string(), second["offset"].to_string());
    let get = ["message", "get", "orders"];
    let place = [&get[..], &["--queue", &queue, "--offset", &offset]].concat();
    let found = terminal.json(&place).await;
    assert_eq!(
        (&found["body"], &found["tag"]),
        (&"two".into(), &"new".into())
    );
    assert_eq!(found["properties"]["region"], "north");
    assert_eq!(found["message_id"], second["message_id"]);

    let id = second["message_id"].as_str().unwrap();
    let by_id = terminal.json(&[&get[..], &["--id", id]].concat()).await;
    assert_eq!(by_id["offset"], second["offset"]);
    let by_key = [&get[..], &["--key", "k8", "--json"]].concat();
    let by_key = terminal.expect(0, &by_key, "").await;
    assert_eq!(by_key.lines().count(), 3, "{by_key}");
    let stored = receipts[0]["offset"].as_u64().unwrap();
    let first = [&get[..], &["--time", "1h", "--max", "1"]].concat();
    assert_eq!(terminal.json(&first).await["offset"], stored);
    let nothing = [&get[..], &["--key", "k9"]].concat();
    let words = terminal.complaint(4, &nothing).await;
    assert!(
        words.contains("looked at 3 messages of 3 queues"),
        "{words}"
    );
    let few = [&get[..], &["--key", "k9", "--scan-max", "2"]].concat();
    let words = terminal.complaint(4, &few).await;
    assert!(words.contains("--scan-max ended the search"), "{words}");
    terminal
        .expect(
            4,
            &[&get[..], &["--queue", &queue, "--offset", "999"]].concat(),
            "",
        )
        .await;
    terminal
        .expect(
            4,
            &[&get[..], &["--queue", "7", "--offset", "0"]].concat(),
            "",
        )
        .await;
}

async fn whole_messages_and_looking(terminal: &Terminal) {
    let get = ["message", "get", "orders"];
    let whole = ["produce", "orders", "--whole", "--json"];
    let receipt = terminal
        .expect(0, &whole, "first line\n\nthird line\n")
        .await;
    let receipt: Value = serde_json::from_str(&receipt).unwrap();
    let (at, offset) = (receipt["queue"].to_string(), receipt["offset"].to_string());
    let place = [&get[..], &["--queue", &at, "--offset", &offset]].concat();
    assert_eq!(
        terminal.json(&place).await["body"],
        "first line\n\nthird line\n"
    );

    // Looking needs no group, and leaves none behind.
    let text = terminal
        .expect(0, &["consume", "orders", "--json"], "")
        .await;
    assert_eq!(text.lines().count(), 4, "{text}");
    let tagged = terminal
        .expect(0, &["consume", "orders", "--tag", "new", "--max", "2"], "")
        .await;
    assert_eq!(tagged.lines().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(
        terminal.json(&["consumer-group", "list"]).await,
        Value::Array(Vec::new())
    );
}

async fn settings_of_consumer_groups(terminal: &Terminal) {
    let settings = async || {
        let describe = ["consumer-group", "describe", "slow"];
        let group = terminal.json(&describe).await;
        (group["max_attempts"].clone(), group["attributes"].clone())
    };
    let create = ["consumer-group", "create", "slow", "--max-attempts", "3"];
    terminal.expect(0, &create, "").await;
    terminal.expect(1, &create, "").await;
    let again = [&create[..3], &["--if-absent"][..]].concat();
    terminal.expect(0, &again, "").await;
    assert_eq!(settings().await, (3.into(), serde_json::json!({})));
    let alter = [
        "consumer-group",
        "alter",
        "slow",
        "--retry-backoff",
        "1s,5m",
    ];
    terminal.expect(0, &alter, "").await;
    let waits = serde_json::json!({ "retry.backoff": "1s,5m" });
    assert_eq!(settings().await, (3.into(), waits.clone()));
    let attempts = ["consumer-group", "alter", "slow", "--max-attempts", "4"];
    terminal.expect(0, &attempts, "").await;
    assert_eq!(settings().await, (4.into(), waits));
    let nonsense = ["consumer-group", "alter", "slow", "--retry-backoff", "soon"];
    let words = terminal.complaint(1, &nonsense).await;
    assert!(words.contains("retry.backoff"), "{words}");
    let missing = ["consumer-group", "alter", "none", "--max-attempts", "4"];
    terminal.expect(4, &missing, "").await;
    let delete = ["consumer-group", "delete", "slow"];
    terminal.expect(0, &delete, "").await;
}

const RESET: [&str; 3] = ["consumer-group", "reset-offset", "billing"];

async fn living_members(terminal: &Terminal) {
    let mut consumer = terminal
        .command(&[
            "consume", "orders", "--group", "billing", "--from", "earliest", "--follow",
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let describe = ["consumer-group", "describe", "billing", "--json"];
    let group = eventually(PATIENCE, || async {
        let output = terminal.run(&describe, "").await;
        let group: Value = serde_json::from_slice(&output.stdout).ok()?;
        let queues = group["queues"].as_array()?;
        let owned = queues
            .iter()
            .filter(|queue| !queue["owner"].is_null())
            .count();
        let lag: u64 = queues
            .iter()
            .filter_map(|queue| queue["lag"].as_u64())
            .sum();
        (owned == 3 && lag == 0 && queues.iter().any(|queue| !queue["committed"].is_null()))
            .then_some(group)
    })
    .await
    .expect("the consumer owns all queues and has read everything");
    let member = &group["members"][0];
    assert_eq!(
        group["queues"][0]["owner"]["client_id"],
        member["client_id"]
    );
    assert_eq!(member["owns"].as_array().unwrap().len(), 3);
    let id = member["client_id"].as_str().unwrap();
    let alive = [&RESET[..], &["--to-begin", "--yes"]].concat();
    let words = terminal.complaint(1, &alive).await;
    assert!(
        words.contains(id) && words.contains("stop them first"),
        "{words}"
    );
    terminal
        .expect(1, &["consumer-group", "delete", "billing"], "")
        .await;

    consumer.kill().unwrap();
    consumer.wait().unwrap();
}

async fn offsets(terminal: &Terminal) {
    let forced = [&RESET[..], &["--to-begin"]].concat();
    let plan = terminal.json(&forced).await;
    assert_eq!(plan["done"], false);
    let again: u64 = plan["queues"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|queue| queue["delivered_again"].as_u64())
        .sum();
    assert_eq!(again, 4, "{plan}");
    let lag = async || {
        terminal
            .json(&["consumer-group", "describe", "billing"])
            .await["lag"]
            .as_u64()
    };
    assert_eq!(lag().await, Some(0), "a dry run changed something");
    // The one that was killed counts as living for half a minute.
    terminal
        .expect(0, &[&forced[..], &["--yes", "--force"]].concat(), "")
        .await;
    assert_eq!(lag().await, Some(4));
    let group = terminal
        .json(&["consumer-group", "describe", "billing"])
        .await;
    assert!(group["lag_ms"].as_u64().unwrap() > 0, "{group}");
    let skip = ["consumer-group", "skip-backlog", "billing"];
    terminal.expect(0, &skip, "").await;
    assert_eq!(lag().await, Some(4), "a dry run changed something");
    terminal
        .expect(0, &[&skip[..], &["--yes", "--force"]].concat(), "")
        .await;
    assert_eq!(lag().await, Some(0));
    let time = [
        &RESET[..],
        &["--to-time", "1h", "--topic", "orders", "--yes", "--force"],
    ]
    .concat();
    terminal.expect(0, &time, "").await;
    assert_eq!(lag().await, Some(4));
    let beyond = [
        &RESET[..],
        &["--to-offset", "1000", "--topic", "orders", "--queue", "0"],
    ]
    .concat();
    let words = terminal.complaint(2, &beyond).await;
    assert!(words.contains("is not between"), "{words}");
    terminal.expect(2, &RESET, "").await;
    terminal
        .expect(0, &["consumer-group", "delete", "billing", "--force"], "")
        .await;
    terminal
        .expect(4, &["consumer-group", "describe", "billing"], "")
        .await;
}

async fn well_while_all_is_well(cluster: &Cluster, terminal: &Terminal) {
    let health = terminal.json(&["cluster", "health", "--wait", "20s"]).await;
    assert_eq!(health["healthy"], true);
    for id in cluster.ids() {
        let address = cluster.plan().client_address(id);
        terminal
            .expect(
                0,
                &["cluster", "health", "--broker", &address, "--wait", "20s"],
                "",
            )
            .await;
    }
    let port = free_ports(1).unwrap()[0];
    let nobody = format!("127.0.0.1:{port}");
    terminal
        .expect(5, &["cluster", "health", "--broker", &nobody], "")
        .await;
    let route = eventually(PATIENCE, || async {
        let output = terminal.run(&["route", "orders", "--json"], "").await;
        let route: Value = serde_json::from_slice(&output.stdout).ok()?;
        output.status.success().then_some(route)
    });
    let route = route.await.expect("the name server knows the topic");
    let topics = &route["name_servers"][0]["groups"][0]["topics"];
    assert_eq!(
        (&topics[0]["name"], &topics[0]["queues"]),
        (&"orders".into(), &3.into())
    );
    terminal.expect(4, &["route", "nothing"], "").await;
    let brokers_only = Terminal::with_seeds(cluster, &cluster.plan().client_address(1));
    let words = brokers_only.complaint(4, &["route"]).await;
    assert!(
        words.contains("none of the seeds is a name server"),
        "{words}"
    );
}

async fn leaders(cluster: &Cluster, terminal: &Terminal) {
    let led = cluster.led().await.broker_id;
    let to = cluster.followers().await[0].to_string();
    let moved = terminal.json(&["group", "transfer-leader", &to]).await;
    assert_eq!(moved["leader"].to_string(), to);
    assert_ne!(cluster.led().await.broker_id, led);
    let group = terminal.json(&["group", "describe"]).await;
    assert_eq!(group["leader"].to_string(), to);
    // What is run before a broker stops: only the leader hands over.
    for (broker, moves) in [(led, false), (cluster.led().await.broker_id, true)] {
        let address = cluster.plan().client_address(broker);
        let words = ["group", "transfer-leader", "--away-from", &address];
        terminal.expect(0, &words, "").await;
        let moved = cluster.led().await.broker_id.to_string() != to;
        assert_eq!(moved, moves, "after {words:?}");
    }
    let back = ["group", "transfer-leader", &to];
    terminal.expect(0, &back, "").await;
    let group = terminal.json(&["group", "describe"]).await;
    let roles = group["replicas"].as_array().unwrap().iter();
    assert_eq!(roles.filter(|one| one["role"] == "voter").count(), 2);
    terminal
        .expect(4, &["group", "transfer-leader", "9"], "")
        .await;
    terminal
        .expect(4, &["group", "describe", "--group", "another"], "")
        .await;
    let groups = terminal.json(&["group", "list"]).await;
    assert_eq!(groups.as_array().unwrap().len(), 1);
}

/// Starts a broker that the group does not know; its peer address.
fn newcomer(cluster: &mut Cluster, id: u64) -> String {
    cluster.give_free_ports(id);
    let settings = toml::to_string(&cluster.plan().broker_settings(id)).unwrap();
    std::fs::write(cluster.plan().config(Member::Broker(id)), settings).unwrap();
    cluster.start_broker(id).unwrap();
    cluster.plan().peer_address(id)
}

async fn voters(terminal: &Terminal) -> Vec<u64> {
    let group = terminal.json(&["group", "describe"]).await;
    let voters = group["voters"].as_array().unwrap().iter();
    voters.map(|id| id.as_u64().unwrap()).collect()
}

/// Waits until the broker at `address` answers: a process needs a moment to open its port.
async fn answers(cluster: &Cluster, id: u64) {
    eventually(PATIENCE, || cluster.status(id))
        .await
        .expect("the newcomer answers");
}

/// What a replica says that starts with an empty disk. For a moment its peers believe that the killed process
/// still lives, and it says that instead.
async fn last_words_of_a_wiped_replica(cluster: &mut Cluster, id: u64) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let directory = cluster.plan().broker_directory(id);
        if directory.exists() {
            std::fs::remove_dir_all(directory).unwrap();
        }
        cluster.start_broker(id).unwrap();
        assert_eq!(cluster.wait_for_end(id).await, Some(1));
        let words = cluster.broker(id).last_words(1);
        if !words.contains("is in use") || Instant::now() > deadline {
            return words;
        }
    }
}

async fn a_wiped_replica_is_replaced_as_its_last_words_say(
    cluster: &mut Cluster,
    terminal: &Terminal,
) {
    let wiped = cluster.followers().await[0];
    cluster.kill(wiped).await;
    let words = last_words_of_a_wiped_replica(cluster, wiped).await;
    let command = words
        .split('`')
        .nth(1)
        .unwrap_or_else(|| panic!("no command in {words}"));
    let address = newcomer(cluster, 4);
    answers(cluster, 4).await;
    let command = command.replace("HOST:PORT", &address);
    let mut typed = command.split(' ');
    assert_eq!(typed.next(), Some("raftmq"));
    let typed: Vec<&str> = typed.collect();
    let done = terminal.json(&typed).await;
    assert_eq!(
        (done["removed"].as_u64(), done["added"].as_u64()),
        (Some(wiped), Some(4))
    );
    let expected: Vec<u64> = (1..=4).filter(|id| *id != wiped).collect();
    assert_eq!(voters(terminal).await, expected);
    terminal
        .expect(0, &["cluster", "health", "--wait", "20s"], "")
        .await;
    terminal.expect(4, &typed, "").await;
    let text = terminal.expect(0, &["consume", "orders"], "").await;
    assert!(text.contains("one\n"), "{text}");
}

async fn replicas_come_and_go(cluster: &mut Cluster, terminal: &Terminal) {
    let address = newcomer(cluster, 5);
    answers(cluster, 5).await;
    terminal
        .expect(0, &["group", "add-replica", &address, "--learner"], "")
        .await;
    let group = terminal.json(&["group", "describe"]).await;
    let roles = group["replicas"].as_array().unwrap().iter();
    assert_eq!(roles.filter(|one| one["role"] == "learner").count(), 1);
    terminal
        .expect(0, &["group", "remove-replica", "5"], "")
        .await;
    assert_eq!(voters(terminal).await.len(), 3);
    terminal
        .expect(4, &["group", "remove-replica", "5"], "")
        .await;

    let address = newcomer(cluster, 6);
    answers(cluster, 6).await;
    terminal
        .expect(0, &["group", "add-replica", &address], "")
        .await;
    assert_eq!(voters(terminal).await.len(), 4);
    terminal
        .expect(1, &["group", "add-replica", &address], "")
        .await;
    // The leader goes: somebody else leads first.
    let leader = terminal.json(&["group", "describe"]).await["leader"].to_string();
    terminal
        .expect(0, &["group", "remove-replica", &leader], "")
        .await;
    assert!(
        !voters(terminal)
            .await
            .iter()
            .any(|id| id.to_string() == leader)
    );
    terminal
        .expect(0, &["produce", "orders", "still here"], "")
        .await;
}
