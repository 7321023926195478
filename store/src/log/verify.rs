//! Looking for rot before somebody needs the bytes.

use std::sync::Arc;

use super::export::info_of;
use super::sealed_files::{open_sealed, read_summary, scan_sealed};
use super::segment_list::{Place, Sealed};
use super::{CommitLog, SegmentInfo, Shared};
use crate::error::{Result, StoreError};

/// Verifications that begin again because the segment was replaced meanwhile, at most.
const ATTEMPTS_MAX: usize = 3;

impl CommitLog {
    /// Reads a full segment from front to back and checks every record and the whole against its
    /// index. The caller decides how often, and how fast.
    ///
    /// Fails with [`StoreError::Corrupt`] at the first bad record, and with
    /// [`StoreError::OutOfRange`] if no full segment begins at `first_index`.
    pub async fn verify_segment(&self, first_index: u64) -> Result<SegmentInfo> {
        for _ in 1..ATTEMPTS_MAX {
            let sealed = self.shared.sealed_at(first_index)?;
            let result = self.shared.verify(sealed.clone()).await;
            // A segment that was dropped or replaced while it was read proves nothing.
            if result.is_ok() || !sealed.is_retired() {
                return result;
            }
        }
        let sealed = self.shared.sealed_at(first_index)?;
        self.shared.verify(sealed).await
    }
}

impl Shared {
    fn sealed_at(&self, first_index: u64) -> Result<Arc<Sealed>> {
        let state = self.state();
        match state.segments.find(first_index) {
            Some(Place::Sealed(sealed)) if sealed.first_index == first_index => Ok(sealed.clone()),
            _ => Err(state.out_of_range(first_index)),
        }
    }

    async fn verify(&self, sealed: Arc<Sealed>) -> Result<SegmentInfo> {
        let (disk, dir) = (self.disk().clone(), self.state().dir.clone());
        host::blocking::run(move || {
            let file = open_sealed(&*disk, &sealed)?;
            let found = scan_sealed(&*file, &sealed)?.summary;
            let noted = read_summary(&*disk, &dir, sealed.first_index);
            if noted.is_some_and(|noted| noted != found) {
                let detail = "the records are not those that were sealed";
                return Err(StoreError::corrupt_at(
                    &sealed.path,
                    sealed.first_index,
                    detail,
                ));
            }
            Ok(info_of(&found))
        })
        .await
    }
}
