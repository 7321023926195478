//! The queues of a machine room to its members, as long as it has any.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use super::machine_room::room_of_group;
use super::{Allocation, SharedQueue};
use crate::consumer::delivery::TopicQueue;

/// Tells the machine room of a member by its client id.
type RoomOfMember = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Members read the queues of their own machine room; the queues of a room without members, or of none, are shared by
/// all. Within a room, and among all, another strategy decides.
///
/// The room of a broker group is what its name says before `@`. The room of a member is what its client id says before
/// `@`, unless [`MachineRoomNearby::room_of_member`] says otherwise.
#[derive(Clone)]
pub struct MachineRoomNearby<A> {
    within: A,
    room_of_member: RoomOfMember,
}

impl<A: Allocation> MachineRoomNearby<A> {
    /// Within a room `within` decides.
    pub fn new(within: A) -> MachineRoomNearby<A> {
        MachineRoomNearby {
            within,
            room_of_member: Arc::new(|client_id| room_of_group(client_id).map(str::to_owned)),
        }
    }

    /// How to tell a member's machine room from its client id; the same in all members.
    #[must_use]
    pub fn room_of_member(
        mut self,
        room: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.room_of_member = Arc::new(room);
        self
    }
}

impl<A: Debug> Debug for MachineRoomNearby<A> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MachineRoomNearby")
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

impl<A: Allocation> Allocation for MachineRoomNearby<A> {
    fn share(&self, queues: &[SharedQueue], members: &[String], own: &str) -> Vec<TopicQueue> {
        let rooms: Vec<Option<String>> = members
            .iter()
            .map(|member| (self.room_of_member)(member))
            .collect();
        let own_room = (self.room_of_member)(own);
        let is_manned = |room: Option<&str>| {
            room.is_some_and(|room| rooms.iter().flatten().any(|manned| manned == room))
        };
        let (manned, others): (Vec<SharedQueue>, Vec<SharedQueue>) = queues
            .iter()
            .cloned()
            .partition(|shared| is_manned(room_of_group(&shared.broker_group)));
        let mut share = self.within.share(&others, members, own);
        if let Some(own_room) = own_room {
            let near: Vec<SharedQueue> = manned
                .into_iter()
                .filter(|shared| room_of_group(&shared.broker_group) == Some(&own_room))
                .collect();
            let neighbours: Vec<String> = members
                .iter()
                .zip(&rooms)
                .filter(|(_, room)| room.as_ref() == Some(&own_room))
                .map(|(member, _)| member.clone())
                .collect();
            share.extend(self.within.share(&near, &neighbours, own));
        }
        share
    }
}

#[cfg(test)]
mod tests {
    use super::super::Averagely;
    use super::super::properties_test::queues;
    use super::*;

    fn read(members: &[&str]) -> Vec<Vec<u32>> {
        let (queues, strategy) = (queues(6, 3), MachineRoomNearby::new(Averagely));
        let members: Vec<String> = members.iter().map(|member| (*member).to_owned()).collect();
        let share = |member: &String| strategy.share(&queues, &members, member);
        let numbers = |share: Vec<TopicQueue>| share.iter().map(|queue| queue.queue).collect();
        members.iter().map(share).map(numbers).collect()
    }

    /// Catches a queue that is read from afar although a neighbour lives, and one that nobody reads.
    #[test]
    fn neighbours_first_and_everybody_for_the_rest() {
        // Queues 0 and 3 are in room 0, 1 and 4 in room 1, 2 and 5 in room 2.
        assert_eq!(
            read(&["room-0@a", "room-1@b", "room-2@c"]),
            [[0, 3], [1, 4], [2, 5]]
        );
        assert_eq!(read(&["room-0@a", "room-1@b"]), [[2, 0, 3], [5, 1, 4]]);
        assert_eq!(read(&["a", "b"]), [[0, 1, 2], [3, 4, 5]]);
    }
}
