//! Looking at a topic without a consumer group: reads every queue, changes nobody's place.

use std::collections::BTreeMap;
use std::time::Duration;

use host::{Clock, SystemClock};
use raftmq_client::{Admin, Client, MessageQuery, TopicQueue};
use tokio::time::Instant;

use super::ending::{Ending, Next, Reached};
use super::{ConsumeArguments, POLL_MESSAGES, Printing, Start, StepError};
use crate::failure::Failure;
use crate::signals;

/// Pause after a round that found nothing.
const ROUND_INTERVAL: Duration = Duration::from_millis(200);

/// Prints what is in the queues; the number of messages printed.
pub(super) async fn run(client: &Client, arguments: &ConsumeArguments) -> Result<u64, Failure> {
    let from = match arguments.from {
        Some(Start::Committed) => {
            let reason = "--from committed needs --group: without a group nothing is committed";
            return Err(Failure::Configuration(reason.to_owned()));
        }
        Some(from) => from,
        None if arguments.follow => Start::Latest,
        None => Start::Earliest,
    };
    let mut places = Vec::new();
    for admin in client.admin().each_of_topic(&arguments.topic).await? {
        for (queue, place) in places_of(&admin, &arguments.topic, from).await? {
            places.push((admin.clone(), queue, place));
        }
    }
    let mut browser = Browser {
        places,
        tags: arguments.tag.as_deref().map(tags),
        printing: Printing::new(arguments),
        ending: Ending::new(arguments, Instant::now()),
    };
    let outcome = tokio::select! {
        biased;
        signal = signals::stop_requested() => browser.printing.interrupted(&browser.ending, signal?),
        outcome = browser.read() => outcome,
    };
    outcome.map(|()| browser.printing.printed)
}

/// Reads one queue after the other.
struct Browser<'a> {
    places: Vec<(Admin, TopicQueue, Place)>,
    tags: Option<Vec<&'a str>>,
    printing: Printing,
    ending: Ending,
}

impl Browser<'_> {
    async fn read(&mut self) -> Result<(), Failure> {
        let mut trouble = None;
        while self.printing.left() > 0 {
            let before = self.reached();
            match self.round().await {
                Ok(()) => {}
                Err(StepError::ReaderGone) => return Ok(()),
                Err(StepError::Passing(error)) => trouble = Some(error),
                Err(StepError::Final(failure)) => return Err(self.printing.broken(failure)),
            }
            let reached = self.reached();
            match self.ending.look(reached, Instant::now()) {
                Next::GoOn => {}
                Next::Done => return Ok(()),
                Next::Stuck => return Err(self.printing.stuck(trouble)),
            }
            match reached == before {
                true => tokio::time::sleep(ROUND_INTERVAL).await,
                false => trouble = None,
            }
        }
        Ok(())
    }

    /// A page of each queue.
    async fn round(&mut self) -> Result<(), StepError> {
        let is_bounded = self.ending.is_bounded();
        for (admin, queue, Place { offset, end }) in &mut self.places {
            if self.printing.left() == 0 {
                return Ok(());
            }
            // What comes while this is printed is for those who follow.
            if is_bounded && offset >= end {
                continue;
            }
            let query = MessageQuery {
                offset: *offset,
                messages_max: u32::try_from(POLL_MESSAGES).unwrap_or(u32::MAX),
                ..MessageQuery::default()
            };
            let page = admin.read_messages(queue, &query).await?;
            *offset = page.next_offset;
            let mut wanted = page.messages;
            if let Some(tags) = &self.tags {
                wanted.retain(|one| tags.contains(&one.message.tag().unwrap_or_default()));
            }
            wanted.truncate(self.printing.left());
            if !self.printing.print(&wanted) {
                return Err(StepError::ReaderGone);
            }
        }
        Ok(())
    }

    fn reached(&self) -> Reached {
        let places = || self.places.iter().map(|(_, _, place)| place);
        Reached {
            ends: places().all(|place| place.offset >= place.end),
            printed: self.printing.printed,
            steps: places().map(|place| place.offset).sum(),
        }
    }
}

/// Where a queue is read from.
struct Place {
    offset: u64,
    /// The offset of the next message, when this began.
    end: u64,
}

async fn places_of(
    admin: &Admin,
    name: &str,
    from: Start,
) -> Result<BTreeMap<TopicQueue, Place>, Failure> {
    let topic = admin.topic(name).await?;
    let topic = topic.ok_or_else(|| Failure::NotFound(format!("topic {name} does not exist")))?;
    let mut places = BTreeMap::new();
    for bounds in &topic.queues {
        let queue = TopicQueue::new(name, bounds.queue);
        let offset = match from {
            Start::Earliest | Start::Committed => bounds.min_offset,
            Start::Latest => bounds.max_offset,
            Start::At(moment) => {
                let at_ms = moment.at_ms(SystemClock.now_ms());
                admin.offset_at(&queue, at_ms).await?
            }
        };
        let end = bounds.max_offset;
        places.insert(queue, Place { offset, end });
    }
    Ok(places)
}

fn tags(expression: &str) -> Vec<&str> {
    let tags = expression.split("||").map(str::trim);
    tags.filter(|tag| !tag.is_empty()).collect()
}
