//! The commands as a person types them: what they print and how they end.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::cluster::{Cluster, program};

/// Someone who types commands: knows where the system is, and has a configuration directory of their own.
pub(crate) struct Terminal {
    pub(crate) seeds: String,
    /// Where operators are served, and the secret, if the person has them.
    administration: Vec<(&'static str, String)>,
    pub(crate) home: TempDir,
}

impl Terminal {
    pub(crate) fn new(cluster: &Cluster) -> Terminal {
        Terminal::with_seeds(cluster, &cluster.plan().name_server_address())
    }

    /// The same with other seeds.
    pub(crate) fn with_seeds(cluster: &Cluster, seeds: &str) -> Terminal {
        let plan = cluster.plan();
        let secret_file = plan.secret_file().display().to_string();
        Terminal {
            administration: vec![
                ("RAFTMQ_ADMIN", plan.admin_addresses().join(",")),
                ("RAFTMQ_SECRET_FILE", secret_file),
            ],
            ..Terminal::at(seeds)
        }
    }

    /// Someone without the secret.
    pub(crate) fn at(seeds: &str) -> Terminal {
        Terminal {
            seeds: seeds.to_owned(),
            administration: Vec::new(),
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// `raftmq words…`, not yet started.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(words)
            .env("RAFTMQ_SEEDS", &self.seeds)
            .envs(self.administration.iter().cloned())
            .env("XDG_CONFIG_HOME", self.home.path());
        command
    }

    /// Runs `raftmq words…` off the async threads.
    pub(crate) async fn run(&self, words: &[&str], input: &str) -> Output {
        let mut command = self.command(words);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            // A command that is wrong ends before it reads.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap()
    }

    /// Runs it, requires this exit code, and returns what it printed.
    pub(crate) async fn expect(&self, code: i32, words: &[&str], input: &str) -> String {
        let output = self.run(words, input).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it with `--json` and reads the one document that it prints.
    pub(crate) async fn json(&self, words: &[&str]) -> Value {
        let text = self.expect(0, &[words, &["--json"]].concat(), "").await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}\n{text}"))
    }

    /// Runs it, requires this exit code, and returns what it said on standard error.
    pub(crate) async fn complaint(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words, "").await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {errors}");
        errors
    }
}
