//! Looking at a topic without a consumer group: reads every queue, changes nobody's place.

use std::collections::BTreeMap;
use std::time::Duration;

use host::{Clock, SystemClock};
use raftmq_client::{Admin, Client, MessageQuery, TopicQueue};

use super::{ConsumeArguments, POLL_MESSAGES, Printing, Start};
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
    let mut next = Vec::new();
    for admin in client.admin().each_of_topic(&arguments.topic).await? {
        for (queue, place) in places(&admin, &arguments.topic, from).await? {
            next.push((admin.clone(), queue, place));
        }
    }
    // What comes while this is printed is for those who follow; otherwise there might be no end.
    let is_bounded = !arguments.follow && arguments.idle_timeout_ms.is_none();
    let mut printing = Printing::new(arguments);
    let tags = arguments.tag.as_deref().map(tags);
    let read = async {
        while !printing.is_over() {
            let mut found = false;
            for (admin, queue, Place { offset, end }) in &mut next {
                if is_bounded && offset >= end {
                    continue;
                }
                let query = MessageQuery {
                    offset: *offset,
                    messages_max: u32::try_from(POLL_MESSAGES).unwrap_or(u32::MAX),
                    ..MessageQuery::default()
                };
                let page = admin.read_messages(queue, &query).await?;
                found |= page.next_offset > *offset && !page.messages.is_empty();
                *offset = page.next_offset;
                let mut wanted = page.messages;
                if let Some(tags) = &tags {
                    wanted.retain(|one| {
                        let tag = one.message.tag().unwrap_or_default();
                        tags.contains(&tag)
                    });
                }
                wanted.truncate(printing.left());
                if !printing.print(&wanted) || printing.left() == 0 {
                    return Ok(());
                }
            }
            if !found && is_bounded {
                return Ok(());
            }
            if !found {
                tokio::time::sleep(ROUND_INTERVAL).await;
            }
        }
        Ok(())
    };
    let outcome: Result<(), Failure> = tokio::select! {
        biased;
        reason = signals::stop_requested() => reason.map(|_| ()),
        outcome = read => outcome,
    };
    outcome.map(|()| printing.printed)
}

/// Where a queue is read from.
struct Place {
    offset: u64,
    /// The offset of the next message, when this began.
    end: u64,
}

async fn places(
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
