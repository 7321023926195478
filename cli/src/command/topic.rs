//! `raftmq topic create|list|describe|alter|delete`.

mod delete;

use std::collections::BTreeSet;

use clap::{Args, Subcommand, ValueEnum};
use raftmq_client::{Admin, MessageType, TopicDescription, TopicSettings};
use serde_json::json;

use super::seeds::Seeds;
use crate::failure::Failure;
use crate::output::Output;
use crate::terminal::{pairs, table};

/// Attribute of a topic that says with which number its queues begin in a broker group.
const FIRST_QUEUE: &str = "queues.first";

/// Flags of `raftmq topic`.
#[derive(Args, Debug)]
pub(crate) struct TopicArguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    seeds: Seeds,
    #[command(flatten)]
    output: Output,
    /// The broker group, where there are several: where a topic is made, or looked for
    #[arg(long, global = true, value_name = "NAME")]
    broker_group: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make a topic
    Create {
        name: String,
        /// How many consumers of one group can share it
        #[arg(long, default_value_t = 4)]
        queues: u32,
        /// Number of its first queue in this broker group, where another group has the lower ones: broker groups that
        /// share a topic share out its queues. Cannot be changed later
        #[arg(long, default_value_t = 0)]
        first_queue: u32,
        /// Which messages it takes
        #[arg(long = "type", value_enum, default_value_t = Kind::Any)]
        kind: Kind,
        /// An existing topic of this name is fine
        #[arg(long)]
        if_absent: bool,
        /// A free setting kept with the topic, KEY=VALUE; may be given again
        #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
        attributes: Vec<(String, String)>,
    },
    /// Change a topic; what is not named stays
    Alter {
        name: String,
        /// More queues than now: queues hold messages and are never taken away
        #[arg(long)]
        queues: Option<u32>,
        /// Which messages it takes from now on
        #[arg(long = "type", value_enum)]
        kind: Option<Kind>,
        /// Set a free setting, KEY=VALUE; KEY= takes it away; may be given again
        #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
        attributes: Vec<(String, String)>,
    },
    /// All topics
    List,
    /// One topic and its queues
    Describe { name: String },
    /// Delete a topic and its messages; nothing is deleted while a broker group cannot be asked whether it has the topic
    Delete {
        name: String,
        /// From every broker group that has it, where several share it
        #[arg(long)]
        everywhere: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Any,
    Normal,
    Fifo,
    Delay,
    Transaction,
}

impl From<Kind> for MessageType {
    fn from(kind: Kind) -> MessageType {
        match kind {
            Kind::Any => MessageType::Any,
            Kind::Normal => MessageType::Normal,
            Kind::Fifo => MessageType::Fifo,
            Kind::Delay => MessageType::Delay,
            Kind::Transaction => MessageType::Transaction,
        }
    }
}

/// Does what was asked of topics.
pub(crate) async fn run(arguments: TopicArguments) -> Result<(), Failure> {
    let mut admin = arguments.seeds.client().await?.admin();
    let output = arguments.output;
    let chosen = arguments.broker_group.is_some();
    if let Some(group) = arguments.broker_group.clone() {
        admin = admin.broker_group(group);
    }
    match arguments.verb {
        Verb::Create {
            name,
            queues,
            first_queue,
            kind,
            if_absent,
            attributes,
        } => {
            let mut settings = TopicSettings {
                queue_count: first_queue.saturating_add(queues),
                message_type: kind.into(),
                attributes: attributes.into_iter().collect(),
                if_absent,
            };
            if first_queue > 0 {
                let (key, number) = (FIRST_QUEUE.to_owned(), first_queue.to_string());
                settings.attributes.insert(key, number);
            }
            admin.create_topic(&name, &settings).await?;
            done(output, &name, "created");
        }
        Verb::Alter {
            name,
            queues,
            kind,
            attributes,
        } => {
            let mut parts = find(&admin, chosen, &name).await?;
            if parts.len() > 1 {
                let reason =
                    format!("broker groups share topic {name}: choose one with --broker-group");
                return Err(Failure::Configuration(reason));
            }
            let (admin, topic) = parts.swap_remove(0);
            let settings = altered(topic, queues, kind, attributes);
            admin.alter_topic(&name, &settings).await?;
            done(output, &name, "altered");
        }
        Verb::List if chosen => list(&admin.list_topics().await?, output),
        Verb::List => list(&everywhere(&admin).await?, output),
        Verb::Describe { name } => {
            let parts = find(&admin, chosen, &name).await?;
            let parts = parts.into_iter().map(|(_, topic)| topic);
            // Of a topic that broker groups share, all queues.
            let whole = parts.reduce(|mut whole, part| {
                whole.queues.extend(part.queues);
                whole
            });
            if let Some(topic) = whole {
                describe(&topic, output);
            }
        }
        Verb::Delete { name, everywhere } => {
            delete::delete(&admin, &name, arguments.broker_group, everywhere, output).await?;
        }
    }
    Ok(())
}

