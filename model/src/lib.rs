//! RocketMQ's rules, each of them once: what names and messages may be, where a message goes, when it comes again.
//!
//! Brokers, name servers, clients and the simulator ask here, so that what one of them accepts, tells or expects is what the
//! others do. Pure: no input or output, no clock, nothing asynchronous. Never knows how anything is said on the wire, kept in
//! the log or stored on a disk.

pub mod dead_letter;
mod filter;
pub mod message;
mod message_id;
mod message_kind;
mod name;
pub mod namespace;
pub mod queue_choice;
pub mod retry;
pub mod system;

pub use filter::{Filter, FilterError};
pub use message_id::{MessageIdGenerator, id_number};
pub use message_kind::MessageKind;
pub use name::{GROUP_NAME_BYTES_MAX, GroupName, NameError, TOPIC_NAME_BYTES_MAX, TopicName};
pub use retry::RetryPolicy;

/// Number of a queue within its topic, from 0.
pub type QueueId = u32;
/// Place of a message in its queue, from 0, without gaps.
pub type QueueOffset = u64;
/// Number of a replica within its broker group. 0 names none.
pub type BrokerId = u64;
/// Milliseconds since the Unix epoch.
pub type TimestampMs = u64;
