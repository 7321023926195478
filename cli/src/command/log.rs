//! `raftmq log inspect DIRECTORY`: what stands in the data directory of a stopped broker. `raftmq log restore`: makes a
//! copy of one the first replica of its group.
//!
//! `inspect` verifies every record, index file and checkpoint. It holds the directory's lock meanwhile and changes
//! nothing: repairing is the broker's business, which has peers to repair from.

use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use host::Host;
use indicatif::{ProgressBar, ProgressStyle};
use nameserver::registration::is_address;
use prost::Message as _;
use proto::command::{self, command::Body};
use serde_json::{Value, json};
use store::{
    Checkpoint, Entry, EntryKind, IndexReport, Inspection, LogId, SegmentReport, StoreError, Synced,
};

use crate::failure::Failure;
use crate::moments::{shown, shown_bytes};
use crate::output::Output;
use crate::terminal::{Colour, paint, pairs, say, table};

/// Flags of `raftmq log`.
#[derive(Args, Debug)]
pub(crate) struct LogArguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Identity, segments, terms, checksums and checkpoints of a stopped broker; exit code 6 if anything is damaged
    Inspect(InspectArguments),
    /// Make a copy of a data directory the first and only replica of its group, which is lost
    ///
    /// The copy goes on where it was made, under a broker id that was never used in the group; further replicas are added
    /// as to any group. Never while the group lives: two groups of one name would both take messages. To look at
    /// a backup meanwhile, give the copy another cluster with --cluster-id.
    Restore(RestoreArguments),
}

#[derive(Args, Debug)]
struct RestoreArguments {
    /// The copy; it is changed
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Broker id of the replica that the copy becomes
    #[arg(long)]
    broker_id: u64,
    /// Where clients will reach it: its `advertise`, or its `client_address` in `members`
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    client_address: String,
    /// Where other replicas will reach it: its `peer_advertise`, or its `peer_address` in `members`
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    peer_address: String,
    /// A cluster of its own [default: that of the copy]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    cluster_id: Option<String>,
}

/// An address that others can call: written into the group's membership it stays there.
fn address(text: &str) -> Result<String, String> {
    match is_address(text) {
        true => Ok(text.to_owned()),
        false => Err("expected HOST:PORT".to_owned()),
    }
}

#[derive(Args, Debug)]
struct InspectArguments {
    /// The broker's data_dir
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// List the entries too, one a line: index, term, and what each of them says
    #[arg(long)]
    entries: bool,
    /// With --entries: from this index on
    #[arg(long, requires = "entries", default_value_t = 0)]
    from: u64,
    /// With --entries: up to this index
    #[arg(long, requires = "entries", default_value_t = u64::MAX)]
    to: u64,
}

/// What was found.
struct Report {
    inspection: Inspection,
    segments: Vec<SegmentReport>,
    synced: Synced,
    checkpoints: Vec<(PathBuf, Result<Checkpoint, StoreError>)>,
}

/// Looks at a data directory; touches no network.
pub(crate) async fn run(arguments: LogArguments) -> Result<(), Failure> {
    let asked = match arguments.verb {
        Verb::Inspect(asked) => asked,
        Verb::Restore(asked) => return restore(asked, arguments.output).await,
    };
    let report = read(&asked.directory).await.map_err(|error| match error {
        StoreError::Locked { .. } => Failure::Operation(format!(
            "{} is in use: stop the broker first, or look at a copy",
            asked.directory.display()
        )),
        StoreError::Refused { detail } => Failure::NotFound(detail),
        error => Failure::Operation(error.to_string()),
    })?;
    arguments
        .output
        .show(|| report.as_json(), || report.shown());
    if asked.entries {
        list_entries(&report, &asked, arguments.output)?;
    }
    match report.damages() {
        damages if damages.is_empty() => Ok(()),
        damages => Err(Failure::Unhealthy(damages.join("; "))),
    }
}

async fn restore(asked: RestoreArguments, output: Output) -> Result<(), Failure> {
    if asked.broker_id == 0 {
        let rule = "--broker-id must not be 0".to_owned();
        return Err(Failure::Configuration(rule));
    }
    let member = raft::Member {
        broker_id: asked.broker_id,
        peer_address: asked.peer_address,
        client_address: asked.client_address,
    };
    let host = Host::real();
    let begins = |number| broker::history_begins(number, host.clock.now_ms());
    let (directory, cluster_id) = (&asked.directory, asked.cluster_id);
    let restored = raft::restore(&host, directory, &member, cluster_id, &begins)
        .await
        .map_err(|error| Failure::Operation(error.to_string()))?;
    let (identity, from) = (&restored.identity, &restored.from);
    output.show(
        || {
            json!({
                "cluster_id": identity.cluster_id, "group": identity.group, "broker_id": identity.broker_id,
                "copy_of": from.broker_id, "last": log_id_json(Some(restored.last)),
            })
        },
        || {
            format!(
                "broker {} alone is group {} of cluster {}, with what broker {} had up to entry {}",
                identity.broker_id,
                identity.group,
                identity.cluster_id,
                from.broker_id,
                restored.last.index
            )
        },
    );
    Ok(())
}

