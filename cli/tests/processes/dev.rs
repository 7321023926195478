//! `raftmq dev`: what a newcomer sees, loses and finds again.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cli::process::{Child, Ending, free_ports};

use super::cluster::{PATIENCE, eventually, program};

struct Dev {
    child: Child,
    seeds: String,
}

impl Dev {
    fn start(data: &Path, base_port: Option<u16>, log: &Path, seeds: &str) -> Dev {
        let mut arguments = vec!["dev".into(), "--data".into(), data.into()];
        if let Some(port) = base_port {
            arguments.extend(["--base-port".into(), port.to_string().into()]);
        }
        let child = Child::start("dev", program(), &arguments, &[], log).unwrap();
        Dev {
            child,
            seeds: seeds.to_owned(),
        }
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.child.log()).unwrap()
    }

    async fn wait_for(&self, text: &str) {
        let found = eventually(PATIENCE, || async {
            self.output().contains(text).then_some(())
        });
        assert!(found.await.is_some(), "no {text:?} in:\n{}", self.output());
    }

    async fn raftmq(&self, words: &[&str]) -> String {
        let mut command = Command::new(program());
        command
            .args(words)
            .env("RAFTMQ_SEEDS", &self.seeds)
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The process id printed for a broker.
    fn pid(&self, broker: &str) -> i32 {
        let output = self.output();
        let line = output
            .lines()
            .find(|line| line.trim_start().starts_with(broker))
            .unwrap();
        let after = line.split("pid ").nth(1).unwrap();
        after.split_whitespace().next().unwrap().parse().unwrap()
    }

    async fn interrupt(mut self) {
        let pid = rustix::process::Pid::from_raw(self.child.pid().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let status = self.child.wait(Duration::from_secs(30)).await;
        assert!(
            status.is_some_and(|status| status.success()),
            "{}",
            self.output()
        );
    }
}

/// Catches a newcomer's first ten minutes going wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_newcomers_system_survives_a_kill_and_finds_its_data_again() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let base = free_ports(10).unwrap();
    let base = base[0];
    let seeds = format!("127.0.0.1:{base}");
    let dev = Dev::start(
        &data,
        Some(base),
        &directory.path().join("first.log"),
        &seeds,
    );
    dev.wait_for("Ctrl-C stops everything").await;
    for line in ["topic create", "produce", "consume", "leads"] {
        assert!(
            dev.output().contains(line),
            "no {line:?} in:\n{}",
            dev.output()
        );
    }
    // Auto-creation is on.
    dev.raftmq(&["produce", "greetings", "hello"]).await;

    let pid = rustix::process::Pid::from_raw(dev.pid("broker 2")).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    dev.wait_for("broker 2 ended").await;
    dev.wait_for("broker 2 runs again").await;
    // In TLS, by the certificate of its own making.
    let certificate = data.join("tls/certificate.pem");
    let certificate = certificate.to_str().unwrap();
    dev.raftmq(&["produce", "greetings", "again", "--tls-ca", certificate])
        .await;
    dev.interrupt().await;

    let dev = Dev::start(&data, None, &directory.path().join("second.log"), &seeds);
    dev.wait_for("Ctrl-C stops everything").await;
    let consume = ["consume", "greetings", "--group", "readers", "--count", "2"];
    let text = dev.raftmq(&consume).await;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["again", "hello"]);
    dev.interrupt().await;
}

/// Catches servers that stay behind, holding their ports, when their parent is killed.
#[tokio::test(flavor = "multi_thread")]
async fn children_end_with_a_parent_that_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let base = free_ports(10).unwrap()[0];
    let seeds = format!("127.0.0.1:{base}");
    let mut dev = Dev::start(&data, Some(base), &directory.path().join("dev.log"), &seeds);
    dev.wait_for("Ctrl-C stops everything").await;
    let pid = dev.pid("broker 1");
    dev.child.kill();
    assert!(matches!(dev.child.end(PATIENCE).await, Ending::Failed(_)));
    let gone = eventually(PATIENCE, || async {
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    assert!(gone.await.is_some(), "broker 1 runs on without its parent");
}
