//! `raftmq produce TOPIC`: one message for each argument, or for each line of a file or of standard input.
//!
//! Ends with success only when every message is on the disks of a majority.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use raftmq_client::{BODY_BYTES_MAX, Message, SendHandle};
use serde_json::json;
use tokio::sync::mpsc;

use super::seeds::Seeds;
use crate::failure::Failure;
use crate::files;
use crate::output::Output;
use crate::terminal::{note, say};

/// Lines read ahead of the producer.
const LINES_AHEAD_MAX: usize = 1024;
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

/// Sends everything and waits until it is stored.
pub(crate) async fn run(arguments: ProduceArguments) -> Result<(), Failure> {
    let producer = arguments.seeds.client().await?.producer().build()?;
    let mut lines = source(&arguments)?;
    let (handles, settled) = mpsc::channel(HANDLES_MAX);
    let settling = tokio::spawn(settle(settled, arguments.output));
    let mut empty = 0_u64;
    let mut trouble = None;
    while let Some(line) = lines.recv().await {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                trouble = Some(Failure::during("reading the messages", error));
                break;
            }
        };
        if line.is_empty() {
            empty += 1;
            continue;
        }
        let handle = producer.send_async(message(&arguments, line)?).await?;
        if handles.send(handle).await.is_err() {
            // A message was refused: what follows is not sent; the reason comes from `settling`.
            break;
        }
    }
    drop(handles);
    let stored = settling
        .await
        .map_err(|error| Failure::during("waiting for receipts", error))?;
    producer.close().await?;
    if empty > 0 {
        note(format_args!(
            "{empty} empty lines were left out: a message has a body"
        ));
    }
    let stored = stored?;
    note(format_args!("{stored} messages stored"));
    trouble.map_or(Ok(()), Err)
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

/// Waits for each receipt in order; the number of messages stored.
async fn settle(mut settled: mpsc::Receiver<SendHandle>, output: Output) -> Result<u64, Failure> {
    let mut stored = 0;
    let progress = progress();
    while let Some(handle) = settled.recv().await {
        let receipt = handle.await.map_err(|error| {
            Failure::from(error).after(format_args!("after {stored} messages were stored"))
        })?;
        stored += 1;
        progress.inc(1);
        if output.json {
            say(json!({
                "message_id": receipt.message_id,
                "topic": &*receipt.topic,
                "queue": receipt.queue,
                "offset": receipt.offset,
            }));
        }
    }
    progress.finish_and_clear();
    Ok(stored)
}

/// Counts on standard error while it is a terminal; otherwise nothing.
fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {pos} messages stored, {per_sec}");
    ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

type Lines = mpsc::Receiver<std::io::Result<Vec<u8>>>;

fn source(arguments: &ProduceArguments) -> Result<Lines, Failure> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD_MAX);
    if !arguments.messages.is_empty() {
        let messages = arguments.messages.clone();
        tokio::spawn(async move {
            for message in messages {
                if sender.send(Ok(message.into_bytes())).await.is_err() {
                    return;
                }
            }
        });
        return Ok(receiver);
    }
    let input: Box<dyn std::io::Read + Send> = match &arguments.file {
        Some(path) => {
            let file = files::open(path);
            Box::new(file.map_err(|error| Failure::during(path.display(), error))?)
        }
        None => Box::new(std::io::stdin()),
    };
    let whole = arguments.whole;
    // Standard input blocks: it is read off the async threads.
    tokio::task::spawn_blocking(move || {
        if whole {
            let mut input = input.take(BODY_BYTES_MAX as u64 + 1);
            let mut body = Vec::new();
            let read = input.read_to_end(&mut body).map(|_| body);
            // Whoever waited for it has given up: nobody is left to tell.
            let _ = sender.blocking_send(read);
            return;
        }
        for line in BufReader::new(input).split(b'\n') {
            let line = line.map(|mut line| {
                line.pop_if(|last| *last == b'\r');
                line
            });
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
