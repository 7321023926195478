//! Configuration files with mistakes: one clear line that names the key, exit code 2, nothing touched.

use std::process::{Command, Stdio};

use super::cluster::program;

fn refusal(role: &str, text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let output = Command::new(program())
        .args([role, "--config"])
        .arg(&path)
        .current_dir(directory.path())
        .env_remove("RAFTMQ_LISTEN")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        output.status.code(),
        Some(2),
        "{role} with {text:?}: {words}"
    );
    assert_eq!(words.lines().count(), 1, "{role} with {text:?}: {words}");
    let files = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files, 1, "{role} with {text:?} wrote something");
    words
}

/// Catches a mistake that is ignored, found only later, or told so that nobody finds it.
#[test]
fn every_mistake_in_a_brokers_configuration_is_named() {
    let member = |id: u64, port: u16| {
        format!(
            "[[members]]\nbroker_id = {id}\nclient_address = \"127.0.0.1:{port}\"\n\
             peer_address = \"127.0.0.1:{}\"\n",
            port + 1
        )
    };
    let pair = format!("broker_id = 3\n{}{}", member(1, 8000), member(2, 8010));
    let twins = format!("broker_id = 1\n{}{}", member(1, 8000), member(1, 8010));
    let cases: &[(&str, &str)] = &[
        ("segmnt_bytes = 1", "segmnt_bytes"),
        ("segment_bytes = \"large\"", "segment_bytes"),
        ("segment_bytes = -1", "segment_bytes"),
        ("segment_bytes = 1", "segment_bytes"),
        ("broker_id = 0", "broker_id"),
        ("broker_id = 1.5", "broker_id"),
        ("listen = \"nowhere\"", "listen"),
        ("listen = \"127.0.0.1:99999\"", "listen"),
        ("peer_listen = 9081", "peer_listen"),
        ("cluster_id = \"\"", "cluster_id"),
        ("group = \"no blanks\"", "group"),
        ("data_dir = \"\"", "data_dir"),
        ("auto_create_topics = \"yes\"", "auto_create_topics"),
        (
            "election_timeout_ms_min = 1000\nelection_timeout_ms_max = 500",
            "election_timeout_ms_max",
        ),
        ("heartbeat_interval_ms = 5000", "heartbeat_interval_ms"),
        ("name_servers = [\"nowhere\"]", "name_servers"),
        ("members = 3", "members"),
        ("[[members]]\nbroker = 1", "broker"),
        (&pair, "members"),
        (&twins, "members"),
        ("broker_id = 1\nbroker_id = 2", "broker_id"),
        ("broker_id 1", "broker_id"),
        ("[members", "members"),
        ("\u{0}", "line 1"),
    ];
    for (text, key) in cases {
        let words = refusal("broker", text);
        assert!(words.contains(key), "{text:?}: {words}");
        assert!(words.contains("config.toml"), "{text:?}: {words}");
    }
}

/// Catches the same for name servers.
#[test]
fn every_mistake_in_a_name_servers_configuration_is_named() {
    let cases = [
        ("lisen = \"127.0.0.1:1\"", "lisen"),
        ("listen = 9876", "listen"),
        ("listen = \"nowhere\"", "listen"),
        ("peers = [\"nowhere\"]", "peers"),
        ("broker_id = 1", "broker_id"),
    ];
    for (text, key) in cases {
        let words = refusal("nameserver", text);
        assert!(words.contains(key), "{text:?}: {words}");
    }
}

/// Catches a file that is not there reported as a crash.
#[test]
fn a_missing_file_is_named() {
    let output = Command::new(program())
        .args(["broker", "--config", "/no/such.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such.toml"));
}

/// Catches a printed configuration that cannot be read back, and a flag that changes nothing.
#[test]
fn the_printed_configuration_is_complete_and_valid() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, "broker_id = 7\n").unwrap();
    let print = |flags: &[&str]| {
        let output = Command::new(program())
            .args(["broker", "--print-config", "--config"])
            .arg(&path)
            .args(flags)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let first = print(&["--data-dir", "/elsewhere"]);
    assert!(first.contains("broker_id = 7") && first.contains("data_dir = \"/elsewhere\""));
    std::fs::write(&path, &first).unwrap();
    assert_eq!(print(&[]), first);
}

/// Catches a setting that no variable reaches, and a mistake in one that is told without its name.
#[test]
fn variables_and_flags_replace_the_files_keys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, "segment_bytes = 67108864\nbroker_id = 1\n").unwrap();
    let run = |variable: (&str, &str), flags: &[&str]| {
        let mut command = Command::new(program());
        command
            .args(["broker", "--print-config", "--config"])
            .arg(&path);
        let output = command
            .args(flags)
            .env(variable.0, variable.1)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let variable = ("RAFTMQ_SEGMENT_BYTES", "268435456");
    let (code, text) = run(variable, &["--broker-id", "7"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\nsegment_bytes = 268435456\n"), "{text}");
    assert!(text.contains("\nbroker_id = 7\n"), "{text}");
    assert!(text.contains("\n# group = \"broker-a\"\n"), "{text}");
    let (code, text) = run(variable, &["--segment-bytes", "many"]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("--segment-bytes (RAFTMQ_SEGMENT_BYTES)"),
        "{text}"
    );
    let (code, text) = run(("RAFTMQ_BROKER_ID", "0"), &[]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("broker_id") && text.contains("must not be 0"),
        "{text}"
    );
}

/// Catches completion or man pages that leave a command out.
#[test]
fn completion_and_man_pages_know_every_command() {
    let run = |words: &[&str]| {
        let output = Command::new(program()).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completion", shell]);
        assert!(
            script.contains("consumer-group") && script.contains("skip-backlog"),
            "{shell}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man");
    run(&["man", "--out", out.to_str().unwrap()]);
    for name in [
        "raftmq",
        "raftmq-group-replace",
        "raftmq-broker",
        "raftmq-message-get",
    ] {
        let page = std::fs::read_to_string(out.join(format!("{name}.1"))).unwrap();
        assert!(page.contains("SYNOPSIS"), "{name}");
    }
}
