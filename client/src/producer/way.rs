//! One request's way from broker group to broker group: whose turn it is, and how far it got with each. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::pursuit::Pursuit;
use crate::route::Route;

/// See the module's text.
pub(super) struct Way {
    /// The call as far as it got with the broker group whose turn it is.
    pub(super) pursuit: Pursuit,
    /// The same for those that had their turn: they go on with their next replica.
    others: BTreeMap<Arc<str>, Pursuit>,
    queue_turn: usize,
}

impl Way {
    pub(super) fn new(group: Arc<str>, retries: u32) -> Way {
        Way {
            pursuit: Pursuit::new(group, retries),
            others: BTreeMap::new(),
            queue_turn: 0,
        }
    }

    /// The broker group that comes next, one of its queues, and whether it had a turn before: the next one in order that
    /// need not be avoided, or the next one of all. `None` if there is no other.
    pub(super) fn next_group(
        &self,
        route: &Route,
        avoided: &BTreeSet<Arc<str>>,
    ) -> Option<(Arc<str>, u32, bool)> {
        let here = self.pursuit.group();
        let mut queues: Vec<(&Arc<str>, u32)> = route
            .writable()
            .filter(|queue| queue.group != *here)
            .map(|queue| (&queue.group, queue.queue))
            .collect();
        queues.sort();
        let behind = queues.partition_point(|(group, _)| *group < here);
        queues.rotate_left(behind);
        let good = queues.iter().find(|(group, _)| !avoided.contains(*group));
        let (group, _) = *good.or(queues.first())?;
        // Its queues take turns with the attempts, not always the first one.
        let of_group: Vec<u32> = queues
            .iter()
            .filter(|(other, _)| *other == group)
            .map(|(_, queue)| *queue)
            .collect();
        let queue = of_group[self.others.len() % of_group.len()];
        Some((group.clone(), queue, self.others.contains_key(group)))
    }

    /// A queue of the broker group whose turn it is, another one each time; none if it takes nothing.
    pub(super) fn next_queue(&mut self, route: &Route) -> Option<u32> {
        let here = self.pursuit.group();
        let mut queues = route.writable().filter(|queue| queue.group == *here);
        let count = queues.clone().count();
        self.queue_turn += 1;
        queues
            .nth(self.queue_turn % count.max(1))
            .map(|queue| queue.queue)
    }

    /// It is this broker group's turn.
    pub(super) fn go_to(&mut self, group: Arc<str>) {
        let next = self.others.remove(&group);
        let next = next.unwrap_or_else(|| self.pursuit.elsewhere(group));
        let here = std::mem::replace(&mut self.pursuit, next);
        self.others.insert(here.group().clone(), here);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::route::RouteQueue;

    fn route() -> Route {
        let queue = |(queue, group): (u32, &str)| RouteQueue {
            queue,
            group: group.into(),
            readable: true,
            writable: queue != 3,
        };
        let queues = [(0, "b"), (1, "a"), (2, "c"), (3, "d"), (4, "b")];
        Route {
            topic: "t".into(),
            queues: queues.map(queue).into(),
            fetched: Instant::now(),
        }
    }

    /// Catches a request that is passed between two of three groups, one that goes where nothing is taken, and one that
    /// waits before it has tried everybody.
    #[test]
    fn every_group_has_its_turn_before_one_has_its_second() {
        let (route, mut way) = (route(), Way::new("b".into(), 2));
        let mut turns = Vec::new();
        for _ in 0..5 {
            let next = way.next_group(&route, &BTreeSet::new());
            let (group, queue, again) = next.expect("there are others");
            turns.push((group.to_string(), again));
            assert!(route.group_of(queue) == group);
            way.go_to(group);
        }
        let expected = [
            ("c", false),
            ("a", false),
            ("b", true),
            ("c", true),
            ("a", true),
        ];
        assert_eq!(
            turns,
            expected.map(|(group, again)| (group.to_owned(), again))
        );
    }

    /// Catches a request that goes where it is known to be slow although there is a better place, or that goes nowhere.
    #[test]
    fn groups_to_keep_away_from_come_last() {
        let (route, way) = (route(), Way::new("b".into(), 2));
        let next = |avoided: &[&str]| {
            let avoided = avoided.iter().map(|group| Arc::from(*group)).collect();
            way.next_group(&route, &avoided)
                .map(|next| next.0.to_string())
        };
        assert_eq!(next(&["c"]).as_deref(), Some("a"));
        assert_eq!(next(&["a", "c"]).as_deref(), Some("c"));
    }
}
