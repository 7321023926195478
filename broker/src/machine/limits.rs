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
pub(super) const ATTRIBUTES_MAX: usize = 64;
/// Bytes of the names and values of one topic's or group's attributes together.
pub(super) const ATTRIBUTES_BYTES_MAX: usize = 16 << 10;
/// Message ids that are remembered, whatever an entry says.
pub(super) const DEDUP_IDS_MAX: u64 = 1 << 22;
