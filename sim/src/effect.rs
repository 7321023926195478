//! What can go wrong in a world, by name: so that a sweep can tell what never did.
//!
//! A fault is what a schedule does; an effect is what comes of it somewhere below. A sweep in which one
//! of them never occurred has tested less than it says.

/// An enum whose values have names and can be listed: whatever is added is in the list.
macro_rules! named {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $value:ident => $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$what])* $value,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$value,)+];

            /// What a person calls it.
            pub fn name(self) -> &'static str {
                match self { $($name::$value => $text,)+ }
            }
        }
    };
}

named! {
    /// A kind of fault: what a schedule does to a world.
    #[allow(missing_docs, reason = "each has a name of its own")]
    FaultKind {
        LeaderIsolated => "leader isolated",
        LeaderIsolatedWithClients => "leader isolated with clients",
        GroupCutOff => "broker group cut off",
        GroupsApart => "broker groups apart",
        GroupUnseen => "broker group unseen by name servers",
        GroupHalfCutOff => "broker group cut off in one direction",
        GroupKilled => "broker group killed",
        GroupLosesPower => "broker group loses power",
        FollowersIsolated => "followers isolated together",
        MachineIsolated => "machine isolated",
        Split => "machines split in two",
        OneWayCut => "one-way cut",
        DeafMachine => "deaf machine",
        MuteMachine => "mute machine",
        Ring => "ring of majorities",
        Bridge => "bridge",
        ClientsCutOff => "clients cut off",
        Swizzle => "swizzle",
        NameServersCutOff => "name servers cut off",
        NameServersCutOffInPart => "name servers cut off in part",
        NameServersApart => "name servers apart",
        Weather => "bad weather",
        Kill => "kill",
        SeveralKilled => "several killed at once",
        PowerLoss => "power loss",
        PowerLossOfAll => "power loss of all",
        RestartStorm => "restart storm",
        RollingRestart => "rolling restart",
        OrderlyStop => "orderly stop",
        NameServerKilled => "name server killed",
        ClientKilled => "client killed",
        ClientLosesPower => "client loses power",
        BrokerPaused => "broker paused",
        NameServerPaused => "name server paused",
        ClientPaused => "client paused",
        DiskError => "disk error",
        DiskFull => "disk full",
        SlowSyncs => "slow syncs",
        BitRot => "bit rot",
        MisdirectedWrite => "misdirected write",
        UnreadableSectors => "sectors that cannot be read",
        TablesStall => "tables stall",
        TablesFail => "tables fail once",
        TablesRefuse => "tables take nothing for a while",
        SlowCheckpoints => "slow checkpoints",
        TablesRot => "rot in the tables",
        MarkLost => "mark of what was synced lost",
        RolledBack => "disk rolled back",
        DiskWiped => "disk wiped",
        GroupRestored => "broker group restored from what is left",
        BackupRestored => "broker group restored from a backup",
        Scrub => "scrub",
        ClockOffset => "clock offset",
        ClockJump => "clock jump",
        ClockDrift => "clock drift",
        AllClocksWrong => "all clocks of a group wrong, and set right again",
        LeadershipTransfer => "leadership transfer",
        ReplicaReplaced => "replica replaced",
        Checkpoint => "checkpoint",
        LogDropped => "log dropped",
        OffsetReset => "offset reset",
        TopicMadeAndDeleted => "topic made and deleted",
        GroupMadeAndDeleted => "group made and deleted",
        CommittedAskedFor => "committed offsets asked for",
        EverythingAskedFor => "everything asked for",
    }
}

named! {
    /// What came of the faults.
    #[allow(missing_docs, reason = "each has a name of its own")]
    Effect {
        LinkRefused => "link that refuses",
        LinkHung => "link that hangs",
        MessageLost => "message lost",
        MessageHeldBack => "message held back by a hanging link",
        MessageSlow => "message slow",
        MessageOvertaken => "message overtaken by a later one",
        RequestTwice => "request arrived twice",
        ReadFailed => "EIO on read",
        SectorNotGiven => "EIO on read of a sector, for ever",
        WriteFailed => "EIO on write",
        SyncFailed => "EIO on sync",
        NoSpace => "ENOSPC",
        WriteStalled => "tables' write that waits",
        TablesNotWritten => "tables cannot be written",
        TablesNotFlushed => "tables cannot be flushed",
        TablesNotOpened => "tables cannot be opened",
        TableRotMet => "rot in the tables met",
        CheckpointSlow => "checkpoint that takes long",
        CheckpointFailed => "checkpoint cannot be made",
        AppliedMeanwhile => "entry applied while a checkpoint takes long",
        StalledLeaderLeft => "leader whose tables stall leaves the lead",
        WriteKept => "unsynced write kept",
        WriteForgotten => "unsynced write forgotten",
        WriteTorn => "unsynced write torn",
        CreateForgotten => "unsynced create forgotten",
        RemoveForgotten => "unsynced remove forgotten",
        RenameForgotten => "unsynced rename forgotten",
        EndedInOrder => "process ended in order",
        EndedWithFailure => "process ended with a failure",
        LeaderChanged => "leadership taken",
        BatchSent => "batch sent",
        SendRefused => "send refused",
        SendUnknown => "send given up, outcome unknown",
        CommitUnknown => "commit given up, outcome unknown",
        ConsumerSlow => "consumer that works slowly",
        ConsumerLeft => "consumer that leaves",
        ConsumerAway => "consumer that is gone without a word",
        SendBackUnknown => "send-back given up, outcome unknown",
        SettleUnknown => "settle given up, outcome unknown",
        AttemptsUsedUp => "message whose attempts are used up",
        PushFailed => "push consumer that fails a message",
        PushGivenUp => "push consumer that fails a message for good",
        ClientForgot => "client's unsynced write or rename forgotten",
        GoesOnAlone => "consumer that goes on where its own file says",
        TopicBornAgain => "topic made again under its consumers",
        TopicGrown => "topic that gets a queue under its consumers",
        LifeRead => "message of such a topic read",
        MessageIdsExpired => "message ids forgotten because they are old",
        MessageIdsCrowdedOut => "message ids forgotten for want of room",
        SettledExpired => "settled message forgotten because that is long ago",
        LogTimeAhead => "time of the log far ahead of the right one",
        LogTimeLedBack => "time of the log led back",
        MessageMissing => "message sent back that is not kept any more",
    }
}
