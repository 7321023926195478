//! One child process: start it, signal it, wait for its end.
//!
//! Signals go by process id only while the child has not been waited for, so that they can never
//! reach another process that was given the same number later.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{ChildStdin, Command};

use crate::files;

/// How often a child's end is looked for while it is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running (or just ended) process of this binary.
pub struct Child {
    name: String,
    log: PathBuf,
    process: tokio::process::Child,
    /// Held open as long as this process lives: its end tells the child that its parent is gone.
    _stdin: Option<ChildStdin>,
}

/// How a child that was asked to end did end.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with success, within the time it was given.
    Clean,
    /// By itself, but not with success.
    Failed(ExitStatus),
    /// It did not end in time and was killed.
    Killed,
}

impl Child {
    /// Starts `program arguments…`; its output and errors are appended to `log`.
    ///
    /// # Errors
    ///
    /// When the log cannot be opened or the process not started.
    pub fn start(
        name: &str,
        program: &Path,
        arguments: &[OsString],
        environment: &[(String, String)],
        log: &Path,
    ) -> io::Result<Child> {
        let output = files::append_to(log)?;
        let errors = output.try_clone()?;
        let mut process = Command::new(program);
        // Variables that were meant for this process would configure every child alike.
        for (key, _) in std::env::vars_os() {
            if key.as_encoded_bytes().starts_with(b"RAFTMQ_") {
                process.env_remove(key);
            }
        }
        let mut process = process
            .args(arguments)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            // Ctrl-C at the terminal reaches only this process, which then ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        // Waiting for a child would close its standard input, which means something here.
        let stdin = process.stdin.take();
        Ok(Child {
            name: name.to_owned(),
            log: log.to_owned(),
            process,
            _stdin: stdin,
        })
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that its output goes to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id, unless it has ended and been noticed.
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// SIGKILL: it does nothing more.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGTERM: it shuts down.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: it stands still, its connections stay open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Waits for its end, at most `patience`.
    pub async fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(patience, self.process.wait())
            .await
            .ok()?
            .ok()
    }

    /// SIGTERM, `patience` to comply, then SIGKILL.
    pub async fn end(&mut self, patience: Duration) -> Ending {
        self.terminate();
        // A stopped process would sleep through its SIGTERM.
        self.resume();
        match self.wait(patience).await {
            Some(status) if status.success() => Ending::Clean,
            Some(status) => Ending::Failed(status),
            None => {
                self.kill();
                // SIGKILL cannot be refused; the wait only collects the process.
                let _ = self.wait(Duration::from_secs(5)).await;
                Ending::Killed
            }
        }
    }

    /// SIGKILL, and wait until the process is gone.
    pub async fn destroy(&mut self) {
        self.kill();
        while self.ended().is_none() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The last lines of its log, for a message about its end.
    pub fn last_words(&self, lines: usize) -> String {
        let text = files::read_text(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // The only error possible is that it has ended meanwhile, which is what `ended` tells.
            let _ = kill_process(pid, signal);
        }
    }
}