async fn read(directory: &Path) -> Result<Report, StoreError> {
    let inspection = Inspection::open(&Host::real(), directory)?;
    Ok(Report {
        segments: segments(&inspection)?,
        synced: inspection.synced()?,
        checkpoints: inspection.checkpoints().await?,
        inspection,
    })
}

/// Reads the log, which takes a while; shows how far it is on standard error while that is a terminal.
fn segments(inspection: &Inspection) -> Result<Vec<SegmentReport>, StoreError> {
    let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} segments, {eta}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let progress = ProgressBar::no_length().with_style(style);
    let segments = inspection.segments(|read, of| {
        progress.set_length(of as u64);
        progress.set_position(read as u64);
    });
    progress.finish_and_clear();
    segments
}

impl Report {
    /// Everything that does not fit, one line each.
    fn damages(&self) -> Vec<String> {
        let mut damages = Vec::new();
        damages.extend(self.lost_mark());
        for segment in &self.segments {
            let name = segment.path.display();
            if let Some(damage) = &segment.damage {
                damages.push(format!("{name}: {damage}"));
            }
            if let IndexReport::Differs(detail) = &segment.index {
                damages.push(format!("the index of {name} does not fit: {detail}"));
            }
        }
        let broken = self.checkpoints.iter();
        let broken = broken.filter_map(|(_, checkpoint)| checkpoint.as_ref().err());
        damages.extend(broken.map(|error| format!("checkpoint: {error}")));
        damages
    }

    fn shown(&self) -> String {
        let superblock = self.inspection.superblock();
        let identity = &superblock.identity;
        let mut facts = vec![
            ("cluster", identity.cluster_id.clone()),
            ("broker group", identity.group.clone()),
            ("broker", identity.broker_id.to_string()),
            ("vote", shown_vote(&superblock.vote)),
            ("purged", shown_log_id(superblock.purged)),
            ("synced", self.shown_synced()),
            ("last entry", shown_log_id(self.last())),
            ("log", self.inspection.log_dir().display().to_string()),
            ("segment size", shown_bytes(superblock.segment_bytes)),
        ];
        for (path, checkpoint) in &self.checkpoints {
            facts.push(("checkpoint", shown_checkpoint(path, checkpoint)));
        }
        let rows: Vec<Vec<String>> = self.segments.iter().map(row).collect();
        let headings = [
            "first", "last", "terms", "records", "bytes", "checksum", "index", "state",
        ];
        format!("{}\n\n{}", pairs(&facts), table(&headings, &rows))
    }

    /// What is wrong with the note of what was synced, if the replica has promised anything.
    fn lost_mark(&self) -> Option<String> {
        let state = match self.synced {
            Synced::Missing => "is missing",
            Synced::Unreadable => "cannot be read",
            Synced::Nothing | Synced::UpTo(_) => return None,
        };
        let path = self.inspection.log_dir().join("synced");
        self.inspection.superblock().is_used().then(|| {
            format!(
                "{}: the mark of what was synced {state}, so nobody knows what is missing at the end of the log",
                path.display()
            )
        })
    }

    fn shown_synced(&self) -> String {
        match self.synced {
            Synced::Unreadable => paint(Colour::Bad, "unreadable"),
            Synced::Missing => "no mark".to_owned(),
            synced => shown_log_id(synced.up_to().map(|synced| synced.last)),
        }
    }

    fn last(&self) -> Option<LogId> {
        self.segments
            .iter()
            .filter_map(|segment| segment.last)
            .next_back()
    }

