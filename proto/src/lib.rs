//! The words: what goes over the wire and into the log.
//!
//! Generated types, readers of encoded messages, and how the contract spells what `model` knows. Never does input or
//! output, never reads a clock, and never decides what a message may be or means to a broker.

// The simulator's tonic.
#[cfg(madsim)]
extern crate madsim_tonic as tonic;

mod endpoints;
mod kind;
pub mod message;
pub mod place;

pub use endpoints::endpoints;
pub use kind::{accepted_types, message_kind};
pub use model::{BrokerId, QueueId, QueueOffset, TimestampMs};

/// Longest encoded gRPC message that a client or a server of ours takes or makes, in bytes.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 130 * 1024 * 1024;

/// The encoded `FileDescriptorSet` of every .proto file of this crate, and of what they import.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The wire contract of RocketMQ 5 (`apache.rocketmq.v2`) as it is stated.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "generated code"
)]
pub mod v2 {
    tonic::include_proto!("apache.rocketmq.v2");
}

/// The messaging service with encoded messages in place of decoded ones; the same on the wire as
/// [`v2`], from which every other type comes.
///
/// `SendMessageRequest::messages`, `ReceiveMessageResponse`'s and `PullMessageResponse`'s
/// `Content::Message` are [`bytes::Bytes`]: one encoded [`v2::Message`] each, slices of the buffer
/// that was received.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "generated code"
)]
pub mod opaque {
    tonic::include_proto!("opaque");
}

/// Replica to replica.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "generated code"
)]
pub mod raft {
    tonic::include_proto!("raftmq.raft.v1");
}

/// What is written in the log.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "generated code"
)]
pub mod command {
    tonic::include_proto!("raftmq.command.v1");
}

/// Brokers, name servers and the command line among themselves.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "generated code"
)]
pub mod cluster {
    tonic::include_proto!("raftmq.cluster.v1");
}

/// Retries and dead letters, between consumers and brokers.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "generated code"
)]
pub mod redelivery {
    tonic::include_proto!("raftmq.redelivery.v1");
}
