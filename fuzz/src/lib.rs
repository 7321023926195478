//! What several targets need: tables and a log in memory, and bytes cut into pieces.
//!
//! Nothing here is fuzzed. Everything runs in the simulator's runtime, without threads and real disks.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use host::Host;
use host::testing::{CrashDisk, ManualClock};
use madsim::runtime::Runtime;
use store::{CommitLog, DataDir, Identity, Kv, KvEngine, LogConfig, MemEngine};

/// An empty log, its directory, and the runtime that its tasks belong to. Made once for all inputs.
pub struct World {
    /// Where futures that wait for the log's tasks must run.
    pub runtime: Runtime,
    /// The directory of the replica, the only one on its disk.
    pub data_dir: Arc<DataDir>,
    /// The log in it.
    pub log: CommitLog,
}

impl World {
    /// Never dropped: the process ends with it.
    pub fn leak() -> &'static World {
        let runtime = Runtime::with_seed_and_config(1, Default::default());
        let host = Host {
            clock: Arc::new(ManualClock::default()),
            disk: Arc::new(CrashDisk::new()),
        };
        let config = LogConfig {
            segment_bytes: 1 << 20,
            reserve_bytes: 0,
            spare_segments: 0,
            ..LogConfig::default()
        };
        let identity = Identity {
            cluster_id: "c".into(),
            group: "g".into(),
            broker_id: 1,
        };
        let (data_dir, log) = runtime.block_on(async {
            let dir = DataDir::open(&host, Path::new("/replica"), &identity, &config).await;
            let dir = Arc::new(dir.expect("the disk is empty"));
            let opened = CommitLog::open(&dir, config).await;
            (dir, opened.expect("the disk is empty").0)
        });
        Box::leak(Box::new(World {
            runtime,
            data_dir,
            log,
        }))
    }
}

/// Empty tables.
pub fn tables() -> Arc<dyn Kv> {
    let engine = MemEngine::new(Arc::new(CrashDisk::new()));
    block_on(engine.open("/tables".into())).expect("the disk is empty")
}

/// Bytes that are taken from the front; zeros when there are none left.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// As many bytes as one byte says.
    pub fn short(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.take(len)
    }

    /// As many bytes as two bytes say.
    pub fn long(&mut self) -> Bytes {
        let len = usize::from(self.byte()) << 8 | usize::from(self.byte());
        Bytes::copy_from_slice(self.take(len))
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