    fn as_json(&self) -> Value {
        let superblock = self.inspection.superblock();
        let identity = &superblock.identity;
        let checkpoints: Vec<Value> = self
            .checkpoints
            .iter()
            .map(|(path, checkpoint)| match checkpoint {
                Ok(checkpoint) => json!({
                    "path": path.display().to_string(),
                    "last": log_id_json(Some(checkpoint.meta().log_id)),
                    "files": checkpoint.meta().files.len(),
                }),
                Err(error) => {
                    json!({ "path": path.display().to_string(), "damage": error.to_string() })
                }
            })
            .collect();
        json!({
            "cluster_id": identity.cluster_id, "group": identity.group, "broker_id": identity.broker_id,
            "vote": vote_json(&superblock.vote),
            "purged": log_id_json(superblock.purged),
            "synced": log_id_json(self.synced.up_to().map(|synced| synced.last)),
            "mark_damaged": self.lost_mark().is_some(),
            "last": log_id_json(self.last()),
            "segments": self.segments.iter().map(segment_json).collect::<Vec<_>>(),
            "checkpoints": checkpoints,
            "damage": self.damages(),
        })
    }
}

fn row(segment: &SegmentReport) -> Vec<String> {
    let last = segment.last;
    let index = match &segment.index {
        IndexReport::Missing => "none".to_owned(),
        IndexReport::Fits => "fits".to_owned(),
        IndexReport::Differs(_) => paint(Colour::Bad, "differs"),
    };
    let state = match (&segment.damage, &segment.index) {
        (Some(_), _) => paint(Colour::Bad, "damaged"),
        (None, IndexReport::Missing) => "open".to_owned(),
        (None, _) => "sealed".to_owned(),
    };
    vec![
        segment.first.index.to_string(),
        last.map_or("-".to_owned(), |last| last.index.to_string()),
        last.map_or("-".to_owned(), |last| {
            format!("{}..{}", segment.first.term, last.term)
        }),
        segment.records.to_string(),
        segment.bytes.to_string(),
        format!("{:08x}", segment.crc32c),
        index,
        state,
    ]
}

fn segment_json(segment: &SegmentReport) -> Value {
    let index = match &segment.index {
        IndexReport::Missing => json!(null),
        IndexReport::Fits => json!("fits"),
        IndexReport::Differs(detail) => json!({ "differs": detail }),
    };
    json!({
        "path": segment.path.display().to_string(),
        "first": log_id_json(Some(segment.first)),
        "last": log_id_json(segment.last),
        "records": segment.records,
        "bytes": segment.bytes,
        "file_bytes": segment.file_bytes,
        "crc32c": format!("{:08x}", segment.crc32c),
        "index": index,
        "damage": segment.damage,
    })
}

fn shown_log_id(log_id: Option<LogId>) -> String {
    log_id.map_or("none".to_owned(), |log_id| {
        format!("{} of term {}", log_id.index, log_id.term)
    })
}

fn log_id_json(log_id: Option<LogId>) -> Value {
    log_id.map_or(
        Value::Null,
        |log_id| json!({ "index": log_id.index, "term": log_id.term }),
    )
}

fn shown_checkpoint(path: &Path, checkpoint: &Result<Checkpoint, StoreError>) -> String {
    match checkpoint {
        Ok(checkpoint) => {
            let meta = checkpoint.meta();
            let bytes: u64 = meta.files.iter().map(|file| file.size_bytes).sum();
            let size = shown_bytes(bytes);
            format!(
                "up to {}, {} files, {size}, whole",
                shown_log_id(Some(meta.log_id)),
                meta.files.len()
            )
        }
        Err(_) => format!("{} {}", path.display(), paint(Colour::Bad, "damaged")),
    }
}

/// The vote as raft writes it into the superblock: term, candidate, and 1 once the candidate led.
fn vote(bytes: &[u8]) -> Option<(u64, u64, bool)> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    (bytes.len() == 17).then_some(())?;
    Some((number(0)?, number(8)?, bytes[16] == 1))
}

fn shown_vote(bytes: &[u8]) -> String {
    match vote(bytes) {
        Some((term, broker, true)) => format!("broker {broker}, leader of term {term}"),
        Some((term, broker, false)) => format!("broker {broker} in term {term}"),
        None if bytes.is_empty() => "none yet".to_owned(),
        None => format!("{} bytes that are no vote", bytes.len()),
    }
}

fn vote_json(bytes: &[u8]) -> Value {
    vote(bytes).map_or(Value::Null, |(term, broker_id, committed)| {
        json!({ "term": term, "broker_id": broker_id, "committed": committed })
    })
}

