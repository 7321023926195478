//! Only the queues of some machine rooms.

use std::collections::BTreeSet;

use super::{Allocation, SharedQueue, block, place_of};
use crate::consumer::delivery::TopicQueue;

/// Contiguous blocks of equal size, as [`super::Averagely`], of those queues only whose broker group stands in one of
/// the given machine rooms. The room of a broker group is what its name says before `@`: `east@orders-1` is in `east`.
/// All members read the same rooms; the other queues have no owner in this group.
#[derive(Clone, Debug, Default)]
pub struct MachineRoom {
    rooms: BTreeSet<String>,
}

impl MachineRoom {
    /// Reads the queues of these rooms.
    pub fn new<S: Into<String>>(rooms: impl IntoIterator<Item = S>) -> MachineRoom {
        MachineRoom {
            rooms: rooms.into_iter().map(Into::into).collect(),
        }
    }
}

/// The machine room that a broker group's name tells, if it tells one.
pub(super) fn room_of_group(broker_group: &str) -> Option<&str> {
    broker_group.split_once('@').map(|(room, _)| room)
}

impl Allocation for MachineRoom {
    fn share(&self, queues: &[SharedQueue], members: &[String], own: &str) -> Vec<TopicQueue> {
        let Some(place) = place_of(members, own) else {
            return Vec::new();
        };
        let is_near = |shared: &&SharedQueue| {
            let room = room_of_group(&shared.broker_group);
            room.is_some_and(|room| self.rooms.contains(room))
        };
        let near: Vec<&SharedQueue> = queues.iter().filter(is_near).collect();
        let block = &near[block(near.len(), members.len(), place)];
        block.iter().map(|shared| shared.queue.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::properties_test::queues;
    use super::*;

    /// Catches a member that reads across rooms, and a queue of the room that nobody reads.
    #[test]
    fn only_queues_of_the_rooms_are_shared() {
        let (queues, members) = (queues(7, 2), ["a", "b"].map(str::to_owned));
        let strategy = MachineRoom::new(["room-1"]);
        let read: Vec<u32> = members
            .iter()
            .flat_map(|member| strategy.share(&queues, &members, member))
            .map(|queue| queue.queue)
            .collect();
        assert_eq!(read, [1, 3, 5]);
        assert!(
            MachineRoom::default()
                .share(&queues, &members, "a")
                .is_empty()
        );
    }
}
