//! What the administration calls say and hear, in this crate's own words.
//!
//! Plain data; the only file that knows how `proto::cluster` spells it.

use std::collections::BTreeMap;

use proto::cluster;

use crate::consumer::ConsumeFrom;

/// Which kind of messages a topic takes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum MessageType {
    /// Any of the others.
    #[default]
    Any,
    /// Without group, delay or transaction.
    Normal,
    /// With a message group.
    Fifo,
    /// With a delivery time.
    Delay,
    /// Half messages, committed or rolled back later.
    Transaction,
}

impl MessageType {
    pub(crate) fn to_wire(self) -> i32 {
        use proto::v2::MessageType as Wire;
        let wire = match self {
            MessageType::Any => Wire::Unspecified,
            MessageType::Normal => Wire::Normal,
            MessageType::Fifo => Wire::Fifo,
            MessageType::Delay => Wire::Delay,
            MessageType::Transaction => Wire::Transaction,
        };
        wire as i32
    }

    fn from_wire(wire: i32) -> MessageType {
        use proto::v2::MessageType as Wire;
        match Wire::try_from(wire) {
            Ok(Wire::Normal) => MessageType::Normal,
            Ok(Wire::Fifo) => MessageType::Fifo,
            Ok(Wire::Delay) => MessageType::Delay,
            Ok(Wire::Transaction) => MessageType::Transaction,
            _ => MessageType::Any,
        }
    }
}

/// How to make or change a topic.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// Number of queues: how many consumers of one group can share the topic. May grow later, not shrink.
    pub queue_count: u32,
    /// Which messages it takes.
    pub message_type: MessageType,
    /// Free text pairs kept with the topic.
    pub attributes: BTreeMap<String, String>,
    /// When making: an existing topic of this name is not an error.
    pub if_absent: bool,
}

impl Default for TopicSettings {
    /// Four queues, any message.
    fn default() -> Self {
        TopicSettings {
            queue_count: 4,
            message_type: MessageType::Any,
            attributes: BTreeMap::new(),
            if_absent: false,
        }
    }
}

/// What one queue holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueueBounds {
    /// Number of the queue within its topic.
    pub queue: u32,
    /// Offset of the oldest message that is still there.
    pub min_offset: u64,
    /// Offset that the next message will get.
    pub max_offset: u64,
}

/// One topic as its broker group knows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Number of queues.
    pub queue_count: u32,
    /// Which messages it takes.
    pub message_type: MessageType,
    /// Its number; a topic deleted and made again has another.
    pub topic_id: u64,
    /// What each queue holds.
    pub queues: Vec<QueueBounds>,
    /// Free text pairs.
    pub attributes: BTreeMap<String, String>,
}

/// How to make or change a consumer group.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// Deliver each message group strictly in order (receive-and-acknowledge consumers).
    pub fifo: bool,
    /// Deliveries of one message before it goes to the dead-letter queue; 0: the broker's default.
    pub max_attempts: u32,
    /// Where the group starts in a queue in which it has no offset.
    pub consume_from: ConsumeFrom,
    /// Free settings by name. `retry.backoff`: the waits before the first, the second, … retry of a failed message, as
    /// `1s,5s,1m`; the last one goes on. When altering: none keeps what there is.
    pub attributes: BTreeMap<String, String>,
    /// When making: an existing group of this name is not an error.
    pub if_absent: bool,
}

impl Default for GroupSettings {
    /// Unordered, the broker's number of attempts, from the oldest message.
    fn default() -> Self {
        GroupSettings {
            fifo: false,
            max_attempts: 0,
            consume_from: ConsumeFrom::Earliest,
            attributes: BTreeMap::new(),
            if_absent: false,
        }
    }
}

/// How far a group has come in one queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommittedOffset {
    /// The topic.
    pub topic: String,
    /// Number of the queue within the topic.
    pub queue: u32,
    /// The next offset to deliver.
    pub offset: u64,
    /// The offset that the queue's next message will get.
    pub max_offset: u64,
}

/// One consumer group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its name.
    pub name: String,
    /// Whether message groups are delivered strictly in order.
    pub fifo: bool,
    /// Deliveries of one message before it goes to the dead-letter queue.
    pub max_attempts: u32,
    /// Where it starts in a queue in which it has no offset.
    pub consume_from: ConsumeFrom,
    /// Free settings by name: see [`GroupSettings::attributes`].
    pub attributes: BTreeMap<String, String>,
    /// How far it has come, queue by queue.
    pub offsets: Vec<CommittedOffset>,
    /// Consumers that sent a heartbeat lately.
    pub members: u32,
    /// Queues of the topics that it reads, or has read.
    pub queues: u32,
    /// Messages still there that it has not passed: behind what it has committed, or behind where it starts.
    pub unread: u64,
    /// Messages that it has passed and that wait for another delivery.
    pub retries: u64,
}

