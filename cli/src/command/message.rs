//! `raftmq message get`: a stored message by its place, its id, a key or a time.
//!
//! The brokers keep no index by id or key: those are found by reading on, from a time, for a bounded
//! number of messages. Every such answer says what was looked at, so that "not found" is never more than
//! was seen. Moves no offset and needs no consumer group.

use clap::{ArgGroup, Args, Subcommand};
use host::{Clock, SystemClock};
use indicatif::{ProgressBar, ProgressStyle};
use raftmq_client::{
    Admin, Delivery, MessagePage, MessageQuery, QueueBounds, TopicDescription, TopicQueue,
};

use super::seeds::Seeds;
use super::shown_message;
use crate::failure::Failure;
use crate::moments::{Moment, shown};
use crate::output::Output;
use crate::terminal::{note, say, say_bytes};

/// Messages that a search looks at unless told otherwise.
const SCAN_MAX_DEFAULT: u64 = 1_000_000;
/// Messages asked for at one time.
const PAGE_MESSAGES: u32 = 256;
/// The clock of whoever made an id may be this far from the brokers', milliseconds.
const CLOCK_MARGIN_MS: u64 = 10 * 60 * 1_000;

/// Flags of `raftmq message`.
#[derive(Args, Debug)]
pub(crate) struct MessageArguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    seeds: Seeds,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Print stored messages: one by its place or id, those with a key, those from a time on
    ///
    /// There is no index by id or key. The search reads each queue from --since on (an id of RocketMQ's version 1
    /// holds the second in which it was made: then from ten minutes before) and looks at --scan-max messages at most;
    /// the last line on standard error says how many.
    Get(GetArguments),
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true))]
struct GetArguments {
    topic: String,
    /// Only in this queue
    #[arg(long)]
    queue: Option<u32>,
    /// The message at this offset of --queue
    #[arg(long, group = "what", requires = "queue")]
    offset: Option<u64>,
    /// The message of this id
    #[arg(long, group = "what", value_name = "MESSAGE-ID")]
    id: Option<String>,
    /// Messages that have this key
    #[arg(long, group = "what")]
    key: Option<String>,
    /// Messages stored at or after a time: 2026-01-31T08:00:00Z, milliseconds, or 10m (ago)
    #[arg(long, group = "what", value_name = "TIME", value_parser = Moment::parse)]
    time: Option<Moment>,
    /// With --id or --key: look only at messages stored at or after this time
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    since: Option<Moment>,
    /// Look only at messages stored before this time
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    until: Option<Moment>,
    /// Messages printed at most; with --time the first of all queues together
    #[arg(long, default_value_t = 10)]
    max: u64,
    /// With --id or --key: messages looked at at most
    #[arg(long, value_name = "MESSAGES", default_value_t = SCAN_MAX_DEFAULT)]
    scan_max: u64,
}

/// Prints what is found; exit code 4 if nothing is.
pub(crate) async fn run(arguments: MessageArguments) -> Result<(), Failure> {
    let Verb::Get(asked) = arguments.verb;
    let admin = arguments.seeds.client().await?.admin();
    let mut queues = Vec::new();
    for admin in admin.each_of_topic(&asked.topic).await? {
        let topic = admin.topic(&asked.topic).await?;
        let missing = || Failure::NotFound(format!("topic {} does not exist", asked.topic));
        queues.extend(held(&admin, &topic.ok_or_else(missing)?));
    }
    let queues = only(queues, &asked)?;
    match asked.offset {
        Some(offset) => at_place(&queues[0], offset, arguments.output).await,
        None => {
            let mut search = Search::new(&asked, arguments.output);
            search.run(&queues).await
        }
    }
}

/// A queue, and what was in it when the command began.
struct Held {
    /// Calls to the broker group that has it.
    admin: Admin,
    queue: TopicQueue,
    bounds: QueueBounds,
}

fn held(admin: &Admin, topic: &TopicDescription) -> Vec<Held> {
    let bounds = topic.queues.iter();
    let held = bounds.map(|bounds| Held {
        admin: admin.clone(),
        queue: TopicQueue::new(topic.name.as_str(), bounds.queue),
        bounds: *bounds,
    });
    held.collect()
}

