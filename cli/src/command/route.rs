//! `raftmq route`: what each name server believes about the topics, and where two of them differ.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use raftmq_client::{GroupRoute, NameServerTable};
use serde_json::{Value, json};

use super::seeds::Seeds;
use crate::failure::Failure;
use crate::output::Output;
use crate::terminal::{Colour, note, paint, table};

/// Flags of `raftmq route`.
#[derive(Args, Debug)]
pub(crate) struct RouteArguments {
    /// Only this topic
    topic: Option<String>,
    #[command(flatten)]
    seeds: Seeds,
    #[command(flatten)]
    output: Output,
}

/// What one name server answered.
pub(super) type Answer = (String, Result<NameServerTable, String>);

/// Asks every name server; exit code 6 if one does not answer or two differ.
pub(crate) async fn run(arguments: RouteArguments) -> Result<(), Failure> {
    let admin = arguments.seeds.client().await?.admin();
    let answers: Vec<Answer> = admin
        .name_server_tables()
        .await
        .into_iter()
        .map(|(address, table)| (address, table.map_err(|error| error.to_string())))
        .collect();
    if answers.is_empty() {
        let reason = "none of the seeds is a name server: brokers have no table of routes";
        return Err(Failure::NotFound(reason.to_owned()));
    }
    let topic = arguments.topic.as_deref();
    let differences = differences(&answers, topic);
    arguments.output.show(
        || as_json(&answers, topic, &differences),
        || shown(&answers, topic),
    );
    let mut troubles = differences;
    for (address, answer) in &answers {
        if let Err(reason) = answer {
            note(format_args!("name server {address}: {reason}"));
            troubles.push(format!("name server {address} does not answer"));
        }
    }
    if !troubles.is_empty() {
        return Err(Failure::Unhealthy(troubles.join("; ")));
    }
    let is_known = answers.iter().any(|(_, table)| {
        let groups = table.iter().flat_map(|table| &table.groups);
        groups.into_iter().any(|group| serves(group, topic))
    });
    match topic {
        Some(topic) if !is_known => Err(Failure::NotFound(format!(
            "no name server has a route for topic {topic}"
        ))),
        _ => Ok(()),
    }
}

fn serves(group: &GroupRoute, topic: Option<&str>) -> bool {
    topic.is_none_or(|topic| queues_of(group, topic).is_some())
}

fn queues_of(group: &GroupRoute, topic: &str) -> Option<u32> {
    let found = group.topics.iter().find(|(name, _)| name == topic);
    found.map(|(_, queues)| *queues)
}

/// Where two name servers that answered believe different things, one line each.
pub(super) fn differences(answers: &[Answer], topic: Option<&str>) -> Vec<String> {
    let tables: Vec<&NameServerTable> = answers
        .iter()
        .filter_map(|(_, table)| table.as_ref().ok())
        .collect();
    let names: BTreeSet<&str> = tables
        .iter()
        .flat_map(|table| &table.groups)
        .filter(|group| serves(group, topic))
        .map(|group| group.group.as_str())
        .collect();
    names
        .into_iter()
        .filter_map(|name| difference(&tables, name, topic))
        .collect()
}

fn difference(tables: &[&NameServerTable], name: &str, topic: Option<&str>) -> Option<String> {
    let mut beliefs: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for table in tables {
        let group = table.groups.iter().find(|group| group.group == name);
        let belief = match group {
            None => "nothing".to_owned(),
            Some(group) => belief(group, topic),
        };
        beliefs.entry(belief).or_default().push(&table.address);
    }
    if beliefs.len() < 2 {
        return None;
    }
    let opinions: Vec<String> = beliefs
        .iter()
        .map(|(belief, believers)| {
            let verb = if believers.len() == 1 {
                "believes"
            } else {
                "believe"
            };
            format!("{} {verb} {belief}", believers.join(" and "))
        })
        .collect();
    Some(format!("group {name}: {}", opinions.join(", ")))
}

/// What clients are told; a newer registration with the same content is no difference to them.
fn belief(group: &GroupRoute, topic: Option<&str>) -> String {
    let topics = match topic {
        Some(topic) => match queues_of(group, topic) {
            Some(queues) => format!("{topic} with {queues} queues"),
            None => format!("no topic {topic}"),
        },
        None => format!("{} topics", group.topics.len()),
    };
    format!(
        "that broker {} leads in term {} with {topics}",
        group.leader, group.epoch
    )
}

