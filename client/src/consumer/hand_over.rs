//! Which queues a member leaves alone for a while, because another one, who still lives, had them before. Pure.
//!
//! Every member remembers who had each queue after the last share-out, and gives that one the time to hear of the change,
//! to finish and to commit: whatever has changed, members or queues. What nobody had, or one who is gone, is taken at once.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::consumer::allocation::{Allocation, SharedQueue};
use crate::consumer::delivery::TopicQueue;

/// Members, what they share, and how.
pub(super) struct ShareOut<'a> {
    pub(super) allocation: &'a dyn Allocation,
    /// Of each topic.
    pub(super) queues: Vec<Vec<SharedQueue>>,
    pub(super) members: &'a [String],
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    /// Members and queues of the last share-out.
    last: Option<(Vec<String>, Vec<Vec<SharedQueue>>)>,
    /// Who had each queue after it.
    owners: BTreeMap<TopicQueue, String>,
    /// Queues of this member that are left to their former owners until then.
    waits: BTreeMap<TopicQueue, Instant>,
}

impl ShareOut<'_> {
    /// One member's queues.
    pub(super) fn share(&self, member: &str) -> Vec<TopicQueue> {
        self.share_among(self.members, member)
    }

    fn share_among(&self, members: &[String], member: &str) -> Vec<TopicQueue> {
        let mut shares = Vec::new();
        for queues in &self.queues {
            let mut share = self.allocation.share(queues, members, member);
            share.retain(|queue| queues.iter().any(|shared| shared.queue == *queue));
            shares.append(&mut share);
        }
        shares
    }

    /// Who has each queue if these are the members. What a strategy gives to several of them counts as `own`'s.
    fn owners(&self, members: &[String], own: &str) -> BTreeMap<TopicQueue, String> {
        let others = members.iter().filter(|member| *member != own);
        let own = members.iter().filter(|member| *member == own);
        let owned = others.chain(own).flat_map(|member| {
            let share = self.share_among(members, member);
            share.into_iter().map(move |queue| (queue, member.clone()))
        });
        owned.collect()
    }
}

impl HandOver {
    /// One share-out, of which `own` does its part: what it gets of another living member waits until `until`.
    pub(super) fn note(
        &mut self,
        share_out: &ShareOut<'_>,
        own: &str,
        now: Instant,
        until: Instant,
    ) {
        let members = share_out.members;
        let is_known = self
            .last
            .as_ref()
            .is_some_and(|(known, queues)| known == members && *queues == share_out.queues);
        if !is_known {
            let owners = share_out.owners(members, own);
            let former = match &self.last {
                Some(_) => std::mem::take(&mut self.owners),
                // This member is new: before it came, the others shared what there is.
                None => {
                    let mut others = members.to_vec();
                    others.retain(|member| member != own);
                    share_out.owners(&others, own)
                }
            };
            let of_another = |owner: &String| owner != own && members.contains(owner);
            for (queue, owner) in &owners {
                if owner == own && former.get(queue).is_some_and(of_another) {
                    self.waits.insert(queue.clone(), until);
                }
            }
            self.owners = owners;
            self.last = Some((members.to_vec(), share_out.queues.clone()));
        }
        let owners = &self.owners;
        self.waits.retain(|queue, until| {
            *until > now && owners.get(queue).is_some_and(|owner| owner == own)
        });
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
        let share_out = ShareOut {
            allocation: &Averagely,
            queues: vec![(0..queues).map(shared).collect()],
            members: &members,
        };
        hand_over.note(&share_out, own, now, now + WAIT);
        let share = share_out.share(own);
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
