//! `raftmq consume TOPIC --group G`: prints messages, and commits what was printed.

use std::time::Duration;

use clap::{Args, ValueEnum};
use raftmq_client::{ConsumeFrom, Delivery, Filter, PullConsumer};
use serde_json::json;
use tokio::time::Instant;

use super::seeds::Seeds;
use crate::failure::Failure;
use crate::signals;
use crate::terminal::{note, say, say_bytes};

/// Messages asked for at one time.
const POLL_MESSAGES: usize = 256;
/// Longest single wait, so that a bound that was asked for is noticed in time.
const POLL_WAIT: Duration = Duration::from_millis(500);
/// Silence after which there is taken to be nothing more, unless `--follow` or `--idle-timeout-ms` is given.
const IDLE_TIMEOUT_MS_DEFAULT: u64 = 3000;

/// Flags of `raftmq consume`.
#[derive(Args, Debug)]
pub(crate) struct ConsumeArguments {
    topic: String,
    /// The consumer group; its members share the topic's queues
    #[arg(long)]
    group: String,
    /// Where to start: `committed` continues after what the group has committed, at the oldest message if nothing is
    #[arg(long, value_enum, default_value_t = Start::Committed)]
    from: Start,
    /// Only messages with one of these tags: a, or 'a || b'
    #[arg(long)]
    tag: Option<String>,
    /// Wait for more messages until interrupted
    #[arg(long)]
    follow: bool,
    /// End after this many messages; exit code 3 if there are fewer
    #[arg(long)]
    count: Option<u64>,
    /// End after this long without a message (default 3000, unless --follow)
    #[arg(long)]
    idle_timeout_ms: Option<u64>,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    seeds: Seeds,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq)]
enum Start {
    Earliest,
    Latest,
    Committed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// The body of each message, a line each
    Text,
    /// A JSON object for each message, a line each
    Json,
}

/// Prints messages until a bound is met, the reader goes away, or SIGINT or SIGTERM comes.
pub(crate) async fn run(arguments: ConsumeArguments) -> Result<(), Failure> {
    let client = arguments.seeds.client().await?;
    let start = match arguments.from {
        Start::Latest => ConsumeFrom::Latest,
        Start::Earliest | Start::Committed => ConsumeFrom::Earliest,
    };
    let consumer = client
        .pull_consumer(arguments.group.as_str())
        .consume_from(start)
        .manual_commit()
        .build()?;
    let filter = arguments.tag.clone().map_or(Filter::All, Filter::Tag);
    consumer.subscribe(&arguments.topic, filter).await?;
    let mut reader = Reader {
        arguments: &arguments,
        consumer: &consumer,
        printed: 0,
        moved: Vec::new(),
    };
    let outcome = tokio::select! {
        biased;
        reason = signals::stop_requested() => reason.map(|_| ()),
        outcome = reader.read(&client) => outcome,
    };
    let printed = reader.printed;
    consumer.close().await?;
    outcome?;
    match arguments.count {
        Some(count) if printed < count => Err(Failure::Incomplete(format!(
            "{printed} messages, fewer than {count}"
        ))),
        _ => Ok(()),
    }
}

struct Reader<'a> {
    arguments: &'a ConsumeArguments,
    consumer: &'a PullConsumer,
    printed: u64,
    /// Queues that were moved to where `--from` says.
    moved: Vec<raftmq_client::TopicQueue>,
}

impl Reader<'_> {
    async fn read(&mut self, client: &raftmq_client::Client) -> Result<(), Failure> {
        let follows = self.arguments.follow && self.arguments.idle_timeout_ms.is_none();
        let idle = self
            .arguments
            .idle_timeout_ms
            .unwrap_or(IDLE_TIMEOUT_MS_DEFAULT);
        let idle = Duration::from_millis(idle);
        let mut last = Instant::now();
        loop {
            self.move_queues(client).await?;
            let left = self
                .arguments
                .count
                .map_or(u64::MAX, |count| count - self.printed);
            if left == 0 {
                return Ok(());
            }
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(POLL_MESSAGES);
            let wait = if follows {
                POLL_WAIT
            } else {
                POLL_WAIT.min(idle)
            };
            let deliveries = self.consumer.poll(most, wait).await?;
            if !deliveries.is_empty() {
                last = Instant::now();
            } else if !follows && last.elapsed() >= idle {
                return Ok(());
            }
            for delivery in &deliveries {
                if !print(self.arguments.format, delivery) {
                    note("the reader of the output is gone");
                    return Ok(());
                }
                self.printed += 1;
            }
            if !deliveries.is_empty() {
                self.consumer.commit().await?;
            }
        }
    }

    /// `--from earliest` and `--from latest` hold whatever the group has committed, once for each queue.
    async fn move_queues(&mut self, client: &raftmq_client::Client) -> Result<(), Failure> {
        if self.arguments.from == Start::Committed {
            return Ok(());
        }
        for queue in self.consumer.assignment() {
            if self.moved.contains(&queue) {
                continue;
            }
            let offset = if self.arguments.from == Start::Earliest {
                client.min_offset(&queue).await?
            } else {
                client.max_offset(&queue).await?
            };
            self.consumer.seek(&queue, offset).await?;
            self.moved.push(queue);
        }
        Ok(())
    }
}

fn print(format: Format, delivery: &Delivery) -> bool {
    let message = &delivery.message;
    match format {
        Format::Text => say_bytes(message.body()),
        Format::Json => say(json!({
            "topic": &*delivery.topic,
            "queue": delivery.queue,
            "offset": delivery.offset,
            "message_id": message.message_id(),
            "tag": message.tag(),
            "keys": message.keys(),
            "message_group": message.message_group(),
            "properties": message.properties().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "born_ms": message.born_ms(),
            "stored_ms": message.stored_ms(),
            "body": String::from_utf8_lossy(message.body()),
        })),
    }
}
