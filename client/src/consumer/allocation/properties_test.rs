//! What strategies promise for any members and queues.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Queues 0 to `count - 1`, in turn of the broker groups `room-0@group` to `room-<groups - 1>@group`.
pub(super) fn queues(count: u32, groups: u32) -> Vec<SharedQueue> {
    (0..count)
        .map(|queue| SharedQueue {
            queue: TopicQueue::new("t", queue),
            broker_group: format!("room-{}@group", queue % groups).into(),
        })
        .collect()
}

fn members(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("room-{}@member-{number:02}", number % 3))
        .collect()
}

/// Who reads each queue; a queue with two owners fails.
fn owners(
    strategy: &dyn Allocation,
    queues: &[SharedQueue],
    members: &[String],
) -> BTreeMap<TopicQueue, String> {
    let mut owners = BTreeMap::new();
    for member in members {
        for queue in strategy.share(queues, members, member) {
            let before = owners.insert(queue.clone(), member.clone());
            assert_eq!(before, None, "{queue} has two owners by {strategy:?}");
        }
    }
    owners
}

fn whole() -> Vec<Box<dyn Allocation>> {
    vec![
        Box::new(Averagely),
        Box::new(AveragelyByCircle),
        Box::new(ConsistentHash::default()),
        Box::new(MachineRoomNearby::new(Averagely)),
        Box::new(MachineRoomNearby::new(ConsistentHash::default())),
    ]
}

proptest! {
    /// Catches a queue that nobody reads, and one that two read.
    #[test]
    fn each_queue_has_exactly_one_owner(queue_count in 0u32..100, groups in 1u32..5, member_count in 1usize..20) {
        let (queues, mut members) = (queues(queue_count, groups), members(member_count));
        members.sort();
        for strategy in whole() {
            let owners = owners(&*strategy, &queues, &members);
            prop_assert_eq!(owners.len(), queues.len(), "{:?}", strategy);
        }
    }

    /// Catches an unfair share where a fair one is promised.
    #[test]
    fn shares_differ_by_one_at_most(queue_count in 0u32..100, member_count in 1usize..20) {
        let (queues, mut members) = (queues(queue_count, 3), members(member_count));
        members.sort();
        for strategy in [&Averagely as &dyn Allocation, &AveragelyByCircle] {
            let sizes = members.iter().map(|member| strategy.share(&queues, &members, member).len());
            let (least, most) = (sizes.clone().min().unwrap_or(0), sizes.max().unwrap_or(0));
            prop_assert!(most - least <= 1, "{strategy:?}: {least} to {most}");
        }
    }

    /// Catches a queue that moves although its owner stays: by the ring only the leaver's queues may.
    #[test]
    fn by_the_ring_only_the_leavers_queues_move(queue_count in 1u32..100, member_count in 2usize..20, leaver: prop::sample::Index) {
        let (queues, mut before) = (queues(queue_count, 3), members(member_count));
        before.sort();
        let mut after = before.clone();
        let left = after.remove(leaver.index(before.len()));
        let strategy = ConsistentHash::default();
        let (old, new) = (owners(&strategy, &queues, &before), owners(&strategy, &queues, &after));
        for (queue, owner) in old {
            prop_assert!(owner == left || new[&queue] == owner, "{queue} moved from {owner}");
        }
    }
}

/// Catches a consumer that reads although the servers do not count it as a member.
#[test]
fn a_stranger_gets_nothing() {
    for strategy in whole() {
        assert_eq!(strategy.share(&queues(3, 1), &["a".to_owned()], "b"), []);
        assert_eq!(strategy.share(&queues(3, 1), &[], "b"), []);
    }
}
