//! A fixed list.

use std::collections::BTreeSet;

use super::{Allocation, SharedQueue};
use crate::consumer::delivery::TopicQueue;

/// The queues of a fixed list, whoever else is a member. Whoever configures the members sees to it that every queue has
/// an owner.
#[derive(Clone, Debug, Default)]
pub struct Configured {
    queues: BTreeSet<TopicQueue>,
}

impl Configured {
    /// This member reads these queues, of whatever topics.
    pub fn new(queues: impl IntoIterator<Item = TopicQueue>) -> Configured {
        Configured {
            queues: queues.into_iter().collect(),
        }
    }
}

impl Allocation for Configured {
    fn share(&self, queues: &[SharedQueue], _members: &[String], _own: &str) -> Vec<TopicQueue> {
        let present = queues.iter().map(|shared| &shared.queue);
        let own = present.filter(|queue| self.queues.contains(*queue));
        own.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::properties_test::queues;
    use super::*;

    /// Catches a member that reads a queue which its topic does not have, or one that is not its own.
    #[test]
    fn only_what_is_configured_and_there() {
        let configured = Configured::new([1, 7].map(|queue| TopicQueue::new("t", queue)));
        let share = configured.share(&queues(4, 1), &["a".to_owned()], "a");
        assert_eq!(share, [TopicQueue::new("t", 1)]);
    }
}