fn shown(answers: &[Answer], topic: Option<&str>) -> String {
    let mut rows = Vec::new();
    for (address, answer) in answers {
        match answer {
            Err(_) => rows.push(vec![address.clone(), paint(Colour::Bad, "no answer")]),
            Ok(server) => {
                let groups = server.groups.iter().filter(|group| serves(group, topic));
                rows.extend(groups.map(|group| row(address, group, topic)));
            }
        }
    }
    let headings = [
        "name server",
        "group",
        "leader",
        "address",
        "term",
        "version",
        "topics",
    ];
    for row in &mut rows {
        row.resize(headings.len(), "-".to_owned());
    }
    table(&headings, &rows)
}

fn row(address: &str, group: &GroupRoute, topic: Option<&str>) -> Vec<String> {
    let leads = |one: &&raftmq_client::BrokerAddress| one.broker_id == group.leader;
    let leader = group.replicas.iter().find(leads);
    let topics = match topic {
        Some(topic) => {
            let queues = queues_of(group, topic).unwrap_or(0);
            format!("{topic} ({queues} queues)")
        }
        None => group.topics.len().to_string(),
    };
    vec![
        address.to_owned(),
        group.group.clone(),
        group.leader.to_string(),
        leader.map_or("-".to_owned(), |leader| leader.client_address.clone()),
        group.epoch.to_string(),
        group.version.to_string(),
        topics,
    ]
}

fn as_json(answers: &[Answer], topic: Option<&str>, differences: &[String]) -> Value {
    let servers: Vec<Value> = answers
        .iter()
        .map(|(address, answer)| match answer {
            Err(error) => json!({ "address": address, "error": error }),
            Ok(server) => {
                let groups = server.groups.iter().filter(|group| serves(group, topic));
                let groups: Vec<Value> = groups.map(|group| group_json(group, topic)).collect();
                json!({ "address": address, "name_servers": server.name_servers, "groups": groups })
            }
        })
        .collect();
    json!({ "name_servers": servers, "differences": differences })
}

fn group_json(group: &GroupRoute, topic: Option<&str>) -> Value {
    let wanted = group
        .topics
        .iter()
        .filter(|(name, _)| topic.is_none_or(|topic| topic == name));
    let topics: Vec<Value> = wanted
        .map(|(name, queues)| json!({ "name": name, "queues": queues }))
        .collect();
    let replicas: Vec<Value> = group
        .replicas
        .iter()
        .map(|one| json!({ "broker_id": one.broker_id, "client_address": one.client_address }))
        .collect();
    json!({
        "group": group.group, "leader": group.leader, "term": group.epoch,
        "version": group.version, "replicas": replicas, "topics": topics,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(address: &str, leader: u64, epoch: u64, version: u64, queues: u32) -> Answer {
        let group = GroupRoute {
            group: "g".to_owned(),
            epoch,
            version,
            leader,
            replicas: Vec::new(),
            topics: vec![("orders".to_owned(), queues), ("other".to_owned(), 1)],
        };
        let table = NameServerTable {
            address: address.to_owned(),
            groups: vec![group],
            name_servers: Vec::new(),
        };
        (address.to_owned(), Ok(table))
    }

    /// Catches name servers that send clients to two leaders, and an alarm over a renewal that changed nothing.
    #[test]
    fn only_what_clients_are_told_can_differ() {
        let same = [answer("a", 1, 3, 7, 4), answer("b", 1, 3, 8, 4)];
        assert_eq!(differences(&same, None), Vec::<String>::new());
        let leaders = [
            answer("a", 1, 3, 7, 4),
            answer("b", 2, 4, 1, 4),
            answer("c", 1, 3, 7, 4),
        ];
        let found = differences(&leaders, Some("orders"));
        assert_eq!(
            found,
            [
                "group g: a and c believe that broker 1 leads in term 3 with orders with 4 queues, \
              b believes that broker 2 leads in term 4 with orders with 4 queues"
            ]
        );
        let queues = [answer("a", 1, 3, 7, 4), answer("b", 1, 3, 8, 8)];
        assert_eq!(differences(&queues, Some("orders")).len(), 1);
        assert_eq!(differences(&queues, Some("other")), Vec::<String>::new());
        let gone = [
            answer("a", 1, 3, 7, 4),
            ("b".to_owned(), Err("refused".to_owned())),
        ];
        assert_eq!(
            differences(&gone, None),
            Vec::<String>::new(),
            "silence is no opinion"
        );
    }
}
