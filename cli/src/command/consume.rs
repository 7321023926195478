//! `raftmq consume TOPIC`: prints messages; as a member of a group it commits what was printed.

mod browse;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use clap::{Args, ValueEnum};
use host::{Clock, SystemClock};
use raftmq_client::{ConsumeFrom, Delivery, Filter, PullConsumer, TopicQueue};
use tokio::time::Instant;

use super::seeds::Seeds;
use super::shown_message;
use crate::failure::Failure;
use crate::moments::Moment;
use crate::output::Output;
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
    /// The consumer group; its members share the topic's queues, and what was printed is committed. Without a group
    /// messages are only looked at: nobody's place changes
    #[arg(long)]
    group: Option<String>,
    /// Where to start: earliest, latest, a time (2026-01-31T08:00:00Z, milliseconds, or 10m: that long ago), or
    /// committed: after what the group has committed, at the oldest message if nothing is [default: committed
    /// with a group, latest with --follow and no group, else earliest]
    #[arg(long, value_parser = Start::parse)]
    from: Option<Start>,
    /// Only messages with one of these tags: a, or 'a || b'
    #[arg(long)]
    tag: Option<String>,
    /// Wait for more messages until interrupted. Otherwise what is there at the beginning is printed, and not more than comes
    /// with it
    #[arg(long)]
    follow: bool,
    /// End after this many messages, or when there are no more
    #[arg(long, conflicts_with = "count")]
    max: Option<u64>,
    /// End after this many messages; exit code 3 if there are fewer
    #[arg(long)]
    count: Option<u64>,
    /// End after this long without a message, and not where the messages ended at the beginning [default: 3000, unless --follow]
    #[arg(long)]
    idle_timeout_ms: Option<u64>,
    /// How messages are printed; --json is short for --format json
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    seeds: Seeds,
    #[command(flatten)]
    output: Output,
}

