//! `raftmq consume TOPIC`: prints messages; as a member of a group it commits what was printed.

mod browse;
mod ending;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use clap::{Args, ValueEnum};
use host::{Clock, SystemClock};
use raftmq_client::{Client, ConsumeFrom, Delivery, Error, Filter, PullConsumer, TopicQueue};
use tokio::time::Instant;

use self::ending::{Ending, Next, Reached, STUCK_AFTER};
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
/// Short, so that who is waiting at a terminal gets queues of other members soon.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a member of a group may be without a queue: others that are gone are missed by then, or have handed over.
const NO_QUEUE_AFTER: Duration = Duration::from_secs(15);

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
    /// with it; ending before that, for whatever reason, is a failure
    #[arg(long)]
    follow: bool,
    /// End after this many messages, or when there are no more
    #[arg(long, conflicts_with = "count")]
    max: Option<u64>,
    /// End after this many messages; exit code 3 if there are fewer, and no more came for 3 seconds
    #[arg(long)]
    count: Option<u64>,
    /// End after this long without a message, counted once all is read that was there at the beginning; not where the
    /// messages ended then
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
    client: &Client,
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
        .heartbeat_interval(HEARTBEAT_INTERVAL)
        .build()?;
    let filter = arguments.tag.clone().map_or(Filter::All, Filter::Tag);
    consumer.subscribe(&arguments.topic, filter).await?;
    let mut reader = Reader {
        client,
        group,
        consumer: &consumer,
        printing: Printing::new(arguments),
        ending: Ending::new(arguments, Instant::now()),
        from: (from != Start::Committed).then_some(start),
        moved: Vec::new(),
        ends: BTreeMap::new(),
        trouble: None,
    };
    let outcome = tokio::select! {
        biased;
        reason = signals::stop_requested() => reader.interrupted(reason?),
        outcome = reader.read() => outcome,
    };
    let printed = reader.printing.printed;
    consumer.close().await?;
    outcome.map(|()| printed)
}

struct Reader<'a> {
    client: &'a Client,
    group: &'a str,
    consumer: &'a PullConsumer,
    printing: Printing,
    ending: Ending,
    /// Where every queue begins, whatever the group has committed.
    from: Option<ConsumeFrom>,
    /// Queues that were moved there.
    moved: Vec<TopicQueue>,
    /// Where each queue ended when it was taken.
    ends: BTreeMap<TopicQueue, u64>,
    /// What went wrong last, and may pass.
    trouble: Option<Error>,
}

