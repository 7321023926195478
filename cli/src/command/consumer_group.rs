//! `raftmq consumer-group create|alter|list|describe|reset-offset|skip-backlog|delete`.

mod plan;
mod reset;
mod settings;

use clap::{Args, Subcommand};
use raftmq_client::{Admin, ConsumeFrom, GroupDescription, GroupQueue, GroupState};
use serde_json::{Value, json};

use super::seeds::Seeds;
use crate::failure::Failure;
use crate::moments::{shown, shown_age};
use crate::output::Output;
use crate::terminal::{pairs, table};

/// Flags of `raftmq consumer-group`.
#[derive(Args, Debug)]
pub(crate) struct ConsumerGroupArguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    seeds: Seeds,
    #[command(flatten)]
    output: Output,
    /// The broker group to ask, where there are several
    #[arg(long, global = true, value_name = "NAME")]
    broker_group: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make a group with settings of its own; one that is not made is made by its first consumer, with the brokers' defaults
    Create(settings::CreateArguments),
    /// Change a group; what is not named stays
    Alter(settings::AlterArguments),
    /// All consumer groups: members, and how many messages each has yet to consume
    List,
    /// One group: who is in it, who reads which queue, how far behind it is in messages and in time
    ///
    /// A queue's owner is the client whose pull of it reached the leader last. Consumers share queues out among
    /// themselves, so nobody else knows more; after a change of leader it takes one pull until an owner is known.
    Describe { name: String },
    /// Set where a group goes on, back or forth; shows what it would do unless --yes is given
    ResetOffset(reset::ResetArguments),
    /// Go on after the newest message of every queue, and give up what waits for another delivery; shows what it would do
    /// unless --yes is given
    SkipBacklog(reset::SkipArguments),
    /// Delete a group and its offsets
    Delete {
        name: String,
        /// Also while consumers of the group are alive; their next pull makes it again, without offsets
        #[arg(long)]
        force: bool,
    },
}

/// Does what was asked of consumer groups.
pub(crate) async fn run(arguments: ConsumerGroupArguments) -> Result<(), Failure> {
    let mut admin = arguments.seeds.client().await?.admin();
    let chosen = arguments.broker_group.is_some();
    if let Some(group) = arguments.broker_group {
        admin = admin.broker_group(group);
    }
    let output = arguments.output;
    match arguments.verb {
        Verb::Create(asked) => settings::create(&admin, chosen, &asked, output).await?,
        Verb::Alter(asked) => settings::alter(&admin, chosen, &asked, output).await?,
        Verb::List => list(&admin.list_groups().await?, output),
        Verb::Describe { name } => {
            let group = admin.describe_group(&name).await?;
            output.show(|| as_json(&group), || described(&group));
        }
        Verb::ResetOffset(asked) => reset::reset(&admin, &asked, output).await?,
        Verb::SkipBacklog(asked) => reset::skip(&admin, &asked, output).await?,
        Verb::Delete { name, force } => delete(&admin, &name, force, output).await?,
    }
    Ok(())
}

async fn delete(admin: &Admin, name: &str, force: bool, output: Output) -> Result<(), Failure> {
    refuse_while_alive(admin, name, force).await?;
    admin.delete_group(name).await?;
    output.show(
        || json!({ "group": name, "done": "deleted" }),
        || format!("consumer group {name} deleted"),
    );
    Ok(())
}

/// Living members keep their own place and commit it: what is changed under them does not last.
async fn refuse_while_alive(admin: &Admin, name: &str, force: bool) -> Result<(), Failure> {
    let members = admin.members(name).await?;
    if members.is_empty() || force {
        return Ok(());
    }
    Err(Failure::Operation(format!(
        "consumer group {name} has {} living members ({}): they go on from where they are and commit that; \
         stop them first, or use --force",
        members.len(),
        members.join(", ")
    )))
}