/// Those that are asked for.
fn only(queues: Vec<Held>, asked: &GetArguments) -> Result<Vec<Held>, Failure> {
    let Some(queue) = asked.queue else {
        return Ok(queues);
    };
    let count = queues.len();
    let wanted = queues.into_iter().find(|held| held.queue.queue == queue);
    let wanted = wanted.ok_or_else(|| {
        let topic = &asked.topic;
        Failure::NotFound(format!(
            "topic {topic} has no queue {queue}: it has {count}"
        ))
    })?;
    Ok(vec![wanted])
}

async fn at_place(held: &Held, offset: u64, output: Output) -> Result<(), Failure> {
    let queue = &held.queue;
    let query = MessageQuery {
        offset,
        end_offset: Some(offset.saturating_add(1)),
        messages_max: 1,
        ..MessageQuery::default()
    };
    let page = held.admin.read_messages(queue, &query).await?;
    match page.messages.first() {
        Some(found) if found.offset == offset => {
            print(found, output);
            Ok(())
        }
        _ => Err(Failure::NotFound(format!(
            "queue {queue} has no message at offset {offset}: it has {} to before {}",
            page.min_offset, page.max_offset
        ))),
    }
}

fn print(delivery: &Delivery, output: Output) -> bool {
    if output.json {
        say(shown_message::as_json(delivery))
    } else {
        say(shown_message::heading(delivery)) && say_bytes(delivery.message.body())
    }
}

/// Counts on standard error while it is a terminal; otherwise nothing.
fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {pos} messages looked at, {per_sec}");
    ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// A search through the queues of a topic.
struct Search<'a> {
    asked: &'a GetArguments,
    output: Output,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
    looked_at: u64,
    printed: u64,
    progress: ProgressBar,
    /// Why not everything was looked at.
    cut: Option<String>,
}

