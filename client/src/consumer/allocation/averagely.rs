//! Contiguous blocks of equal size.

use super::{Allocation, SharedQueue, block, place_of};
use crate::consumer::delivery::TopicQueue;

/// Contiguous blocks of queues, in the order of the client ids; sizes differ by one at most. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Averagely;

impl Allocation for Averagely {
    fn share(&self, queues: &[SharedQueue], members: &[String], own: &str) -> Vec<TopicQueue> {
        let Some(place) = place_of(members, own) else {
            return Vec::new();
        };
        let block = &queues[block(queues.len(), members.len(), place)];
        block.iter().map(|shared| shared.queue.clone()).collect()
    }
}
