//! `produce` and `consume` when something goes wrong on the way: a bad line, a signal, a reader that is slow, servers that
//! cannot answer for a while. What they say at the end must be true, and the end must be the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use raftmq_client::BODY_BYTES_MAX;
use rustix::process::{Pid, Signal, kill_process};

use super::cluster::{Cluster, PATIENCE, eventually};
use super::terminal::Terminal;

/// Longer than `consume` ever took silence for the end.
const LONG_SILENCE: Duration = Duration::from_millis(4_500);

/// Lines that do not fit into a pipe together: who writes them waits for who reads them.
fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| format!("{number:0>100}\n")).collect()
}

/// The numbers of the lines, sorted.
fn numbers(text: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn started(terminal: &Terminal, words: &[&str]) -> Child {
    let mut command = terminal.command(words);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    pipes.stderr(Stdio::piped()).spawn().unwrap()
}

async fn output(child: Child) -> Output {
    let waiting = tokio::task::spawn_blocking(|| child.wait_with_output());
    waiting.await.unwrap().unwrap()
}

async fn stored(terminal: &Terminal, topic: &str) -> u64 {
    let topic = terminal.json(&["topic", "describe", topic]).await;
    let queues = topic["queues"].as_array().unwrap().iter();
    queues
        .map(|queue| queue["max_offset"].as_u64().unwrap())
        .sum()
}

/// Catches lines before a bad one that are lost, or stored and not told; an end that does not say where to go on; and one that
/// a signal makes.
#[tokio::test(flavor = "multi_thread")]
async fn what_produce_says_is_stored_is_stored() {
    let cluster = Cluster::start().await;
    let terminal = Terminal::new(&cluster);
    for topic in ["orders", "asked"] {
        terminal.expect(0, &["topic", "create", topic], "").await;
    }
    let file = terminal.home.path().join("orders.txt");
    let too_long = "x".repeat(BODY_BYTES_MAX + 1);
    let text = format!("{}{too_long}\n{}", lines(0..2500), lines(2501..5000));
    std::fs::write(&file, text).unwrap();
    let produce = ["produce", "orders", "--file", file.to_str().unwrap()];
    let words = terminal.complaint(1, &produce).await;
    for part in [
        "line 2501 of ",
        "2500 of 2500 messages that were sent are stored",
        "--from-line 2501 goes on there",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(stored(&terminal, "orders").await, 2500);

    let go_on = [&produce[..], &["--from-line", "2501", "--skip-invalid"]].concat();
    let words = terminal.complaint(0, &go_on).await;
    assert!(
        words.contains("1 lines were left out") && words.contains(": 2501"),
        "{words}"
    );
    let all = terminal.expect(0, &["consume", "orders"], "").await;
    let expected: Vec<u32> = (0..5000).filter(|number| *number != 2500).collect();
    assert!(numbers(&all) == expected, "{} lines", all.lines().count());

    let mut child = started(&terminal, &["produce", "asked"]);
    let input = child.stdin.as_mut().unwrap();
    input.write_all(lines(0..1000).as_bytes()).unwrap();
    input.flush().unwrap();
    let all = eventually(PATIENCE, || async {
        (stored(&terminal, "asked").await == 1000).then_some(())
    });
    all.await.expect("everything that was written is stored");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let input = child.stdin.take();
    let ended = output(child).await;
    drop(input);
    let words = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{words}");
    for part in [
        "stopped by SIGTERM",
        "1000 of 1000 messages",
        "--from-line 1001",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

/// Catches a `consume` that takes a slow reader, or servers that cannot answer for some seconds, for the end of the topic, and
/// says success.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_not_the_end_of_a_topic() {
    const COUNT: u32 = 20_000;
    let mut cluster = Cluster::start().await;
    let terminal = Terminal::new(&cluster);
    let create = ["topic", "create", "orders", "--queues", "2"];
    terminal.expect(0, &create, "").await;
    let all = lines(0..COUNT);
    terminal.expect(0, &["produce", "orders"], &all).await;
    let ways: [&[&str]; 4] = [
        &["consume", "orders"],
        &["consume", "orders", "--group", "slow"],
        &[
            "consume", "orders", "--group", "counted", "--count", "20000",
        ],
        &[
            "consume",
            "orders",
            "--group",
            "idle",
            "--idle-timeout-ms",
            "500",
        ],
    ];
    let mut readers = Vec::new();
    for words in ways {
        let mut child = started(&terminal, words);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let begun = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            out.read_line(&mut text).unwrap();
            (out, text)
        });
        let (out, text) = begun.await.unwrap();
        readers.push((words, child, out, text));
    }
    // All of them wait for their readers, who are as slow as this; then nobody can answer for as long.
    tokio::time::sleep(LONG_SILENCE).await;
    let followers = cluster.followers().await;
    for id in &followers {
        cluster.kill(*id).await;
    }
    let draining: Vec<_> = readers
        .into_iter()
        .map(|(words, child, mut out, mut text)| {
            tokio::task::spawn_blocking(move || {
                out.read_to_string(&mut text).unwrap();
                (words, child.wait_with_output().unwrap(), text)
            })
        })
        .collect();
    tokio::time::sleep(LONG_SILENCE).await;
    for id in followers {
        cluster.start_broker(id).unwrap();
    }
    for drained in draining {
        let (words, ended, text) = drained.await.unwrap();
        let complaint = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{words:?}: {complaint}");
        let mut came = numbers(&text);
        came.dedup();
        assert_eq!(came.len(), COUNT as usize, "{words:?}: {complaint}");
    }
    expect_stopped(&terminal).await;
}

/// Somebody who stops it early is not told that it is through.
async fn expect_stopped(terminal: &Terminal) {
    let mut child = started(terminal, &["consume", "orders"]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let draining = tokio::task::spawn_blocking(move || out.read_to_string(&mut first));
    let ended = output(child).await;
    draining.await.unwrap().unwrap();
    let words = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{words}");
    assert!(words.contains("stopped by SIGINT after"), "{words}");
}