impl Reader<'_> {
    async fn read(&mut self) -> Result<(), Failure> {
        let mut without_queue = Instant::now();
        while self.printing.left() > 0 {
            if let Err(error) = self.step().await {
                match error {
                    StepError::Passing(error) => self.trouble = Some(error),
                    StepError::ReaderGone => return Ok(()),
                    StepError::Final(failure) => return Err(self.printing.broken(failure)),
                }
            }
            let now = Instant::now();
            if self.consumer.assignment().is_empty() {
                if now.saturating_duration_since(without_queue) >= NO_QUEUE_AFTER {
                    return Err(self.no_queue().await);
                }
                continue;
            }
            without_queue = now;
            match self.ending.look(self.reached(), now) {
                Next::GoOn => {}
                Next::Done => return Ok(()),
                Next::Stuck => return Err(self.printing.stuck(self.trouble.take())),
            }
        }
        Ok(())
    }

    /// One poll, and what belongs to it.
    async fn step(&mut self) -> Result<(), StepError> {
        self.move_queues().await?;
        self.note_ends().await?;
        let most = self.printing.left().min(POLL_MESSAGES);
        let wait = self.ending.wait_at_most(POLL_WAIT);
        let deliveries = self.consumer.poll(most, wait).await?;
        if !self.printing.print(&deliveries) {
            return Err(StepError::ReaderGone);
        }
        if !deliveries.is_empty() {
            self.trouble = None;
            self.consumer.commit().await?;
        }
        Ok(())
    }

    async fn note_ends(&mut self) -> Result<(), Error> {
        for queue in self.consumer.assignment() {
            if let Entry::Vacant(end) = self.ends.entry(queue) {
                let queue = end.key().clone();
                end.insert(self.client.max_offset(&queue).await?);
            }
        }
        Ok(())
    }

    fn reached(&self) -> Reached {
        let held = self.consumer.assignment();
        let places: Vec<Option<u64>> = held
            .iter()
            .map(|queue| self.consumer.position(queue))
            .collect();
        let is_read = |(queue, place): (&TopicQueue, &Option<u64>)| {
            let end = self.ends.get(queue);
            place.is_some_and(|place| end.is_some_and(|end| place >= *end))
        };
        Reached {
            ends: held.iter().zip(&places).all(is_read),
            printed: self.printing.printed,
            steps: places.iter().flatten().sum(),
        }
    }

    /// Every queue is another member's.
    async fn no_queue(&self) -> Failure {
        let members = self.client.admin().members(self.group).await;
        let members =
            members.map_or_else(|_| String::new(), |ids| format!(" ({})", ids.join(", ")));
        Failure::Operation(format!(
            "this member of consumer group {} has no queue to read: its living members{members} have them all; stop one, \
             or look without --group",
            self.group
        ))
    }

    /// A signal came.
    fn interrupted(&self, signal: &str) -> Result<(), Failure> {
        self.printing.interrupted(&self.ending, signal)
    }

    /// What `--from` says holds whatever the group has committed, once for each queue.
    async fn move_queues(&mut self) -> Result<(), Error> {
        let Some(from) = self.from else {
            return Ok(());
        };
        for queue in self.consumer.assignment() {
            if self.moved.contains(&queue) {
                continue;
            }
            let offset = match from {
                ConsumeFrom::Earliest => self.client.min_offset(&queue).await?,
                ConsumeFrom::Latest => self.client.max_offset(&queue).await?,
                ConsumeFrom::TimeMs(at_ms) => self.client.offset_at(&queue, at_ms).await?,
            };
            self.consumer.seek(&queue, offset).await?;
            self.moved.push(queue);
        }
        Ok(())
    }
}

/// Why one step was not made.
enum StepError {
    /// It may be made later.
    Passing(Error),
    /// Nobody reads the output any more.
    ReaderGone,
    Final(Failure),
}

impl From<Error> for StepError {
    fn from(error: Error) -> StepError {
        match error.is_retriable() {
            true => StepError::Passing(error),
            false => StepError::Final(error.into()),
        }
    }
}

/// Prints and counts.
struct Printing {
    format: Format,
    most: Option<u64>,
    printed: u64,
}

impl Printing {
    fn new(arguments: &ConsumeArguments) -> Printing {
        Printing {
            format: if arguments.output.json {
                Format::Json
            } else {
                arguments.format
            },
            most: arguments.max.or(arguments.count),
            printed: 0,
        }
    }

    /// Messages that may still be printed.
    fn left(&self) -> usize {
        let left = self
            .most
            .map_or(u64::MAX, |most| most.saturating_sub(self.printed));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// False when nobody reads any more. Waits for a slow reader.
    fn print(&mut self, deliveries: &[Delivery]) -> bool {
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

    /// Something went wrong for good.
    fn broken(&self, failure: Failure) -> Failure {
        match self.printed {
            0 => failure,
            printed => failure.after(format_args!("after {printed} messages")),
        }
    }

    /// There is more, and it does not come.
    fn stuck(&self, trouble: Option<Error>) -> Failure {
        let trouble = trouble.map_or_else(String::new, |error| format!(": {error}"));
        Failure::Operation(format!(
            "there are more than the {} messages that were printed, but nothing came for {} s{trouble}",
            self.printed,
            STUCK_AFTER.as_secs()
        ))
    }

    /// A signal came: the usual end for who follows.
    fn interrupted(&self, ending: &Ending, signal: &str) -> Result<(), Failure> {
        match ending.is_bounded() {
            true => Err(Failure::Operation(format!(
                "stopped by {signal} after {} messages, before the end",
                self.printed
            ))),
            false => Ok(()),
        }
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
