//! One file on its way in: a segment, or a file of a checkpoint.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use host::Disk;
use proto::raft as wire;
use store::{Staging, StoreError};
use tonic::{Status, Streaming};

use super::manifest::checksum;
use super::segments::segment_from_wire;

/// Longest wait for the next piece of a file.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// A file of a checkpoint.
pub(super) struct CheckpointFile {
    disk: Arc<dyn Disk>,
    /// Its name once it is whole.
    path: PathBuf,
    /// Its name until then.
    part: PathBuf,
    file: wire::SnapshotFile,
}

impl CheckpointFile {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        file: wire::SnapshotFile,
    ) -> CheckpointFile {
        let mut part = path.clone().into_os_string();
        part.push(".part");
        CheckpointFile {
            disk,
            path,
            part: PathBuf::from(part),
            file,
        }
    }

    /// Where the file has to go on; `None` if it is whole.
    pub(super) fn missing_from(&self) -> Result<Option<u64>, StoreError> {
        if self.disk.exists(&self.path) {
            return Ok(None);
        }
        if !self.disk.exists(&self.part) {
            return Ok(Some(0));
        }
        let part = self
            .disk
            .open(&self.part)
            .map_err(StoreError::io("open", &self.part))?;
        let len = part.len().map_err(StoreError::io("read", &self.part))?;
        Ok(Some(if len <= self.file.size_bytes { len } else { 0 }))
    }

    /// Writes pieces until the stream ends, and verifies the file if it is whole then. Returns how
    /// many bytes are there.
    pub(super) async fn receive(
        &self,
        first: wire::FileChunk,
        mut chunks: Streaming<wire::FileChunk>,
    ) -> Result<u64, Status> {
        let target = match self.disk.exists(&self.part) && first.position > 0 {
            true => self
                .disk
                .open(&self.part)
                .map_err(StoreError::io("open", &self.part)),
            false => self
                .disk
                .create(&self.part)
                .map_err(StoreError::io("create", &self.part)),
        };
        let target = target.map_err(failed)?;
        let len = target.len().map_err(StoreError::io("read", &self.part));
        let mut position = len.map_err(failed)?;
        let mut next = Some(first);
        while let Some(chunk) = next {
            let end = check_piece(&self.file, &chunk, position)?;
            let (part, writing, data) = (self.part.clone(), target.clone(), chunk.data);
            let write = host::blocking::run(move || {
                writing
                    .write_at(position, &[data])
                    .map_err(StoreError::io("write", &part))
            });
            write.await.map_err(failed)?;
            position = end;
            next = next_chunk(&mut chunks).await?;
        }
        if position == self.file.size_bytes {
            let synced = target.sync().await;
            synced
                .map_err(StoreError::io("sync", &self.part))
                .map_err(failed)?;
            self.verify().await?;
        }
        Ok(position)
    }

    /// Gives the whole file its name, or removes it if it is not what was offered.
    async fn verify(&self) -> Result<(), Status> {
        let (disk, part) = (self.disk.clone(), self.part.clone());
        let checked = host::blocking::run(move || checksum(&*disk, &part)).await;
        let (_, crc32c) = checked.map_err(failed)?;
        if crc32c != self.file.crc32c {
            let removed = self.disk.remove(&self.part);
            removed
                .map_err(StoreError::io("remove", &self.part))
                .map_err(failed)?;
            return Err(Status::data_loss(format!(
                "{} arrived damaged",
                self.file.name
            )));
        }
        let renamed = self.disk.rename(&self.part, &self.path);
        renamed
            .map_err(StoreError::io("rename", &self.part))
            .map_err(failed)
    }
}

/// Writes a segment's pieces; the store checks every record. Returns how many bytes are there.
pub(super) async fn receive_segment(
    staging: &Staging,
    file: &wire::SnapshotFile,
    first: wire::FileChunk,
    mut chunks: Streaming<wire::FileChunk>,
) -> Result<u64, Status> {
    let mut writer = staging
        .receive(segment_from_wire(file), first.position)
        .map_err(failed)?;
    let mut position = writer.position();
    let mut next = Some(first);
    while let Some(chunk) = next {
        let end = check_piece(file, &chunk, position)?;
        writer.write(chunk.data).await.map_err(failed)?;
        position = end;
        next = next_chunk(&mut chunks).await?;
    }
    if position == file.size_bytes {
        writer
            .finish()
            .await
            .map_err(|error| Status::data_loss(error.to_string()))?;
    }
    Ok(position)
}

/// The next piece; `None` at the end of the file, or of what could be sent of it.
pub(super) async fn next_chunk(
    chunks: &mut Streaming<wire::FileChunk>,
) -> Result<Option<wire::FileChunk>, Status> {
    match tokio::time::timeout(PIECE_TIMEOUT, chunks.next()).await {
        Ok(chunk) => chunk.transpose(),
        Err(_) => Err(Status::deadline_exceeded("the next piece did not come")),
    }
}

/// Where the piece ends, if it is the one that comes next.
#[allow(clippy::result_large_err, reason = "the transport's own error type")]
fn check_piece(
    file: &wire::SnapshotFile,
    chunk: &wire::FileChunk,
    position: u64,
) -> Result<u64, Status> {
    let end = position + chunk.data.len() as u64;
    if chunk.position != position || end > file.size_bytes || chunk.name != file.name {
        let name = &file.name;
        let error = format!(
            "piece of {} at {}, expected {name} at {position}",
            chunk.name, chunk.position
        );
        return Err(Status::invalid_argument(error));
    }
    Ok(end)
}

fn failed(error: StoreError) -> Status {
    Status::internal(error.to_string())
}
