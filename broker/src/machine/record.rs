//! How topics and groups are written in their tables.
//!
//! Protobuf, with attributes sorted by name: the same settings are the same bytes on every replica.
//! Fields are added, never renumbered.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use prost::Message;
use proto::command::CommandReply;
use proto::command::command_reply::Refusal;
use proto::command::put_group::ConsumeFrom;
use store::{Batch, StoreError, table};

use super::entry::refused;
use super::limits::{ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX, NAME_BYTES_MAX};
use super::settings::{Group, Since, Topic};

/// A topic's row; its id is in the key.
#[derive(Clone, PartialEq, Eq, Message)]
struct TopicRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    queue_count: u32,
    #[prost(int32, tag = "3")]
    message_type: i32,
    #[prost(btree_map = "string, string", tag = "4")]
    attributes: BTreeMap<String, String>,
    #[prost(bool, tag = "5")]
    dead_letters: bool,
    #[prost(uint64, tag = "6")]
    mark: u64,
}

/// A consumer group's row; its name is in the key.
#[derive(Clone, PartialEq, Eq, Message)]
struct GroupRecord {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(bool, tag = "2")]
    fifo: bool,
    #[prost(int32, tag = "3")]
    max_attempts: i32,
    #[prost(enumeration = "ConsumeFrom", tag = "4")]
    consume_from: i32,
    #[prost(uint64, tag = "5")]
    consume_from_ms: u64,
    #[prost(btree_map = "string, string", tag = "6")]
    attributes: BTreeMap<String, String>,
    #[prost(uint64, tag = "7")]
    since_index: u64,
    #[prost(uint32, tag = "8")]
    since_command: u32,
    #[prost(uint64, tag = "9")]
    since_ms: u64,
    #[prost(bool, tag = "10")]
    since_elsewhere: bool,
}

pub(super) fn put_topic(batch: &mut Batch, topic: &Topic) {
    let record = TopicRecord {
        name: topic.name.clone(),
        queue_count: topic.queue_count,
        message_type: topic.message_type,
        attributes: topic.attributes.clone(),
        dead_letters: topic.dead_letters,
        mark: topic.mark,
    };
    table::topic::put(batch, topic.id, &record.encode_to_vec());
}

pub(super) fn read_topic(id: u64, record: Bytes) -> Result<Topic, StoreError> {
    let record = TopicRecord::decode(record)
        .map_err(|error| table::topic::corrupt(format!("topic {id}: {error}")))?;
    Ok(Topic {
        id,
        name: record.name,
        queue_count: record.queue_count,
        message_type: record.message_type,
        attributes: record.attributes,
        dead_letters: record.dead_letters,
        mark: record.mark,
    })
}

pub(super) fn put_group(batch: &mut Batch, group: &Group) {
    let record = GroupRecord {
        id: group.id,
        fifo: group.fifo,
        max_attempts: group.max_attempts,
        consume_from: group.consume_from,
        consume_from_ms: group.consume_from_ms,
        attributes: group.attributes.clone(),
        since_index: group.since.log_index,
        since_command: group.since.command,
        since_ms: group.since.time_ms,
        since_elsewhere: group.since.elsewhere,
    };
    table::group::put(batch, &group.name, &record.encode_to_vec());
}

pub(super) fn read_group(name: &str, record: Bytes) -> Result<Group, StoreError> {
    let record = GroupRecord::decode(record)
        .map_err(|error| table::group::corrupt(format!("group {name}: {error}")))?;
    Ok(Group {
        id: record.id,
        name: name.to_owned(),
        fifo: record.fifo,
        max_attempts: record.max_attempts,
        consume_from: record.consume_from,
        consume_from_ms: record.consume_from_ms,
        attributes: record.attributes,
        since: Since {
            log_index: record.since_index,
            command: record.since_command,
            time_ms: record.since_ms,
            elsewhere: record.since_elsewhere,
        },
    })
}

/// Names are checked in full where requests come in; here only what keeps the tables sound.
pub(super) fn check_name(name: &str) -> Result<(), CommandReply> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let detail = format!("a name has 1 to {NAME_BYTES_MAX} bytes, not {}", name.len());
        return Err(refused(Refusal::Invalid, detail));
    }
    Ok(())
}

pub(super) fn check_attributes(attributes: &HashMap<String, String>) -> Result<(), CommandReply> {
    // A sum does not depend on the order in which a hash map is walked.
    let bytes: usize = attributes
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if attributes.len() > ATTRIBUTES_MAX || bytes > ATTRIBUTES_BYTES_MAX {
        let detail =
            format!("at most {ATTRIBUTES_MAX} attributes of {ATTRIBUTES_BYTES_MAX} bytes together");
        return Err(refused(Refusal::TooMany, detail));
    }
    Ok(())
}
