//! `raftmq topic create|list|describe|delete`.

use clap::{Args, Subcommand, ValueEnum};
use raftmq_client::{MessageType, TopicDescription, TopicSettings};
use serde_json::json;

use super::seeds::Seeds;
use crate::failure::Failure;
use crate::terminal::{say, table};

/// Flags of `raftmq topic`.
#[derive(Args, Debug)]
pub(crate) struct TopicArguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    seeds: Seeds,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make a topic
    Create {
        name: String,
        /// How many consumers of one group can share it
        #[arg(long, default_value_t = 4)]
        queues: u32,
        /// Which messages it takes
        #[arg(long = "type", value_enum, default_value_t = Kind::Any)]
        kind: Kind,
        /// An existing topic of this name is fine
        #[arg(long)]
        if_absent: bool,
    },
    /// All topics
    List,
    /// One topic and its queues
    Describe { name: String },
    /// Delete a topic and its messages
    Delete { name: String },
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
    let admin = arguments.seeds.client().await?.admin();
    match arguments.verb {
        Verb::Create {
            name,
            queues,
            kind,
            if_absent,
        } => {
            let settings = TopicSettings {
                queue_count: queues,
                message_type: kind.into(),
                if_absent,
                ..TopicSettings::default()
            };
            admin.create_topic(&name, &settings).await?;
            done(arguments.json, &name, "created");
        }
        Verb::List => list(&admin.list_topics().await?, arguments.json),
        Verb::Describe { name } => {
            let topic = admin.topic(&name).await?;
            let topic = topic.ok_or_else(|| Failure::Operation(format!("no topic {name:?}")))?;
            describe(&topic, arguments.json);
        }
        Verb::Delete { name } => {
            admin.delete_topic(&name).await?;
            done(arguments.json, &name, "deleted");
        }
    }
    Ok(())
}

fn done(json: bool, name: &str, what: &str) {
    if json {
        say(json!({ "topic": name, "done": what }));
    } else {
        say(format_args!("topic {name} {what}"));
    }
}

fn list(topics: &[TopicDescription], json: bool) {
    if json {
        say(serde_json::Value::Array(
            topics.iter().map(as_json).collect(),
        ));
        return;
    }
    let rows: Vec<Vec<String>> = topics
        .iter()
        .map(|topic| {
            vec![
                topic.name.clone(),
                kind_name(topic.message_type),
                topic.queue_count.to_string(),
                messages(topic).to_string(),
            ]
        })
        .collect();
    say(table(&["topic", "type", "queues", "messages"], &rows));
}

fn describe(topic: &TopicDescription, json: bool) {
    if json {
        say(as_json(topic));
        return;
    }
    say(format_args!("topic     {}", topic.name));
    say(format_args!("type      {}", kind_name(topic.message_type)));
    say(format_args!("messages  {}", messages(topic)));
    for (key, value) in &topic.attributes {
        say(format_args!("{key}  {value}"));
    }
    let rows: Vec<Vec<String>> = topic
        .queues
        .iter()
        .map(|queue| [u64::from(queue.queue), queue.min_offset, queue.max_offset])
        .map(|numbers| numbers.iter().map(u64::to_string).collect())
        .collect();
    say(table(&["queue", "oldest offset", "next offset"], &rows));
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
        .map(|queue| queue.max_offset - queue.min_offset)
        .sum()
}
