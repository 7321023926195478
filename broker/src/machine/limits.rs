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
/// Attempts of a group that names no number.
pub(crate) const ATTEMPTS_DEFAULT: u32 = 16;
/// Messages of one queue that wait for another delivery to one group.
pub(super) const RETRIES_PER_QUEUE_MAX: usize = 16_384;
/// Messages that wait for another delivery, of all groups together.
pub(super) const RETRIES_MAX: usize = 1 << 18;
/// Messages that groups were done with lately, of all groups together.
pub(super) const SETTLED_MAX: usize = 1 << 18;
/// Messages in one dead-letter queue.
pub(super) const DEAD_LETTERS_PER_GROUP_MAX: usize = 1 << 17;
/// Messages in all dead-letter queues together.
pub(super) const DEAD_LETTERS_MAX: usize = 1 << 19;
/// Dead letters that one command ends.
pub(crate) const DEAD_LETTERS_DROPPED_AT_ONCE: usize = 4_096;