impl GroupDescription {
    /// Messages that the group has yet to finish.
    pub fn lag(&self) -> u64 {
        self.unread + self.retries
    }
}

/// One replica of a broker group.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct BrokerAddress {
    /// The broker group.
    pub group: String,
    /// The replica's number in it.
    pub broker_id: u64,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
}

/// What one replica says about itself. Positions are log indexes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BrokerStatus {
    /// The cluster that it belongs to.
    pub cluster_id: String,
    /// The broker group.
    pub group: String,
    /// Its number in the group.
    pub broker_id: u64,
    /// Its version.
    pub version: String,
    /// Raft term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<u64>,
    /// Where clients reach the leader, if it knows one.
    pub leader_address: Option<String>,
    /// `leader`, `follower`, `learner`, `candidate`, `repairing` or `stopped`.
    pub state: String,
    /// Leads, and has applied everything that its log held when it was elected.
    pub serving: bool,
    /// Everything below is gone from its disk.
    pub dropped: u64,
    /// Raft asks for nothing at or below.
    pub purged: u64,
    /// The newest checkpoint of the tables.
    pub checkpoint: u64,
    /// The tables on disk hold everything up to here.
    pub durable_applied: u64,
    /// The tables hold everything up to here.
    pub applied: u64,
    /// A majority has it, as far as this replica knows.
    pub committed: u64,
    /// Synced on its own disk.
    pub flushed: u64,
    /// Written to its own log.
    pub appended: u64,
    /// All replicas that it knows.
    pub replicas: Vec<BrokerAddress>,
    /// Those that vote.
    pub voters: Vec<u64>,
    /// Since it was started, in milliseconds.
    pub uptime_ms: u64,
    /// Bytes written to its log since it was started.
    pub log_bytes_written: u64,
    /// Syncs of its log since it was started.
    pub log_syncs: u64,
    /// Snapshots that it took over from a leader since it was started.
    pub snapshots_installed: u64,
    /// Segments repaired from peers since it was started.
    pub segments_repaired: u64,
    /// Bytes of messages stored since it was started.
    pub payload_bytes: u64,
    /// Its own addresses, also before it is a member.
    pub own: BrokerAddress,
    /// Its wall clock when it answered, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Free bytes of its data directory's disk, as last measured; none before that.
    pub disk_free_bytes: Option<u64>,
    /// Sends are refused while less than this is free, bytes.
    pub disk_needed_bytes: u64,
    /// 99 of 100 syncs of its log took at most this long, microseconds, to the next power of two.
    pub sync_p99_us: u64,
    /// Damaged places of its log that were found since it was started.
    pub damage_found: u64,
    /// Broker id and last log index that the leader knows each replica to have; empty unless it leads.
    pub progress: BTreeMap<u64, u64>,
    /// The name servers with which it registers when it leads.
    pub name_servers: Vec<String>,
    /// A message that is sent again within this time is stored once, milliseconds.
    pub dedup_window_ms: u64,
    /// How well it recognises such messages at the moment.
    pub dedup: DedupStatus,
    /// How far its clock is ahead of what a majority of its group's clocks say, milliseconds; negative where it is behind.
    /// 0: near enough, or not known.
    pub clock_apart_ms: i64,
    /// What it holds of clients' requests and answers.
    pub transfers: TransferStatus,
}

/// What a broker holds of clients' requests and answers, and whom it cut off for it since it was started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct TransferStatus {
    /// Bytes of requests that arrive or are not answered yet.
    pub request_bytes: u64,
    /// Most of them.
    pub request_bytes_max: u64,
    /// Bytes of answers that were not taken yet.
    pub answer_bytes: u64,
    /// Most of them.
    pub answer_bytes_max: u64,
    /// Connections of clients.
    pub connections: u64,
    /// Connections closed because a request stopped arriving.
    pub requests_cut: u64,
    /// Connections closed because an answer was not read.
    pub answers_cut: u64,
    /// Connections closed because others needed their place.
    pub gave_way: u64,
    /// Connections that found no place.
    pub refused: u64,
}

impl From<cluster::Transfers> for TransferStatus {
    fn from(transfers: cluster::Transfers) -> Self {
        TransferStatus {
            request_bytes: transfers.request_bytes,
            request_bytes_max: transfers.request_bytes_max,
            answer_bytes: transfers.answer_bytes,
            answer_bytes_max: transfers.answer_bytes_max,
            connections: transfers.connections,
            requests_cut: transfers.requests_cut,
            answers_cut: transfers.answers_cut,
            gave_way: transfers.gave_way,
            refused: transfers.refused,
        }
    }
}

