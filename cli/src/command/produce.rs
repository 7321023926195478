//! `raftmq produce TOPIC`: one message for each argument, or for each line of a file or of standard input.
//!
//! Ends with success only when every message is on the disks of a majority. However else it ends, what was sent is waited
//! for, counted and told, with the number of the line at which to go on: must never leave somebody guessing what is stored.

mod account;
mod lines;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use clap::Args;
use host::shutdown::{Shutdown, ShutdownTrigger};
use indicatif::{ProgressBar, ProgressStyle};
use raftmq_client::{BODY_BYTES_MAX, Code, Error, Message, Producer, SendHandle};
use serde_json::json;
use tokio::sync::mpsc;

use self::account::{Account, Stop};
use self::lines::{Body, Lines};
use super::seeds::Seeds;
use crate::failure::Failure;
use crate::output::Output;
use crate::signals;
use crate::terminal::{note, say};

/// Handles whose receipts have not been looked at.
const HANDLES_MAX: usize = 8192;

/// Flags of `raftmq produce`.
#[derive(Args, Debug)]
pub(crate) struct ProduceArguments {
    topic: String,
    /// Messages to send; without any, each line of standard input is one
    messages: Vec<String>,
    /// Send each line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "messages")]
    file: Option<PathBuf>,
    /// The whole file, or all of standard input, is one message
    #[arg(long, conflicts_with = "messages")]
    whole: bool,
    /// Begin at this line, counted from 1: where a run that ended early says that it may go on
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["messages", "whole"],
          value_parser = clap::value_parser!(u64).range(1..))]
    from_line: Option<u64>,
    /// Leave lines out that are too long for a message, and say which; otherwise the first one ends the run
    #[arg(long)]
    skip_invalid: bool,
    /// The tag of each message
    #[arg(long)]
    tag: Option<String>,
    /// The keys of each message, separated by commas
    #[arg(long, value_delimiter = ',')]
    keys: Vec<String>,
    /// Messages of one message group keep their order
    #[arg(long)]
    message_group: Option<String>,
    /// A property of each message, KEY=VALUE; may be given again
    #[arg(long = "property", value_name = "KEY=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
    #[command(flatten)]
    seeds: Seeds,
    #[command(flatten)]
    output: Output,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

type SharedAccount = Arc<Mutex<Account>>;

/// Sends everything and waits until it is stored.
pub(crate) async fn run(arguments: ProduceArguments) -> Result<(), Failure> {
    // What is wrong with every message is wrong before the first one is sent.
    message(&arguments, b"x".to_vec())?;
    let producer = arguments.seeds.client().await?.producer().build()?;
    let lines = lines::open(&arguments)?;
    let account = SharedAccount::default();
    let (failing, failed) = Shutdown::new();
    let (handles, settled) = mpsc::channel(HANDLES_MAX);
    let settling = Settling {
        account: SharedAccount::clone(&account),
        failing,
        skip_invalid: arguments.skip_invalid,
        output: arguments.output,
    };
    let settling = tokio::spawn(settling.run(settled));
    let sending = Sending {
        arguments: &arguments,
        producer: &producer,
        account: &account,
        failed,
    };
    let stop = sending.run(lines, handles).await?;
    tokio::select! {
        biased;
        settled = settling => settled.map_err(|error| Failure::during("waiting for receipts", error))?,
        // Who asks a second time does not want to wait.
        asked = signals::stop_requested(), if matches!(stop, Stop::Asked(_)) => drop(asked?),
    }
    let closed = match stop {
        Stop::Asked(_) => Ok(()),
        _ => producer.close().await,
    };
    let account = lock(&account);
    for line in account.told() {
        note(line);
    }
    account.outcome(stop, &arguments.source())?;
    Ok(closed?)
}

impl ProduceArguments {
    /// Where the messages come from, and what one of them is called there.
    fn source(&self) -> account::Source {
        let (unit, name) = match &self.file {
            _ if !self.messages.is_empty() => ("message", None),
            Some(path) => ("line", Some(path.display().to_string())),
            None => ("line", None),
        };
        account::Source { unit, name }
    }
}

