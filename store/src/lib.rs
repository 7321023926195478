//! Bytes: the segmented commit log, the superblock beside it, and the tables derived from it.
//!
//! The log is the truth; the tables can be rebuilt from a checkpoint and the entries after it. This crate knows
//! neither what a vote means nor what a message is.

// The simulator's tokio.
#[cfg(madsim)]
extern crate madsim_tokio as tokio;

mod checkpoint;
mod config;
mod data_dir;
mod entry;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod inspect;
mod kv;
mod log;
mod superblock;
pub mod table;

pub use checkpoint::{Checkpoint, CheckpointFile, CheckpointMeta, Checkpoints, UnnamedCheckpoint};
pub use config::LogConfig;
pub use data_dir::DataDir;
pub use entry::{Entry, EntryKind, LogId};
pub use error::{Result, StoreError};
pub use inspect::Inspection;
pub use kv::{Batch, Family, Kv, KvCounters, KvEngine, MemEngine, Operation, Pair, default_engine};
#[cfg(not(madsim))]
pub use kv::{RocksEngine, wait_until_closed};
pub use log::inspect::{IndexReport, SegmentReport, Synced, SyncedReport};
pub use log::{
    Adoption, CommitLog, Damage, Done, LogCounters, Positions, Recovered, Room, SYNC_TIME_BUCKETS,
    SegmentExport, SegmentInfo, SegmentWriter, Staging,
};
pub use superblock::{Identity, Superblock};
