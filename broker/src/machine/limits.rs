//! How much the machine takes. The numbers are part of the rules that all replicas must share:
//! changing one is a change of the log's meaning.

/// Topics of a broker group.
pub(super) const TOPICS_MAX: usize = 16_384;
/// Queues of one topic.
pub(super) const QUEUES_PER_TOPIC_MAX: u32 = 1_024;
/// Queues of all topics together.
pub(super) const QUEUES_MAX: usize = 131_072;
/// Consumer groups of a broker group.
pub(super) const GROUPS_MAX: usize = 16_384;
/// Places of consumer groups in queues, of all groups together.
pub(super) const OFFSETS_MAX: usize = 1 << 20;
/// Bytes of a topic's or group's name.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// Attributes of one topic or group.
pub(crate) const ATTRIBUTES_MAX: usize = 64;
/// Bytes of the names and values of one topic's or group's attributes together.
pub(crate) const ATTRIBUTES_BYTES_MAX: usize = 16 << 10;
/// Bytes for remembering messages, whatever an entry says.
pub(super) const DEDUP_BYTES_MAX: u64 = 1 << 30;
/// Deliveries in one command that sends messages back, or settles them.
pub(crate) const DELIVERIES_MAX: usize = 1_024;
/// Messages of one queue that wait for another delivery to one group.
pub(super) const RETRIES_PER_QUEUE_MAX: usize = 16_384;
/// Messages that wait for another delivery to one group.
pub(super) const RETRIES_PER_GROUP_MAX: usize = 1 << 17;
/// Messages that wait for another delivery, of all groups together; see [`Share`].
pub(super) const RETRIES_MAX: usize = 1 << 18;
/// Messages that groups were done with lately, of all groups together. Whoever has most forgets first.
pub(super) const SETTLED_MAX: usize = 1 << 18;
/// Messages in one dead-letter queue.
pub(super) const DEAD_LETTERS_PER_GROUP_MAX: usize = 1 << 17;
/// Messages in all dead-letter queues together; see [`Share`].
pub(super) const DEAD_LETTERS_MAX: usize = 1 << 19;
/// Dead letters that one command ends.
pub(crate) const DEAD_LETTERS_DROPPED_AT_ONCE: usize = 4_096;

/// What one group has of something of which all together have a bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// What the group has.
    pub(super) own: usize,
    /// What all groups have, this one included.
    pub(super) all: usize,
    /// Groups that have any.
    pub(super) groups: usize,
    /// Most that one group may have.
    pub(super) own_max: usize,
    /// Most that all may have, but for fair parts.
    pub(super) all_max: usize,
}

impl Share {
    /// Whether the group may have so many more: up to its own bound while there are some left, and its fair part also where
    /// others have taken theirs and more. So nobody takes everything, and all together have at most `1 + ln(groups)` times
    /// `all_max`.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let groups = self.groups + usize::from(self.own == 0);
        let own = self.own + more;
        own <= self.own_max && (self.all + more <= self.all_max || own * groups <= self.all_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches groups that leave nothing to the next, however many they are, and a sum without bound.
    #[test]
    fn every_group_gets_its_part_and_all_together_have_a_bound() {
        let (own_max, all_max) = (4_000, 10_000);
        let (mut all, mut fair) = (0, 0);
        for groups in 0..100_usize {
            let mut own = 0;
            let share = |own, all| Share {
                own,
                all,
                groups: groups + usize::from(own > 0),
                own_max,
                all_max,
            };
            while share(own, all).has_room(1) {
                own += 1;
                all += 1;
            }
            fair += all_max / (groups + 1);
            assert!(
                own >= own_max.min(all_max / (groups + 1)),
                "group {groups}: {own}"
            );
            assert!(own <= own_max, "group {groups}: {own}");
        }
        assert!(all <= all_max + fair, "{all}");
    }
}