/// The way of lines to the producer.
struct Sending<'a> {
    arguments: &'a ProduceArguments,
    producer: &'a Producer,
    account: &'a SharedAccount,
    /// A message was refused: what follows is not sent.
    failed: Shutdown,
}

impl Sending<'_> {
    /// Sends until the lines end or there is a reason to stop; which.
    async fn run(
        &self,
        mut lines: Lines,
        handles: mpsc::Sender<(u64, SendHandle)>,
    ) -> Result<Stop, Failure> {
        let mut asked = std::pin::pin!(signals::stop_requested());
        loop {
            let line = tokio::select! {
                biased;
                signal = &mut asked => return Ok(Stop::Asked(signal?)),
                () = self.failed.wait() => return Ok(Stop::Failed),
                line = lines.recv() => line,
            };
            let line = match line {
                None => return Ok(Stop::AtEnd),
                Some(Err(error)) => return Ok(Stop::Unreadable(error.to_string())),
                Some(Ok(line)) => line,
            };
            let number = line.number;
            let body = match line.body {
                Body::Empty => {
                    lock(self.account).empty();
                    continue;
                }
                Body::TooLong if self.arguments.skip_invalid => {
                    lock(self.account).left_out(number);
                    continue;
                }
                Body::TooLong => return Ok(Stop::Invalid { number }),
                Body::Whole(body) => body,
            };
            let message = message(self.arguments, body)?;
            lock(self.account).sent(number);
            match self.producer.send_async(message).await {
                Ok(handle) => {
                    if handles.send((number, handle)).await.is_err() {
                        return Ok(Stop::Failed);
                    }
                }
                Err(error) => {
                    lock(self.account).failed(number, error);
                    return Ok(Stop::Failed);
                }
            }
        }
    }
}

/// Waits for receipts, in the order of the lines.
struct Settling {
    account: SharedAccount,
    failing: ShutdownTrigger,
    skip_invalid: bool,
    output: Output,
}

impl Settling {
    async fn run(self, mut settled: mpsc::Receiver<(u64, SendHandle)>) {
        let progress = progress();
        while let Some((number, handle)) = settled.recv().await {
            match handle.await {
                Ok(receipt) => {
                    lock(&self.account).stored(number);
                    progress.inc(1);
                    if self.output.json {
                        say(json!({
                            "line": number,
                            "message_id": receipt.message_id,
                            "topic": &*receipt.topic,
                            "queue": receipt.queue,
                            "offset": receipt.offset,
                        }));
                    }
                }
                Err(error) if self.skip_invalid && is_too_long(&error) => {
                    lock(&self.account).refused_as_too_long(number);
                }
                Err(error) => {
                    lock(&self.account).failed(number, error);
                    self.failing.shut_down();
                }
            }
        }
        progress.finish_and_clear();
    }
}

/// Brokers may be configured to take less than the client does.
fn is_too_long(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(Code::MessageBodyTooLarge | Code::PayloadTooLarge)
    )
}

fn lock(account: &SharedAccount) -> MutexGuard<'_, Account> {
    account
        .lock()
        .expect("nothing panics while the account is locked")
}

fn message(arguments: &ProduceArguments, line: Vec<u8>) -> Result<Message, Failure> {
    let mut builder = Message::builder(arguments.topic.as_str())
        .body(line)
        .keys(arguments.keys.iter().cloned())
        .properties(arguments.properties.iter().cloned());
    if let Some(tag) = &arguments.tag {
        builder = builder.tag(tag);
    }
    if let Some(group) = &arguments.message_group {
        builder = builder.message_group(group);
    }
    builder.build().map_err(Failure::from)
}

/// Counts on standard error while it is a terminal; otherwise nothing.
fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {pos} messages stored, {per_sec}");
    ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
