//! Dealt out in turn, like cards.

use super::{Allocation, SharedQueue, place_of};
use crate::consumer::delivery::TopicQueue;

/// Queues are dealt out in turn, in the order of the client ids; sizes differ by one at most. Neighbouring queues, which
/// one broker group may have, go to different members.
#[derive(Clone, Copy, Debug, Default)]
pub struct AveragelyByCircle;

impl Allocation for AveragelyByCircle {
    fn share(&self, queues: &[SharedQueue], members: &[String], own: &str) -> Vec<TopicQueue> {
        let Some(place) = place_of(members, own) else {
            return Vec::new();
        };
        let dealt = queues.iter().skip(place).step_by(members.len());
        dealt.map(|shared| shared.queue.clone()).collect()
    }
}
