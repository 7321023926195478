//! What a reset would do, before it does anything: pure.

use raftmq_client::TopicQueue;

use crate::failure::Failure;

/// Where the group is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// At the oldest message.
    Begin,
    /// After the newest message.
    End,
    /// The same, and nothing comes again of what waits for another delivery.
    BehindBacklog,
    /// At this offset.
    Offset(u64),
    /// At the first message stored at or after this time, milliseconds since the Unix epoch.
    TimeMs(u64),
}

/// A queue as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) queue: TopicQueue,
    pub(super) min_offset: u64,
    pub(super) max_offset: u64,
    pub(super) committed: Option<u64>,
    /// Where the group goes on; unknown if it has not to do with the queue yet.
    pub(super) next: Option<u64>,
    /// Messages that wait for another delivery.
    pub(super) retries: u64,
    /// Where the target's time is, if it is one.
    pub(super) at_time: Option<u64>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) place: Place,
    pub(super) to: u64,
    /// Messages that wait for another delivery and will not come again.
    pub(super) given_up: u64,
}

impl Move {
    /// Messages that will be delivered again (positive) or passed over (negative); none where nobody knows where the group
    /// would have gone on.
    pub(super) fn again(&self) -> Option<i128> {
        Some(i128::from(self.place.next?) - i128::from(self.to))
    }
}

/// The changes that bring every place to the target; places that are there already need none.
pub(super) fn moves(places: Vec<Place>, target: Target) -> Result<Vec<Move>, Failure> {
    let mut moves = Vec::new();
    for place in places {
        let to = match target {
            Target::Begin => place.min_offset,
            Target::End | Target::BehindBacklog => place.max_offset,
            Target::TimeMs(_) => place.at_time.unwrap_or(place.max_offset),
            Target::Offset(offset) => offset,
        };
        let valid = place.min_offset..=place.max_offset;
        if !valid.contains(&to) {
            return Err(Failure::Configuration(format!(
                "offset {to} is not between {} and {}, which queue {} has; name one queue with --queue",
                place.min_offset, place.max_offset, place.queue
            )));
        }
        let given_up = match target {
            Target::BehindBacklog => place.retries,
            _ => 0,
        };
        if place.committed != Some(to) || given_up > 0 {
            moves.push(Move {
                place,
                to,
                given_up,
            });
        }
    }
    Ok(moves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(queue: u32, committed: Option<u64>) -> Place {
        Place {
            queue: TopicQueue::new("orders", queue),
            min_offset: 10,
            max_offset: 100,
            committed,
            next: committed.map(|offset| offset.clamp(10, 100)),
            retries: 0,
            at_time: Some(40),
        }
    }

    fn targets(target: Target) -> Vec<(u64, Option<i128>)> {
        let places = vec![place(0, Some(50)), place(1, None), place(2, Some(5))];
        let moves = moves(places, target).unwrap();
        moves.iter().map(|one| (one.to, one.again())).collect()
    }

    /// Catches a dry run that promises something else than what is done, and miscounts what comes again.
    #[test]
    fn each_target_is_found_in_each_queue() {
        assert_eq!(
            targets(Target::Begin),
            [(10, Some(40)), (10, None), (10, Some(0))]
        );
        assert_eq!(
            targets(Target::End),
            [(100, Some(-50)), (100, None), (100, Some(-90))]
        );
        assert_eq!(
            targets(Target::TimeMs(7)),
            [(40, Some(10)), (40, None), (40, Some(-30))]
        );
        assert_eq!(targets(Target::Offset(50)), [(50, None), (50, Some(-40))]);
    }

    /// Catches an offset that a queue does not have and that the broker would refuse half way through.
    #[test]
    fn an_offset_outside_of_a_queue_is_refused_before_anything_is_done() {
        for offset in [9, 101] {
            let error = moves(vec![place(0, None)], Target::Offset(offset)).unwrap_err();
            assert!(error.to_string().contains("between 10 and 100"), "{error}");
        }
    }

    /// Catches a backlog that is skipped but for what of it waits for another delivery, and comes again.
    #[test]
    fn a_backlog_is_also_what_waits_for_another_delivery() {
        let all_read = Place {
            retries: 3,
            ..place(0, Some(100))
        };
        let skip = moves(vec![all_read.clone()], Target::BehindBacklog).unwrap();
        assert_eq!((skip[0].to, skip[0].given_up), (100, 3));
        assert_eq!(moves(vec![all_read], Target::End).unwrap(), []);
    }
}
