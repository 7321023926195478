//! Which queues a member leaves alone for a while, because another one, who still lives, had them before. Pure.
//!
//! Every member remembers who had each queue after the last share-out, and gives that one the time to hear of the change,
//! to finish and to commit: whatever has changed, members or queues. What nobody had, or one who is gone, is taken at once.
//! Time in which nobody told who the members are does not count: the other one did not hear of the change either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use crate::consumer::allocation::{Allocation, SharedQueue};
use crate::consumer::delivery::TopicQueue;

/// The queues of one topic, and who shares them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TopicShare {
    pub(super) topic: Arc<str>,
    pub(super) queues: Vec<SharedQueue>,
    pub(super) members: Vec<String>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    /// The last share-out of each topic.
    last: BTreeMap<Arc<str>, Last>,
    /// Queues of this member that are left to their former owners until then.
    waits: BTreeMap<TopicQueue, Instant>,
    /// Topics whose members nobody told for a while, or another leader tells now, who has to hear of them first.
    interrupted: BTreeSet<Arc<str>>,
}

/// A share-out.
#[derive(Debug)]
struct Last {
    share: TopicShare,
    /// Who had each queue after it.
    owners: BTreeMap<TopicQueue, String>,
}

impl TopicShare {
    /// One member's queues.
    pub(super) fn share(&self, allocation: &dyn Allocation, member: &str) -> Vec<TopicQueue> {
        self.share_among(allocation, &self.members, member)
    }

    fn share_among(
        &self,
        allocation: &dyn Allocation,
        members: &[String],
        member: &str,
    ) -> Vec<TopicQueue> {
        let mut share = allocation.share(&self.queues, members, member);
        share.retain(|queue| self.queues.iter().any(|shared| shared.queue == *queue));
        share
    }

    /// Who has each queue if these are the members. What a strategy gives to several of them counts as `own`'s.
    fn owners(
        &self,
        allocation: &dyn Allocation,
        members: &[String],
        own: &str,
    ) -> BTreeMap<TopicQueue, String> {
        let others = members.iter().filter(|member| *member != own);
        let own = members.iter().filter(|member| *member == own);
        let owned = others.chain(own).flat_map(|member| {
            let share = self.share_among(allocation, members, member);
            share.into_iter().map(move |queue| (queue, member.clone()))
        });
        owned.collect()
    }
}

impl HandOver {
    /// One share-out of a topic, of which `own` does its part: what it gets of another living member waits until `until`.
    pub(super) fn note(
        &mut self,
        allocation: &dyn Allocation,
        share: &TopicShare,
        own: &str,
        now: Instant,
        until: Instant,
    ) {
        if self.interrupted.remove(&share.topic) {
            let of_topic = |(queue, _): &(&TopicQueue, _)| queue.topic == share.topic;
            for (_, wait) in self.waits.iter_mut().filter(of_topic) {
                *wait = until;
            }
        }
        let members = &share.members;
        let is_known = self
            .last
            .get(&share.topic)
            .is_some_and(|last| last.share == *share);
        if !is_known {
            let owners = share.owners(allocation, members, own);
            let former = match self.last.remove(&share.topic) {
                Some(last) => last.owners,
                // This member is new: before it came, the others shared what there is.
                None => {
                    let mut others = members.clone();
                    others.retain(|member| member != own);
                    share.owners(allocation, &others, own)
                }
            };
            let of_another = |owner: &String| owner != own && members.contains(owner);
            for (queue, owner) in &owners {
                if owner == own && former.get(queue).is_some_and(of_another) {
                    self.waits.insert(queue.clone(), until);
                }
            }
            let share = share.clone();
            self.last
                .insert(share.topic.clone(), Last { share, owners });
        }
        let last = &self.last;
        self.waits.retain(|queue, until| {
            let of_topic = last.get(&queue.topic);
            let owner = of_topic.and_then(|last| last.owners.get(queue));
            *until > now && owner.is_some_and(|owner| owner == own)
        });
    }

    /// Who shares a topic was not told, or is told by another leader now: waits for its queues begin again.
    pub(super) fn interrupt(&mut self, topic: &Arc<str>) {
        self.interrupted.insert(topic.clone());
    }

