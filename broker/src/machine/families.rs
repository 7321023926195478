//! Which of the machine's tables lie in files of their own: those that every send writes to.
//!
//! The names are on the disks of those who run brokers: they must never change. All other tables, and the row of
//! `raft`'s that says how far they are applied, lie together.

use store::Family;
use store::table::Kind;

pub(crate) const FAMILIES: &[Family] = &[
    Family {
        name: "consume_queue",
        tags: &[Kind::ConsumeQueue.tag()],
    },
    Family {
        name: "dedup",
        tags: &[Kind::Dedup.tag()],
    },
];