fn list(groups: &[GroupDescription], output: Output) {
    let document = || groups.iter().map(summary_json).collect();
    output.show(document, || {
        let rows: Vec<Vec<String>> = groups
            .iter()
            .map(|group| {
                vec![
                    group.name.clone(),
                    group.members.to_string(),
                    group.queues.to_string(),
                    group.lag().to_string(),
                    group.retries.to_string(),
                ]
            })
            .collect();
        table(
            &["consumer group", "members", "queues", "lag", "retries"],
            &rows,
        )
    });
}

fn summary_json(group: &GroupDescription) -> Value {
    json!({
        "name": group.name,
        "members": group.members,
        "queues": group.queues,
        "lag": group.lag(),
        "retries": group.retries,
        "fifo": group.fifo,
        "max_attempts": group.max_attempts,
        "consume_from": shown_start(group.consume_from),
        "attributes": group.attributes,
    })
}

fn shown_start(start: ConsumeFrom) -> String {
    match start {
        ConsumeFrom::Earliest => "earliest".to_owned(),
        ConsumeFrom::Latest => "latest".to_owned(),
        ConsumeFrom::TimeMs(at_ms) => shown(at_ms),
    }
}

fn as_json(group: &GroupState) -> Value {
    let mut value = summary_json(&group.description);
    let members: Vec<Value> = group
        .members
        .iter()
        .map(|member| {
            let owns: Vec<String> = owned_by(group, &member.client_id)
                .map(|queue| queue.queue.to_string())
                .collect();
            json!({
                "client_id": member.client_id,
                "seen_ms_ago": member.seen_ms_ago,
                "disputed_ms_ago": member.disputed_ms_ago,
                "owns": owns,
            })
        })
        .collect();
    value["members"] = members.into();
    value["queues"] = group.queues.iter().map(queue_json).collect();
    value["lag_ms"] = oldest_ms(group).into();
    value
}

fn queue_json(queue: &GroupQueue) -> Value {
    json!({
        "topic": &*queue.queue.topic,
        "queue": queue.queue.queue,
        "min_offset": queue.min_offset,
        "max_offset": queue.max_offset,
        "committed": queue.committed,
        "lag": queue.lag(),
        "retries": queue.retries,
        "lag_ms": queue.lag_ms,
        "owner": queue.owner.as_ref().map(|owner| json!({
            "client_id": owner.client_id,
            "seen_ms_ago": owner.seen_ms_ago,
            "pulled_offset": owner.pulled_offset,
        })),
    })
}

fn owned_by<'a>(group: &'a GroupState, client_id: &'a str) -> impl Iterator<Item = &'a GroupQueue> {
    let owns = move |queue: &&GroupQueue| {
        let owner = queue.owner.as_ref();
        owner.is_some_and(|owner| owner.client_id == client_id)
    };
    group.queues.iter().filter(owns)
}

fn oldest_ms(group: &GroupState) -> u64 {
    let ages = group.queues.iter().map(|queue| queue.lag_ms);
    ages.max().unwrap_or(0)
}

/// The age of what waits; nothing that waits has none.
fn shown_oldest(age_ms: u64) -> String {
    match age_ms {
        0 => "-".to_owned(),
        age_ms => shown_age(age_ms),
    }
}

fn shown_attempts(attempts: u32) -> String {
    match attempts {
        0 => "the brokers' default".to_owned(),
        attempts => attempts.to_string(),
    }
}

