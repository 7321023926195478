//! What must have happened in a sweep: every kind of fault, every effect of faults, every RPC, every command.
//!
//! The lists come from the types themselves, so that what is added cannot be forgotten. Knows nothing of
//! how worlds are run: it reads their counts.

use std::collections::BTreeMap;
use std::io::{self, Write};

use prost::Message;
use prost_types::FileDescriptorSet;

use crate::effect::{Effect, FaultKind};

/// Seeds of every scenario from which on a sweep must have met everything.
pub const SEEDS_MIN: u64 = 10;

/// The message of the log whose fields are the commands.
const COMMAND: (&str, &str) = ("raftmq.command.v1", "Command");

/// Services and calls that nothing answers yet. One that does answer must leave this list: its calls fail
/// the sweep as long as it stands here.
const NOT_SERVED: &[&str] = &[
    "apache.rocketmq.v2.Admin/",
    "apache.rocketmq.v2.MessagingService/AckMessage",
    "apache.rocketmq.v2.MessagingService/ChangeInvisibleDuration",
    "apache.rocketmq.v2.MessagingService/EndTransaction",
    "apache.rocketmq.v2.MessagingService/ForwardMessageToDeadLetterQueue",
    "apache.rocketmq.v2.MessagingService/QueryAssignment",
    "apache.rocketmq.v2.MessagingService/RecallMessage",
    "apache.rocketmq.v2.MessagingService/ReceiveMessage",
    "apache.rocketmq.v2.MessagingService/SyncLiteSubscription",
    // Served, but for people at a terminal: tested on real processes (`cli/tests/processes/operator.rs`).
    "raftmq.cluster.v1.BrokerAdmin/ReadMessages",
    "raftmq.cluster.v1.BrokerAdmin/RemoveLearner",
];

/// How often things happened, by what kind of thing they are.
pub struct Coverage<'a> {
    counts: &'a BTreeMap<String, u64>,
}

impl<'a> Coverage<'a> {
    /// Reads the counts of a trace, or of many together.
    pub fn of(counts: &'a BTreeMap<String, u64>) -> Coverage<'a> {
        Coverage { counts }
    }

    /// What must happen and did not, and what must not and did.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (kind, names) in required() {
            for name in names {
                if self.count(kind, &name) == 0 {
                    failures.push(format!("{kind} {name}"));
                }
            }
        }
        for path in self.of_kind("rpc") {
            if !is_served(path) {
                failures.push(format!(
                    "the refusal of {path}, which is said not to be served"
                ));
            }
        }
        failures
    }

    /// Writes how often each happened, and what else was counted.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (kind, names) in required() {
            writeln!(out, "{kind}s")?;
            for name in names {
                let count = self.count(kind, &name);
                let never = if count == 0 { "  <- never" } else { "" };
                writeln!(out, "{count:12}  {name}{never}")?;
            }
        }
        writeln!(out, "and")?;
        let kinds: Vec<&str> = required().into_iter().map(|(kind, _)| kind).collect();
        for (name, count) in self.counts {
            let kind = name.split(' ').next().unwrap_or_default();
            if !kinds.contains(&kind) {
                writeln!(out, "{count:12}  {name}")?;
            }
        }
        Ok(())
    }

    fn count(&self, kind: &str, name: &str) -> u64 {
        let key = format!("{kind} {name}");
        self.counts.get(&key).copied().unwrap_or(0)
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &'a str> {
        let names = self.counts.keys();
        names.filter_map(move |name| name.strip_prefix(kind)?.strip_prefix(" /"))
    }
}

/// Kinds of things, and the names of all that must happen.
fn required() -> Vec<(&'static str, Vec<String>)> {
    let faults = FaultKind::ALL.iter().map(|kind| kind.name().to_owned());
    let effects = Effect::ALL.iter().map(|effect| effect.name().to_owned());
    let described = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET)
        .expect("what the build wrote can be read");
    vec![
        ("fault", faults.collect()),
        ("effect", effects.collect()),
        ("rpc", rpcs(&described)),
        ("command", commands(&described)),
    ]
}

fn rpcs(described: &FileDescriptorSet) -> Vec<String> {
    let mut paths = Vec::new();
    for file in &described.file {
        for service in &file.service {
            for method in &service.method {
                let (package, service) = (file.package(), service.name());
                let path = format!("{package}.{service}/{}", method.name());
                if is_served(&path) {
                    paths.push(format!("/{path}"));
                }
            }
        }
    }
    paths
}

fn is_served(path: &str) -> bool {
    !NOT_SERVED.iter().any(|prefix| path.starts_with(prefix))
}

fn commands(described: &FileDescriptorSet) -> Vec<String> {
    let (package, message) = COMMAND;
    let files = described.file.iter();
    let messages = files
        .filter(|file| file.package() == package)
        .flat_map(|file| &file.message_type);
    messages
        .filter(|described| described.name() == message)
        .flat_map(|described| &described.field)
        .map(|field| field.name().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use proto::command::command::Body;

    use super::*;

    /// Would catch a sweep that demands nothing, and one that demands what is never counted.
    #[test]
    fn an_empty_sweep_lacks_everything_and_commands_are_counted_by_their_names() {
        let counts = BTreeMap::new();
        let failures = Coverage::of(&counts).failures();
        for expected in [
            "fault kill",
            "effect ENOSPC",
            "rpc /raftmq.raft.v1.Raft/Vote",
            "rpc /apache.rocketmq.v2.MessagingService/SendMessage",
        ] {
            assert!(
                failures.iter().any(|failure| failure == expected),
                "{expected}"
            );
        }
        let appended = crate::commands::name(&Body::Append(Default::default()));
        assert!(failures.contains(&format!("command {appended}")));
    }

    /// Would catch a service that is served now and whose calls nobody demands.
    #[test]
    fn a_call_that_is_said_not_to_be_served_must_not_occur() {
        let path = "rpc /apache.rocketmq.v2.MessagingService/AckMessage";
        let counts = BTreeMap::from([(path.to_owned(), 1)]);
        let failures = Coverage::of(&counts).failures();
        assert!(
            failures
                .iter()
                .any(|failure| failure.contains("AckMessage"))
        );
    }
}
