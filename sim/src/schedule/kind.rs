//! Families of faults: what scenarios weigh, and seeds draw from.

/// A family of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is named for its faults")]
pub enum Kind {
    Partition,
    Depose,
    Silence,
    GroupAway,
    GroupLinks,
    GroupDown,
    NameServers,
    Weather,
    Kill,
    PowerLoss,
    PowerLossOfAll,
    RestartStorm,
    Stop,
    Pause,
    DiskError,
    DiskRoom,
    SlowSyncs,
    TablesStall,
    TablesFail,
    TablesRot,
    SlowCheckpoints,
    Rot,
    Unreadable,
    LoseMark,
    RollBack,
    Wipe,
    Restore,
    RestoreBackup,
    Clock,
    Transfer,
    Replace,
    Checkpoint,
    DropLog,
    ResetOffset,
    Topic,
    Clients,
    AskCommitted,
    AskEverything,
}

impl Kind {
    /// Whether links may be cut for a while, and hold back what is on its way.
    pub fn cuts_links(self) -> bool {
        let cuts = [
            Kind::Partition,
            Kind::Depose,
            Kind::Silence,
            Kind::GroupAway,
            Kind::GroupLinks,
            Kind::NameServers,
        ];
        cuts.contains(&self)
    }
}
