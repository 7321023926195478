//! The table of symptoms: what people see, what causes it, what to do.
//! `docs/troubleshooting.md` shows it row by row.

/// What people see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symptom {
    NoRoute,
    SendTimeouts,
    Backlog,
    Duplicates,
    BrokerWithoutRoute,
    NoLeader,
    BadReplica,
    NameServers,
    Disk,
    Clocks,
}

impl Symptom {
    /// Every symptom, in the order of the table.
    pub(super) const ALL: [Symptom; 10] = [
        Symptom::NoRoute,
        Symptom::SendTimeouts,
        Symptom::Backlog,
        Symptom::Duplicates,
        Symptom::BrokerWithoutRoute,
        Symptom::NoLeader,
        Symptom::BadReplica,
        Symptom::NameServers,
        Symptom::Disk,
        Symptom::Clocks,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Symptom::NoRoute => "no route for the topic",
            Symptom::SendTimeouts => "sends time out",
            Symptom::Backlog => "the backlog grows",
            Symptom::Duplicates => "messages come twice",
            Symptom::BrokerWithoutRoute => "a broker without a route",
            Symptom::NoLeader => "a broker group without a leader",
            Symptom::BadReplica => "a replica is dead or behind",
            Symptom::NameServers => "name servers disagree",
            Symptom::Disk => "a disk is nearly full",
            Symptom::Clocks => "clocks differ",
        }
    }
}

/// One row: why a symptom is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    TopicMissing,
    TopicUnknown,
    SlowDisk,
    NoProof,
    NoConsumer,
    QueueWithoutOwner,
    SlowConsumers,
    NotCommitted,
    SentAgain,
    NotRegistered,
    NoMajority,
    ReplicaSilent,
    ReplicaBehind,
    ReplicaDamaged,
    NameServerSilent,
    NameServersDiffer,
    DiskNearlyFull,
    ClocksDiffer,
    ClockWrong,
}

impl Cause {
    /// Every row, in the order of the table.
    pub(super) const ALL: [Cause; 19] = [
        Cause::TopicMissing,
        Cause::TopicUnknown,
        Cause::SlowDisk,
        Cause::NoProof,
        Cause::NoConsumer,
        Cause::QueueWithoutOwner,
        Cause::SlowConsumers,
        Cause::NotCommitted,
        Cause::SentAgain,
        Cause::NotRegistered,
        Cause::NoMajority,
        Cause::ReplicaSilent,
        Cause::ReplicaBehind,
        Cause::ReplicaDamaged,
        Cause::NameServerSilent,
        Cause::NameServersDiffer,
        Cause::DiskNearlyFull,
        Cause::ClocksDiffer,
        Cause::ClockWrong,
    ];

    pub(super) fn symptom(self) -> Symptom {
        match self {
            Cause::TopicMissing | Cause::TopicUnknown => Symptom::NoRoute,
            Cause::SlowDisk | Cause::NoProof => Symptom::SendTimeouts,
            Cause::NoConsumer | Cause::QueueWithoutOwner | Cause::SlowConsumers => Symptom::Backlog,
            Cause::NotCommitted | Cause::SentAgain => Symptom::Duplicates,
            Cause::NotRegistered => Symptom::BrokerWithoutRoute,
            Cause::NoMajority => Symptom::NoLeader,
            Cause::ReplicaSilent | Cause::ReplicaBehind | Cause::ReplicaDamaged => {
                Symptom::BadReplica
            }
            Cause::NameServerSilent | Cause::NameServersDiffer => Symptom::NameServers,
            Cause::DiskNearlyFull => Symptom::Disk,
            Cause::ClocksDiffer | Cause::ClockWrong => Symptom::Clocks,
        }
    }

