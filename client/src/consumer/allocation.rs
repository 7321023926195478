//! Who reads which queue: every member computes the same answer from the same two sorted lists. Pure.
//!
//! The strategies are RocketMQ's. A strategy of one's own is anything that implements [`Allocation`].

mod averagely;
mod averagely_by_circle;
mod configured;
mod consistent_hash;
mod machine_room;
mod machine_room_nearby;
#[cfg(test)]
mod properties_test;

use std::fmt::Debug;
use std::sync::Arc;

pub use averagely::Averagely;
pub use averagely_by_circle::AveragelyByCircle;
pub use configured::Configured;
pub use consistent_hash::ConsistentHash;
pub use machine_room::MachineRoom;
pub use machine_room_nearby::MachineRoomNearby;

use crate::consumer::delivery::TopicQueue;

/// A queue that the members of a group share among themselves, and where it is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SharedQueue {
    /// The queue.
    pub queue: TopicQueue,
    /// Name of the broker group that has it.
    pub broker_group: Arc<str>,
}

/// Shares the queues of a topic among the members of a consumer group.
///
/// Every member computes its own share and asks nobody. So all members of a group must use the same strategy, and a
/// strategy must answer by its arguments alone: then each queue has one owner as soon as all members have heard of
/// a change. Until then a queue may have two, or none; at-least-once delivery holds all the same.
pub trait Allocation: Debug + Send + Sync + 'static {
    /// What `own` reads. `queues` (of one topic) and `members` (their client ids) are sorted and without duplicates;
    /// `own` is among the members. What is not among the queues is ignored.
    fn share(&self, queues: &[SharedQueue], members: &[String], own: &str) -> Vec<TopicQueue>;
}

/// The block of `count` things that the member at `place` of `members` gets: contiguous, sizes differ by one at most.
fn block(count: usize, members: usize, place: usize) -> std::ops::Range<usize> {
    let (size, larger) = (count / members, count % members);
    let start = place * size + place.min(larger);
    start..start + size + usize::from(place < larger)
}

/// The place of `own` among the members.
fn place_of(members: &[String], own: &str) -> Option<usize> {
    members.iter().position(|member| member == own)
}