impl ConsumeArguments {
    /// Whether to end at what is there at the beginning, because nothing else was asked for.
    fn is_bounded(&self) -> bool {
        !self.follow && self.idle_timeout_ms.is_none() && self.count.is_none()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    Earliest,
    Latest,
    Committed,
    At(Moment),
}

impl Start {
    fn parse(text: &str) -> Result<Start, String> {
        match text {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            "committed" => Ok(Start::Committed),
            time => Moment::parse(time)
                .map(Start::At)
                .map_err(|reason| format!("earliest, latest or committed, or a time: {reason}")),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// The body of each message, a line each
    Text,
    /// A line with place, time, id, tag, keys and properties before each body
    Full,
    /// A JSON object for each message, a line each
    Json,
}

/// Prints messages until a bound is met, the reader goes away, or SIGINT or SIGTERM comes.
pub(crate) async fn run(arguments: ConsumeArguments) -> Result<(), Failure> {
    let client = arguments.seeds.client().await?;
    let printed = match &arguments.group {
        Some(group) => as_member(&client, group, &arguments).await?,
        None => browse::run(&client, &arguments).await?,
    };
    match arguments.count {
        Some(count) if printed < count => Err(Failure::Incomplete(format!(
            "{printed} messages, fewer than {count}"
        ))),
        _ => Ok(()),
    }
}

/// Reads as a member of a group; the number of messages printed.
async fn as_member(
    client: &raftmq_client::Client,
    group: &str,
    arguments: &ConsumeArguments,
) -> Result<u64, Failure> {
    let from = arguments.from.unwrap_or(Start::Committed);
    let start = match from {
        Start::Latest => ConsumeFrom::Latest,
        Start::At(moment) => ConsumeFrom::TimeMs(moment.at_ms(SystemClock.now_ms())),
        Start::Earliest | Start::Committed => ConsumeFrom::Earliest,
    };
    let consumer = client
        .pull_consumer(group)
        .consume_from(start)
        .manual_commit()
        .build()?;
    let filter = arguments.tag.clone().map_or(Filter::All, Filter::Tag);
    consumer.subscribe(&arguments.topic, filter).await?;
    let mut reader = Reader {
        consumer: &consumer,
        printing: Printing::new(arguments),
        from: (from != Start::Committed).then_some(start),
        moved: Vec::new(),
        ends: arguments.is_bounded().then(BTreeMap::new),
    };
    let outcome = tokio::select! {
        biased;
        reason = signals::stop_requested() => reason.map(|_| ()),
        outcome = reader.read(client) => outcome,
    };
    let printed = reader.printing.printed;
    consumer.close().await?;
    outcome.map(|()| printed)
}

struct Reader<'a> {
    consumer: &'a PullConsumer,
    printing: Printing,
    /// Where every queue begins, whatever the group has committed.
    from: Option<ConsumeFrom>,
    /// Queues that were moved there.
    moved: Vec<TopicQueue>,
    /// Where each queue ended when it was taken, if reading ends there.
    ends: Option<BTreeMap<TopicQueue, u64>>,
}

impl Reader<'_> {
    async fn read(&mut self, client: &raftmq_client::Client) -> Result<(), Failure> {
        while !self.printing.is_over() {
            self.move_queues(client).await?;
            self.note_ends(client).await?;
            let most = self.printing.left().min(POLL_MESSAGES);
            let deliveries = self.consumer.poll(most, self.printing.wait()).await?;
            if !self.printing.print(&deliveries) {
                return Ok(());
            }
            if !deliveries.is_empty() {
                self.consumer.commit().await?;
            }
            if self.is_through() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn note_ends(&mut self, client: &raftmq_client::Client) -> Result<(), Failure> {
        let Some(ends) = &mut self.ends else {
            return Ok(());
        };
        for queue in self.consumer.assignment() {
            if let Entry::Vacant(end) = ends.entry(queue) {
                let queue = end.key().clone();
                end.insert(client.max_offset(&queue).await?);
            }
        }
        Ok(())
    }

    /// Whether everything was printed that was there when reading began: what comes meanwhile might have no end.
    fn is_through(&self) -> bool {
        let Some(ends) = &self.ends else {
            return false;
        };
        let held = self.consumer.assignment();
        let is_read = |queue: &TopicQueue| {
            let position = self.consumer.position(queue);
            position.is_some_and(|position| ends.get(queue).is_some_and(|end| position >= *end))
        };
        !held.is_empty() && held.iter().all(is_read)
    }

    /// What `--from` says holds whatever the group has committed, once for each queue.
    async fn move_queues(&mut self, client: &raftmq_client::Client) -> Result<(), Failure> {
        let Some(from) = self.from else {
            return Ok(());
        };
        for queue in self.consumer.assignment() {
            if self.moved.contains(&queue) {
                continue;
            }
            let offset = match from {
                ConsumeFrom::Earliest => client.min_offset(&queue).await?,
                ConsumeFrom::Latest => client.max_offset(&queue).await?,
                ConsumeFrom::TimeMs(at_ms) => client.offset_at(&queue, at_ms).await?,
            };
            self.consumer.seek(&queue, offset).await?;
            self.moved.push(queue);
        }
        Ok(())
    }
}

/// Prints, and knows when to end.
struct Printing {
    format: Format,
    most: Option<u64>,
    /// Longest silence; none when it follows.
    idle: Option<Duration>,
    printed: u64,
    last: Instant,
}

impl Printing {
    fn new(arguments: &ConsumeArguments) -> Printing {
        let idle_ms = match arguments.idle_timeout_ms {
            None if arguments.follow => None,
            asked => Some(asked.unwrap_or(IDLE_TIMEOUT_MS_DEFAULT)),
        };
        Printing {
            format: if arguments.output.json {
                Format::Json
            } else {
                arguments.format
            },
            most: arguments.max.or(arguments.count),
            idle: idle_ms.map(Duration::from_millis),
            printed: 0,
            last: Instant::now(),
        }
    }

    /// Whether enough was printed, or nothing came for too long.
    fn is_over(&self) -> bool {
        self.left() == 0 || self.idle.is_some_and(|idle| self.last.elapsed() >= idle)
    }

    /// Messages that may still be printed.
    fn left(&self) -> usize {
        let left = self
            .most
            .map_or(u64::MAX, |most| most.saturating_sub(self.printed));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// How long to wait for the next messages.
    fn wait(&self) -> Duration {
        self.idle.map_or(POLL_WAIT, |idle| idle.min(POLL_WAIT))
    }

    /// False when nobody reads any more.
    fn print(&mut self, deliveries: &[Delivery]) -> bool {
        if !deliveries.is_empty() {
            self.last = Instant::now();
        }
        for delivery in deliveries {
            let body = delivery.message.body();
            let read = match self.format {
                Format::Text => say_bytes(body),
                Format::Full => say(shown_message::heading(delivery)) && say_bytes(body),
                Format::Json => say(shown_message::as_json(delivery)),
            };
            if !read {
                note("the reader of the output is gone");
                return false;
            }
            self.printed += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a start that is taken for another one.
    #[test]
    fn starts_are_told_apart() {
        assert_eq!(Start::parse("latest"), Ok(Start::Latest));
        assert_eq!(Start::parse("5m"), Ok(Start::At(Moment::AgoMs(300_000))));
        assert!(
            Start::parse("newest")
                .unwrap_err()
                .contains("earliest, latest or committed")
        );
    }
}