fn list_entries(report: &Report, asked: &InspectArguments, output: Output) -> Result<(), Failure> {
    for segment in &report.segments {
        let Some(last) = segment.last else {
            continue;
        };
        for index in segment.first.index.max(asked.from)..=last.index.min(asked.to) {
            let entry = report.inspection.entry(segment, index);
            let entry = entry.map_err(|error| Failure::Operation(error.to_string()))?;
            let Some(entry) = entry else {
                continue;
            };
            let read = match output.json {
                true => say(entry_json(&entry)),
                false => say(format_args!(
                    "{:>12}  term {:<6} {}",
                    entry.index,
                    entry.term,
                    content(&entry)
                )),
            };
            if !read {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn entry_json(entry: &Entry) -> Value {
    json!({
        "index": entry.index,
        "term": entry.term,
        "kind": format!("{:?}", entry.kind).to_lowercase(),
        "bytes": entry.body.len(),
        "content": content(entry),
    })
}

/// What an entry says, in words.
fn content(entry: &Entry) -> String {
    let bytes = shown_bytes(entry.body.len() as u64);
    match entry.kind {
        EntryKind::Blank => "blank: a leader's first".to_owned(),
        EntryKind::Membership => format!("membership, {bytes}"),
        EntryKind::Roll => "roll: a segment begins".to_owned(),
        EntryKind::Normal => match command::Entry::decode(entry.body.clone()) {
            Err(error) => format!("{bytes} that cannot be read: {error}"),
            Ok(decoded) => {
                let commands: Vec<String> = decoded.commands.iter().map(words).collect();
                format!("{}  {}", shown(decoded.time_ms), commands.join(", "))
            }
        },
    }
}

fn words(command: &command::Command) -> String {
    match &command.body {
        Some(Body::Append(append)) => format!(
            "{} messages to queue {} of topic #{}",
            append.sizes_bytes.len(),
            append.queue,
            append.topic_id
        ),
        Some(Body::PutTopic(topic)) => {
            format!("topic {} with {} queues", topic.name, topic.queue_count)
        }
        Some(Body::DeleteTopic(topic)) => format!("delete topic {}", topic.name),
        Some(Body::PutGroup(group)) => format!("consumer group {}", group.name),
        Some(Body::DeleteGroup(group)) => format!("delete consumer group {}", group.name),
        Some(Body::CommitOffset(offset)) => format!(
            "{} of {} in queue {} of topic #{}: {}",
            if offset.reset { "reset" } else { "commit" },
            offset.group,
            offset.queue,
            offset.topic_id,
            offset.offset
        ),
        Some(Body::DropLog(dropped)) => format!("drop the log before {}", dropped.first_index),
        Some(Body::SendBack(back)) => format!(
            "send back of {} in queue {} of topic #{}: {} messages{}",
            back.group,
            back.queue,
            back.topic_id,
            back.failed.len(),
            if back.dead { ", dead" } else { "" },
        ),
        Some(Body::Settle(settled)) => format!(
            "settle of {} in queue {} of topic #{}: {} messages",
            settled.group,
            settled.queue,
            settled.topic_id,
            settled.settled.len()
        ),
        Some(Body::Keep(kept)) => format!("keep {} messages", kept.from.len()),
        Some(Body::DropDeadLetters(_)) => "drop old dead letters".to_owned(),
        Some(Body::BeginHistory(begins)) => format!("begin history {:x}", begins.mark),
        None => "a command of a newer version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a copy that is given addresses or a cluster that nothing can ever reach, or that no configuration may name.
    #[test]
    fn what_a_copy_becomes_is_checked_first() {
        use clap::Parser as _;
        let parse = |cluster: &str, client: &str, peer: &str| {
            let words = format!(
                "raftmq log restore dir --broker-id 4 --cluster-id={cluster} --client-address={client} \
                 --peer-address={peer}"
            );
            let parsed = crate::command::Arguments::try_parse_from(words.split(' '));
            parsed.map(|_| ()).map_err(|error| error.kind())
        };
        assert_eq!(parse("drill", "host7:8081", "host7:9081"), Ok(()));
        let invalid = Err(clap::error::ErrorKind::ValueValidation);
        assert_eq!(parse("drill", "host7", "host7:9081"), invalid);
        assert_eq!(parse("drill", "host7:8081", "host7:"), invalid);
        assert!(parse("", "host7:8081", "host7:9081").is_err());
    }

    /// Catches a vote that is read at other places than raft writes it.
    #[test]
    fn the_vote_is_read_as_raft_writes_it() {
        let mut bytes = [7_u64.to_le_bytes(), 2_u64.to_le_bytes()].concat();
        bytes.push(1);
        assert_eq!(shown_vote(&bytes), "broker 2, leader of term 7");
        assert_eq!(shown_vote(&[]), "none yet");
        assert_eq!(shown_vote(b"x"), "1 bytes that are no vote");
    }
}