fn described(group: &GroupState) -> String {
    let description = &group.description;
    let mut facts = vec![
        ("consumer group", description.name.clone()),
        ("starts at", shown_start(description.consume_from)),
        ("attempts", shown_attempts(description.max_attempts)),
        (
            "lag",
            format!(
                "{} messages, {} of them to be delivered again",
                description.lag(),
                description.retries
            ),
        ),
        ("oldest", shown_oldest(oldest_ms(group))),
    ];
    let attributes = description.attributes.iter();
    facts.extend(attributes.map(|(key, value)| (key.as_str(), value.clone())));
    let members: Vec<Vec<String>> = group
        .members
        .iter()
        .map(|member| {
            let disputed = member.disputed_ms_ago.map_or_else(String::new, |ago_ms| {
                format!(
                    "another process claimed this id {} ago, and is refused",
                    shown_age(ago_ms)
                )
            });
            vec![
                member.client_id.clone(),
                shown_age(member.seen_ms_ago),
                owned_by(group, &member.client_id).count().to_string(),
                disputed,
            ]
        })
        .collect();
    let queues: Vec<Vec<String>> = group
        .queues
        .iter()
        .map(|queue| queue_row(queue, group))
        .collect();
    let headings = [
        "queue",
        "committed",
        "next",
        "lag",
        "retries",
        "oldest",
        "owner",
        "pulled",
    ];
    let members = match members.as_slice() {
        [] => "no member is alive".to_owned(),
        rows => table(&["member", "heard", "queues", ""], rows),
    };
    let queues = match queues.as_slice() {
        [] => "nothing committed and nothing pulled".to_owned(),
        rows => table(&headings, rows),
    };
    format!("{}\n\n{members}\n\n{queues}", pairs(&facts))
}

fn queue_row(queue: &GroupQueue, group: &GroupState) -> Vec<String> {
    let dash = || "-".to_owned();
    let (owner, pulled) = match &queue.owner {
        None => (dash(), dash()),
        Some(owner) => {
            let lives = group
                .members
                .iter()
                .any(|member| member.client_id == owner.client_id);
            let gone = if lives { "" } else { " (gone)" };
            let ago = format!("{} ago", shown_age(owner.seen_ms_ago));
            (format!("{}{gone}", owner.client_id), ago)
        }
    };
    vec![
        queue.queue.to_string(),
        queue
            .committed
            .map_or_else(dash, |offset| offset.to_string()),
        queue.max_offset.to_string(),
        queue.lag().to_string(),
        queue.retries.to_string(),
        shown_oldest(queue.lag_ms),
        owner,
        pulled,
    ]
}

#[cfg(test)]
mod tests {
    use proto::cluster;
    use raftmq_client::{GroupMember, QueueOwner, TopicQueue};

    use super::*;

    /// Catches a table in which a dead owner looks alive, or a queue without an offset looks read to its end.
    #[test]
    fn owners_and_lag_are_shown_as_they_are() {
        let queue = |number: u32, committed: Option<u64>, owner: Option<&str>| GroupQueue {
            queue: TopicQueue::new("orders", number),
            min_offset: 20,
            max_offset: 100,
            committed,
            unread: 100 - committed.unwrap_or(0).max(20),
            retries: u64::from(number == 1) * 7,
            lag_ms: if committed == Some(100) { 0 } else { 61_000 },
            owner: owner.map(|client_id| QueueOwner {
                client_id: client_id.to_owned(),
                seen_ms_ago: 1_500,
                pulled_offset: 90,
            }),
        };
        let description = cluster::GroupInfo {
            name: "billing".to_owned(),
            ..Default::default()
        };
        let group = GroupState {
            description: description.into(),
            members: vec![GroupMember {
                client_id: "a".to_owned(),
                seen_ms_ago: 900,
                disputed_ms_ago: Some(2_000),
            }],
            queues: vec![
                queue(0, Some(10), Some("a")),
                queue(1, Some(100), Some("b")),
                queue(2, None, None),
            ],
        };
        let text = described(&group);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("orders/"))
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows[0],
            [
                "orders/0", "10", "100", "80", "0", "1", "min", "1", "s", "a", "1.5", "s", "ago"
            ]
        );
        assert!(rows[1].contains(&"(gone)"), "{text}");
        assert_eq!(rows[1][2..5], ["100", "7", "7"], "retries are lag");
        let unread = [
            "orders/2", "-", "100", "80", "0", "1", "min", "1", "s", "-", "-",
        ];
        assert_eq!(rows[2], unread, "nothing committed is not nothing to do");
        assert!(text.contains("another process claimed this id 2"), "{text}");
        assert_eq!(as_json(&group)["members"][0]["owns"][0], "orders/0");
    }
}
