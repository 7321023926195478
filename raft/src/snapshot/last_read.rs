//! What reading a checkpoint brought lately: a peer that is away is offered one again and again, and the disk is not read for
//! each attempt.
//!
//! A checkpoint that rots meanwhile is sent all the same; the peer's checksums refuse it, and then it is forgotten here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use store::StoreError;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::manifest::Source;

/// How long a checkpoint counts as read that was whole, and one that could not be read or is damaged.
const WHOLE_FOR: Duration = Duration::from_secs(600);
const FAILED_FOR: Duration = Duration::from_secs(10);

/// The last checkpoint that was read, and what that brought.
#[derive(Default)]
pub(super) struct LastRead(Mutex<Option<Read>>);

struct Read {
    dir: PathBuf,
    at: Instant,
    sources: Result<Vec<Source>, StoreError>,
}

impl Read {
    fn is_fresh(&self) -> bool {
        let lasts = match self.sources {
            Ok(_) => WHOLE_FOR,
            Err(_) => FAILED_FOR,
        };
        self.at.elapsed() < lasts
    }
}

impl LastRead {
    /// What reading the checkpoint in `dir` brought lately, or what `reading` brings. Who comes meanwhile waits, and does not
    /// read as well.
    pub(super) async fn or_read(
        &self,
        dir: &Path,
        reading: impl Future<Output = Result<Vec<Source>, StoreError>>,
    ) -> Result<Vec<Source>, StoreError> {
        let mut last = self.0.lock().await;
        if let Some(read) = &*last
            && read.dir == dir
            && read.is_fresh()
        {
            return read.sources.clone();
        }
        let sources = reading.await;
        *last = Some(Read {
            dir: dir.to_path_buf(),
            at: Instant::now(),
            sources: sources.clone(),
        });
        sources
    }

    /// Has the next one read again. Not where somebody reads just now.
    pub(super) fn forget(&self) {
        if let Ok(mut last) = self.0.try_lock() {
            *last = None;
        }
    }
}