impl<'a> Search<'a> {
    fn new(asked: &'a GetArguments, output: Output) -> Search<'a> {
        let now_ms = SystemClock.now_ms();
        let at = |moment: Option<Moment>| moment.map(|moment| moment.at_ms(now_ms));
        let made = asked.id.as_deref().and_then(made_ms);
        let hint = made.map(|made_ms| made_ms.saturating_sub(CLOCK_MARGIN_MS));
        Search {
            asked,
            output,
            since_ms: at(asked.time).or(at(asked.since)).or(hint),
            until_ms: at(asked.until),
            looked_at: 0,
            printed: 0,
            progress: progress(),
            cut: None,
        }
    }

    async fn run(&mut self, queues: &[Held]) -> Result<(), Failure> {
        if self.asked.time.is_some() {
            self.first_of_all(queues).await?;
        } else {
            for queue in queues {
                if !self.through(queue).await? {
                    break;
                }
            }
        }
        self.progress.finish_and_clear();
        let scope = self.scope(queues.len());
        note(format_args!("{} found; {scope}", self.printed));
        match self.printed {
            0 => Err(Failure::NotFound(format!("no such message: {scope}"))),
            _ => Ok(()),
        }
    }

    /// What was looked at, in words.
    fn scope(&self, queues: usize) -> String {
        let since = self.since_ms.map_or("the oldest".to_owned(), shown);
        let until = self.until_ms.map_or("the newest".to_owned(), shown);
        let cut = self
            .cut
            .as_ref()
            .map_or(String::new(), |cut| format!("; {cut}"));
        format!(
            "looked at {} messages of {queues} queues of topic {}, stored from {since} to {until}{cut}",
            self.looked_at, self.asked.topic
        )
    }

    /// The earliest messages of all queues, by time.
    async fn first_of_all(&mut self, queues: &[Held]) -> Result<(), Failure> {
        let most = usize::try_from(self.asked.max).unwrap_or(usize::MAX);
        let mut found: Vec<Delivery> = Vec::new();
        for held in queues {
            let (mut next, end) = self.bounds(held).await?;
            let mut left = self.asked.max;
            while next < end && left > 0 {
                let page = self.page(held, next, Some(end), left).await?;
                if page.next_offset == next {
                    break;
                }
                self.looked_at += page.next_offset.saturating_sub(next);
                self.progress.set_position(self.looked_at);
                left = left.saturating_sub(page.messages.len() as u64);
                next = page.next_offset;
                found.extend(page.messages);
            }
        }
        found.sort_by_key(|one| (one.message.stored_ms(), one.queue, one.offset));
        if found.len() > most {
            self.cut = Some(format!("the first {most} are shown, --max shows more"));
        }
        for one in found.iter().take(most) {
            self.printed += 1;
            if !self.progress.suspend(|| print(one, self.output)) {
                break;
            }
        }
        Ok(())
    }

    /// Reads one queue on; false when there is enough.
    async fn through(&mut self, held: &Held) -> Result<bool, Failure> {
        let (queue, (mut next, end)) = (&held.queue, self.bounds(held).await?);
        while next < end {
            let left = self.asked.scan_max.saturating_sub(self.looked_at);
            if left == 0 {
                self.cut = Some(format!(
                    "--scan-max ended the search at offset {next} of queue {queue}"
                ));
                return Ok(false);
            }
            let stop = end.min(next.saturating_add(left));
            let page = self
                .page(held, next, Some(stop), PAGE_MESSAGES.into())
                .await?;
            if page.next_offset == next {
                break;
            }
            self.looked_at += page.next_offset.saturating_sub(next);
            self.progress.set_position(self.looked_at);
            next = page.next_offset;
            for one in &page.messages {
                self.printed += 1;
                if !self.progress.suspend(|| print(one, self.output)) || self.has_enough() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// An id is one message, stored once, unless its producer sent it again after the dedup window.
    fn has_enough(&mut self) -> bool {
        let most = if self.asked.id.is_some() {
            1
        } else {
            self.asked.max
        };
        let enough = self.printed >= most;
        if enough && self.asked.id.is_none() {
            self.cut = Some("--max ended the search".to_owned());
        }
        enough
    }

    /// Where to begin, and where to end.
    async fn bounds(&self, held: &Held) -> Result<(u64, u64), Failure> {
        let begin = match self.since_ms {
            Some(since_ms) => held.admin.offset_at(&held.queue, since_ms).await?,
            None => 0,
        };
        let end = match self.until_ms {
            Some(until_ms) => held.admin.offset_at(&held.queue, until_ms).await?,
            None => held.bounds.max_offset,
        };
        Ok((begin.max(held.bounds.min_offset), end))
    }

    async fn page(
        &self,
        held: &Held,
        offset: u64,
        end_offset: Option<u64>,
        most: u64,
    ) -> Result<MessagePage, Failure> {
        let query = MessageQuery {
            offset,
            end_offset,
            messages_max: u32::try_from(most)
                .unwrap_or(PAGE_MESSAGES)
                .min(PAGE_MESSAGES),
            message_id: self.asked.id.clone(),
            key: self.asked.key.clone(),
        };
        Ok(held.admin.read_messages(&held.queue, &query).await?)
    }
}

/// When an id of RocketMQ's version 1 was made, milliseconds since the Unix epoch: it holds the seconds
/// since 2021 in the eighth to eleventh byte behind its version.
fn made_ms(id: &str) -> Option<u64> {
    const EPOCH_2021_S: u64 = 1_609_459_200;
    let is_hex = id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if id.len() != 34 || !id.starts_with("01") || !is_hex {
        return None;
    }
    let seconds = u64::from_str_radix(&id[18..26], 16).ok()?;
    Some((EPOCH_2021_S + seconds) * 1_000)
}

#[cfg(test)]
mod tests {
    use model::MessageIdGenerator;

    use super::made_ms;

    /// Catches a search that begins after the message that it is for.
    #[test]
    fn an_id_says_when_it_was_made() {
        let made = 1_700_000_000_000;
        let generator = MessageIdGenerator::new([1; 6], [2; 2], move || made);
        let id = generator.next_id();
        assert_eq!(made_ms(&id), Some(made), "{id}");
        assert_eq!(made_ms("my-own-id"), None);
        assert_eq!(made_ms(&"0".repeat(34)), None);
    }
}