/// How well a broker recognises messages that are sent again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct DedupStatus {
    /// About what it takes in memory.
    pub bytes: u64,
    /// What it may take (`dedup_bytes_max`).
    pub bytes_max: u64,
    /// Producers of this SDK that are remembered, once for each queue that they send to.
    pub senders: u64,
    /// What was stored in so many milliseconds is remembered message by message: less than `dedup_window_ms` where more was
    /// stored than there is room for.
    pub window_ms: u64,
    /// Producers of this SDK that stored anything in so many milliseconds are remembered: their own repetitions are
    /// recognised.
    pub sender_window_ms: u64,
    /// Messages that were recognised, since the broker was started.
    pub repeated: u64,
    /// Messages that were stored although their id was known: they said something else.
    pub different: u64,
    /// Messages that were refused because later ones of their producer were stored.
    pub too_late: u64,
}

impl From<cluster::Dedup> for DedupStatus {
    fn from(dedup: cluster::Dedup) -> Self {
        DedupStatus {
            bytes: dedup.bytes,
            bytes_max: dedup.bytes_max,
            senders: dedup.senders,
            window_ms: dedup.window_ms,
            sender_window_ms: dedup.sender_window_ms,
            repeated: dedup.repeated,
            different: dedup.different,
            too_late: dedup.too_late,
        }
    }
}

impl From<cluster::TopicInfo> for TopicDescription {
    fn from(info: cluster::TopicInfo) -> Self {
        let bounds = |range: cluster::QueueRange| QueueBounds {
            queue: range.queue,
            min_offset: range.min_offset,
            max_offset: range.max_offset,
        };
        TopicDescription {
            name: info.name,
            queue_count: info.queue_count,
            message_type: MessageType::from_wire(info.message_type),
            topic_id: info.topic_id,
            queues: info.queues.into_iter().map(bounds).collect(),
            attributes: info.attributes.into_iter().collect(),
        }
    }
}

impl From<cluster::GroupInfo> for GroupDescription {
    fn from(info: cluster::GroupInfo) -> Self {
        let committed = |offset: cluster::CommittedOffset| CommittedOffset {
            topic: offset.topic,
            queue: offset.queue,
            offset: offset.offset,
            max_offset: offset.max_offset,
        };
        GroupDescription {
            name: info.name,
            fifo: info.fifo,
            max_attempts: u32::try_from(info.max_attempts).unwrap_or(0),
            consume_from: ConsumeFrom::from_wire(info.consume_from, info.consume_from_ms),
            attributes: info.attributes.into_iter().collect(),
            offsets: info.offsets.into_iter().map(committed).collect(),
            members: info.members,
            queues: info.queues,
            unread: info.unread,
            retries: info.retries,
        }
    }
}

impl BrokerAddress {
    pub(crate) fn from_wire(group: &str, replica: cluster::Replica) -> BrokerAddress {
        BrokerAddress {
            group: group.to_owned(),
            broker_id: replica.broker_id,
            client_address: replica.client_address,
            peer_address: replica.peer_address,
        }
    }
}

impl From<cluster::BrokerStatusResponse> for BrokerStatus {
    fn from(status: cluster::BrokerStatusResponse) -> Self {
        let replicas = status
            .replicas
            .into_iter()
            .map(|replica| BrokerAddress::from_wire(&status.group, replica))
            .collect();
        let own = BrokerAddress {
            group: status.group.clone(),
            broker_id: status.broker_id,
            client_address: status.client_address,
            peer_address: status.peer_address,
        };
        let progress = status.progress.into_iter();
        BrokerStatus {
            own,
            progress: progress.map(|one| (one.broker_id, one.matched)).collect(),
            now_ms: status.now_ms,
            disk_free_bytes: status.disk_free_bytes,
            disk_needed_bytes: status.disk_needed_bytes,
            sync_p99_us: status.sync_p99_us,
            damage_found: status.damage_found,
            name_servers: status.name_servers,
            dedup_window_ms: status.dedup_window_ms,
            dedup: DedupStatus::from(status.dedup.unwrap_or_default()),
            clock_apart_ms: status.clock_apart_ms,
            transfers: TransferStatus::from(status.transfers.unwrap_or_default()),
            replicas,
            cluster_id: status.cluster_id,
            group: status.group,
            broker_id: status.broker_id,
            version: status.version,
            term: status.term,
            leader: (status.leader != 0).then_some(status.leader),
            leader_address: (!status.leader_address.is_empty()).then_some(status.leader_address),
            state: status.state,
            serving: status.serving,
            dropped: status.dropped,
            purged: status.purged,
            checkpoint: status.checkpoint,
            durable_applied: status.durable_applied,
            applied: status.applied,
            committed: status.committed,
            flushed: status.flushed,
            appended: status.appended,
            voters: status.voters,
            uptime_ms: status.uptime_ms,
            log_bytes_written: status.log_bytes_written,
            log_syncs: status.log_syncs,
            snapshots_installed: status.snapshots_installed,
            segments_repaired: status.segments_repaired,
            payload_bytes: status.payload_bytes,
        }
    }
}