    /// This member has no part in a topic any more.
    pub(super) fn forget(&mut self, topic: &str) {
        self.last.remove(topic);
        self.interrupted.remove(topic);
        self.waits.retain(|queue, _| &*queue.topic != topic);
    }

    /// Whether a queue is left to its former owner yet.
    pub(super) fn waits(&self, queue: &TopicQueue) -> bool {
        self.waits.contains_key(queue)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::consumer::allocation::Averagely;

    const WAIT: Duration = Duration::from_secs(4);

    /// The numbers of the queues that `own` gets of a topic of `queues` queues, and of those that wait.
    fn share(
        hand_over: &mut HandOver,
        members: &str,
        queues: u32,
        own: &str,
        now: Instant,
    ) -> (Vec<u32>, Vec<u32>) {
        let members: Vec<String> = members.split_whitespace().map(str::to_owned).collect();
        let shared = |number| SharedQueue {
            queue: TopicQueue::new("t", number),
            broker_group: "g".into(),
        };
        let share_out = TopicShare {
            topic: "t".into(),
            queues: (0..queues).map(shared).collect(),
            members,
        };
        hand_over.note(&Averagely, &share_out, own, now, now + WAIT);
        let share = share_out.share(&Averagely, own);
        let waiting = share.iter().filter(|queue| hand_over.waits(queue));
        let waiting = waiting.map(|queue| queue.queue).collect();
        (share.iter().map(|queue| queue.queue).collect(), waiting)
    }

    /// Catches a queue that two members read because the topic grew and nobody left or came.
    #[test]
    fn queues_that_move_because_there_are_more_wait_for_their_owner() {
        let (mut first, mut second) = (HandOver::default(), HandOver::default());
        let start = Instant::now();
        assert_eq!(share(&mut first, "m1", 4, "m1", start).1, [0; 0]);
        assert_eq!(
            share(&mut second, "m1 m2", 4, "m2", start),
            (vec![2, 3], vec![2, 3])
        );
        assert_eq!(
            share(&mut first, "m1 m2", 4, "m1", start),
            (vec![0, 1], vec![])
        );
        let later = start + 2 * WAIT;
        assert_eq!(
            share(&mut first, "m1 m2", 8, "m1", later),
            (vec![0, 1, 2, 3], vec![2, 3])
        );
        assert_eq!(
            share(&mut second, "m1 m2", 8, "m2", later),
            (vec![4, 5, 6, 7], vec![]),
            "nobody had them"
        );
        let soon = later + WAIT / 2;
        assert_eq!(share(&mut first, "m1 m2", 8, "m1", soon).1, [2, 3]);
        assert_eq!(
            share(&mut first, "m1 m2", 8, "m1", later + WAIT).1,
            [0; 0],
            "the wait is over, and is not begun again"
        );
    }

    /// Catches a member that takes a queue right after an election, when its owner has not heard yet that it is to give it up,
    /// and could commit nothing meanwhile.
    #[test]
    fn time_without_a_leader_does_not_count() {
        let (mut hand_over, start) = (HandOver::default(), Instant::now());
        let mut waiting = |now, is_interrupted: bool| {
            if is_interrupted {
                hand_over.interrupt(&"t".into());
            }
            share(&mut hand_over, "m1 m2", 4, "m2", now).1
        };
        assert_eq!(waiting(start, false), [2, 3]);
        let elected = start + 2 * WAIT;
        assert_eq!(waiting(elected, true), [2, 3]);
        assert_eq!(waiting(elected + WAIT / 2, false), [2, 3]);
        assert_eq!(waiting(elected + WAIT, false), [0; 0]);
    }

    /// Catches a member that waits for one who is gone, and one that does not wait for one who lives.
    #[test]
    fn only_those_who_live_are_waited_for() {
        let (mut hand_over, start) = (HandOver::default(), Instant::now());
        assert_eq!(
            share(&mut hand_over, "m1 m2 m3", 6, "m2", start),
            (vec![2, 3], vec![2, 3])
        );
        let later = start + WAIT;
        assert_eq!(
            share(&mut hand_over, "m1 m2", 6, "m2", later),
            (vec![3, 4, 5], vec![]),
            "m3 is gone"
        );
        assert_eq!(
            share(&mut hand_over, "m1 m2 m3", 6, "m2", later),
            (vec![2, 3], vec![2]),
            "m1 had it"
        );
    }
}