    /// Why.
    pub(super) fn text(self) -> &'static str {
        match self {
            Cause::TopicMissing => {
                "no broker group has the topic, and brokers create none by themselves unless told to"
            }
            Cause::TopicUnknown => {
                "its broker group has the topic, and a name server has not heard of it"
            }
            Cause::SlowDisk => {
                "a replica's disk syncs slowly, and a send waits for the syncs of a majority"
            }
            Cause::NoProof => "the leader hears too late from a majority of its group",
            Cause::NoConsumer => "no consumer of the group is alive",
            Cause::QueueWithoutOwner => "no living consumer of the group reads one of the queues",
            Cause::SlowConsumers => "messages arrive faster than the group's consumers finish them",
            Cause::NotCommitted => {
                "consumers were given messages and do not commit them: the next owner of the queue gets them again"
            }
            Cause::SentAgain => {
                "a producer sent a message again after the brokers had forgotten it (`dedup_window_ms`; what the window is now: `dedup` in `raftmq cluster status --json`)"
            }
            Cause::NotRegistered => {
                "the leader of its group does not reach a name server, or `name_servers` or `cluster_id` is wrong"
            }
            Cause::NoMajority => "fewer than a majority of its voters run and reach each other",
            Cause::ReplicaSilent => "its process does not run, or nobody reaches it",
            Cause::ReplicaBehind => {
                "it has been away, or its disk or network is slower than the others'"
            }
            Cause::ReplicaDamaged => "bytes of its log rotted; they are repaired from its peers",
            Cause::NameServerSilent => "a name server does not run, or nobody reaches it",
            Cause::NameServersDiffer => {
                "name servers do not reach each other, or not all of them reach the leader"
            }
            Cause::DiskNearlyFull => {
                "sends are refused once less than `disk_reserve_bytes` and one segment are free"
            }
            Cause::ClocksDiffer => {
                "a broker's clock is wrong; messages say what a majority of its group's clocks say, and nothing expires by any"
            }
            Cause::ClockWrong => {
                "a broker's clock disagrees with a majority of its group's: it hands over the lead and is elected last"
            }
        }
    }

    /// What to do.
    pub(super) fn fix(self) -> &'static str {
        match self {
            Cause::TopicMissing => "`raftmq topic create NAME`, or `auto_create_topics = true`",
            Cause::TopicUnknown => {
                "wait a moment; if it stays, give every broker every name server in `name_servers`"
            }
            Cause::SlowDisk => {
                "a faster disk, or one that nobody else writes to; `raftmq bench --only disk` measures it"
            }
            Cause::NoProof => "look at the network between the brokers and at the processors' load",
            Cause::NoConsumer => {
                "start one; `raftmq consumer-group skip-backlog` if what waits is not wanted any more"
            }
            Cause::QueueWithoutOwner => {
                "wait for the next rebalance (20 s); if it stays, restart the member that should read it"
            }
            Cause::SlowConsumers => {
                "more consumers, and `raftmq topic alter NAME --queues N` when there are as many as queues"
            }
            Cause::NotCommitted => {
                "have consumers commit what they finished, and finish the same message once only"
            }
            Cause::SentAgain => {
                "a larger `dedup_window_ms` than producers retry for, a larger `dedup_bytes_max`, and consumers that know what they finished"
            }
            Cause::NotRegistered => {
                "correct the brokers' configuration; `raftmq route` shows what is believed where"
            }
            Cause::NoMajority => {
                "start the brokers that are down; `raftmq group replace` for one whose disk is lost"
            }
            Cause::ReplicaSilent => {
                "start it, its log says why it ended; `raftmq group replace` if its disk is lost"
            }
            Cause::ReplicaBehind => {
                "let it catch up before another one stops; `raftmq group describe` shows how far"
            }
            Cause::ReplicaDamaged => {
                "look at the disk's health, and replace it: `raftmq group replace`"
            }
            Cause::NameServerSilent => "start it; clients and brokers use the others meanwhile",
            Cause::NameServersDiffer => {
                "see that each name server lists the others in `peers` and reaches them"
            }
            Cause::DiskNearlyFull => {
                "make room, or keep messages for less time: `log_retain_ms`, `log_retain_bytes`"
            }
            Cause::ClocksDiffer => {
                "run a time service (chrony, systemd-timesyncd) on every machine"
            }
            Cause::ClockWrong => "set it right; it may lead again within seconds",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a table in the documents that promises something else than the doctor finds.
    #[test]
    fn the_documents_show_the_same_table() {
        let shown = include_str!("../../../../docs/troubleshooting.md");
        let rows: Vec<String> = Cause::ALL
            .iter()
            .map(|cause| {
                let title = cause.symptom().title();
                format!("| {title} | {} | {} |", cause.text(), cause.fix())
            })
            .collect();
        let wanted = format!(
            "| symptom | cause | what to do |\n| --- | --- | --- |\n{}\n",
            rows.join("\n")
        );
        assert!(
            shown.contains(&wanted),
            "docs/troubleshooting.md lacks this table:\n{wanted}"
        );
    }

    /// Catches a symptom that nothing is ever found for.
    #[test]
    fn every_symptom_has_a_cause() {
        for symptom in Symptom::ALL {
            assert!(
                Cause::ALL.iter().any(|cause| cause.symptom() == symptom),
                "{symptom:?}"
            );
        }
    }
}
