//! What the doctor asks the cluster. Reads only: no topic, group or offset is made or moved.

use std::collections::BTreeMap;
use std::time::Duration;

use raftmq_client::{Admin, GroupState, MessageQuery, TopicDescription, TopicQueue};
use tokio::time::Instant;

use crate::command::route::Answer;
use crate::failure::Failure;
use crate::survey::{GroupSurvey, survey};
use crate::terminal::note;

/// Newest messages of each queue in which ids are looked for that are stored twice.
const NEWEST_MESSAGES: u64 = 500;
/// Queues that are read for that, over all topics.
const QUEUES_MAX: usize = 256;
/// Longest wait for one group's answer: a doctor does not wait for the dead.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A consumer group, looked at twice.
pub(super) struct Watched {
    pub(super) before: GroupState,
    pub(super) after: GroupState,
}

/// Everything that the checks look at.
pub(super) struct Facts {
    /// The topic that was asked for.
    pub(super) topic: Option<String>,
    pub(super) groups: Vec<GroupSurvey>,
    /// How long the leader of each broker group took to prove that it leads, milliseconds; or why it did not.
    pub(super) proofs: BTreeMap<String, Result<u64, String>>,
    pub(super) name_servers: Vec<Answer>,
    /// The topics of each broker group that has a leader.
    pub(super) topics: BTreeMap<String, Vec<TopicDescription>>,
    pub(super) consumer_groups: Vec<Watched>,
    /// Messages of one id at two places: topic, id, places.
    pub(super) stored_twice: Vec<(String, String, Vec<String>)>,
}

/// Asks everybody, waits, and asks about the consumer groups again.
pub(super) async fn gather(
    admin: &Admin,
    topic: Option<String>,
    watch: Duration,
) -> Result<Facts, Failure> {
    let tables = admin.name_server_tables().await;
    let name_servers = tables
        .into_iter()
        .map(|(address, table)| (address, table.map_err(|error| error.to_string())))
        .collect();
    let mut facts = Facts {
        topic,
        groups: survey(admin).await?,
        proofs: BTreeMap::new(),
        name_servers,
        topics: BTreeMap::new(),
        consumer_groups: Vec::new(),
        stored_twice: Vec::new(),
    };
    let names: Vec<String> = facts
        .groups
        .iter()
        .map(|group| group.name.clone())
        .collect();
    let mut before = Vec::new();
    for name in names {
        let admin = admin
            .clone()
            .broker_group(name.clone())
            .timeout(ASK_TIMEOUT);
        // Answered only after the leader has heard from a majority.
        let begin = Instant::now();
        let topics = admin.list_topics().await.map_err(|error| error.to_string());
        let took_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Ok(topics) = topics.map_err(|reason| facts.proofs.insert(name.clone(), Err(reason)))
        else {
            continue;
        };
        facts.proofs.insert(name.clone(), Ok(took_ms));
        let seen = stored_twice(&admin, &topics, facts.topic.as_deref()).await;
        match seen {
            Ok(seen) => facts.stored_twice.extend(seen),
            Err(error) => note(format_args!(
                "messages of group {name} were not looked at: {error}"
            )),
        }
        facts.topics.insert(name, topics);
        before.extend(
            consumer_groups(&admin)
                .await?
                .into_iter()
                .map(|state| (admin.clone(), state)),
        );
    }
    if !before.is_empty() {
        tokio::time::sleep(watch).await;
    }
    for (admin, before) in before {
        // A group that was deleted meanwhile has no trouble left.
        if let Ok(after) = admin.describe_group(&before.description.name).await {
            facts.consumer_groups.push(Watched { before, after });
        }
    }
    Ok(facts)
}

async fn consumer_groups(admin: &Admin) -> Result<Vec<GroupState>, Failure> {
    let mut states = Vec::new();
    for group in admin.list_groups().await? {
        states.extend(admin.describe_group(&group.name).await.ok());
    }
    Ok(states)
}

/// Ids that stand at two places among the newest messages of a topic.
async fn stored_twice(
    admin: &Admin,
    topics: &[TopicDescription],
    only: Option<&str>,
) -> Result<Vec<(String, String, Vec<String>)>, Failure> {
    let mut twice = Vec::new();
    let mut queues_left = QUEUES_MAX;
    for topic in topics
        .iter()
        .filter(|topic| only.is_none_or(|only| only == topic.name))
    {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for bounds in topic.queues.iter().take(queues_left) {
            queues_left -= 1;
            let queue = TopicQueue::new(topic.name.as_str(), bounds.queue);
            let first = bounds.max_offset.saturating_sub(NEWEST_MESSAGES);
            let mut next = first.max(bounds.min_offset);
            while next < bounds.max_offset {
                let query = MessageQuery {
                    offset: next,
                    end_offset: Some(bounds.max_offset),
                    messages_max: u32::try_from(NEWEST_MESSAGES).unwrap_or(u32::MAX),
                    ..MessageQuery::default()
                };
                let page = admin.read_messages(&queue, &query).await?;
                if page.next_offset == next {
                    break;
                }
                next = page.next_offset;
                for one in page.messages {
                    let id = one.message.message_id().to_owned();
                    let place = format!("{queue} offset {}", one.offset);
                    places.entry(id).or_default().push(place);
                }
            }
        }
        let repeated = places.into_iter().filter(|(_, places)| places.len() > 1);
        twice.extend(repeated.map(|(id, places)| (topic.name.clone(), id, places)));
    }
    Ok(twice)
}