/// The topics of all broker groups, by name.
async fn everywhere(admin: &Admin) -> Result<Vec<TopicDescription>, Failure> {
    let brokers = admin.brokers().await?;
    let groups: BTreeSet<String> = brokers.into_iter().map(|broker| broker.group).collect();
    if groups.len() < 2 {
        return Ok(admin.list_topics().await?);
    }
    let mut topics = Vec::new();
    for group in groups {
        topics.extend(admin.clone().broker_group(group).list_topics().await?);
    }
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(topics)
}

/// The topic, and the calls to the group that has it; of each group that shares it. At least one.
async fn find(
    admin: &Admin,
    chosen: bool,
    name: &str,
) -> Result<Vec<(Admin, TopicDescription)>, Failure> {
    let admins = match chosen {
        true => vec![admin.clone()],
        false => admin.each_of_topic(name).await?,
    };
    let mut parts = Vec::new();
    for admin in admins {
        let topic = admin.topic(name).await?;
        let missing = || Failure::NotFound(format!("topic {name} does not exist"));
        parts.push((admin, topic.ok_or_else(missing)?));
    }
    Ok(parts)
}

/// A topic's settings with some of them changed.
fn altered(
    topic: TopicDescription,
    queues: Option<u32>,
    kind: Option<Kind>,
    changes: Vec<(String, String)>,
) -> TopicSettings {
    let mut attributes = topic.attributes;
    let first = attributes.get(FIRST_QUEUE);
    let first: u32 = first.and_then(|number| number.parse().ok()).unwrap_or(0);
    let queues = queues.map(|queues| queues.saturating_add(first));
    for (key, value) in changes {
        if value.is_empty() {
            attributes.remove(&key);
        } else {
            attributes.insert(key, value);
        }
    }
    TopicSettings {
        queue_count: queues.unwrap_or(topic.queue_count),
        message_type: kind.map_or(topic.message_type, MessageType::from),
        attributes,
        if_absent: false,
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn done(output: Output, name: &str, what: &str) {
    output.show(
        || json!({ "topic": name, "done": what }),
        || format!("topic {name} {what}"),
    );
}

fn list(topics: &[TopicDescription], output: Output) {
    output.show(
        || topics.iter().map(as_json).collect(),
        || {
            let rows: Vec<Vec<String>> = topics
                .iter()
                .map(|topic| {
                    vec![
                        topic.name.clone(),
                        kind_name(topic.message_type),
                        topic.queues.len().to_string(),
                        messages(topic).to_string(),
                    ]
                })
                .collect();
            table(&["topic", "type", "queues", "messages"], &rows)
        },
    );
}

fn describe(topic: &TopicDescription, output: Output) {
    output.show(|| as_json(topic), || described(topic));
}

fn described(topic: &TopicDescription) -> String {
    let mut facts = vec![
        ("topic", topic.name.clone()),
        ("type", kind_name(topic.message_type)),
        ("messages", messages(topic).to_string()),
    ];
    let attributes = topic.attributes.iter();
    facts.extend(attributes.map(|(key, value)| (key.as_str(), value.clone())));
    let rows: Vec<Vec<String>> = topic
        .queues
        .iter()
        .map(|queue| [u64::from(queue.queue), queue.min_offset, queue.max_offset])
        .map(|numbers| numbers.iter().map(u64::to_string).collect())
        .collect();
    let queues = table(&["queue", "oldest offset", "next offset"], &rows);
    format!("{}\n\n{queues}", pairs(&facts))
}

fn as_json(topic: &TopicDescription) -> serde_json::Value {
    let queues: Vec<_> = topic
        .queues
        .iter()
        .map(|queue| {
            json!({
                "queue": queue.queue,
                "min_offset": queue.min_offset,
                "max_offset": queue.max_offset,
            })
        })
        .collect();
    json!({
        "name": topic.name,
        "type": kind_name(topic.message_type),
        "topic_id": topic.topic_id,
        "queues": queues,
        "attributes": topic.attributes,
    })
}

fn kind_name(kind: MessageType) -> String {
    format!("{kind:?}").to_lowercase()
}

fn messages(topic: &TopicDescription) -> u64 {
    topic
        .queues
        .iter()
        .map(|queue| queue.max_offset.saturating_sub(queue.min_offset))
        .sum()
}
