//! The disk's own figure: one writer that appends a block and syncs it, again and again.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::file::BlockFile;
pub use super::file::Writing;
use crate::times::Times;

/// Large enough that a second's writing seldom wraps.
const FILE_BYTES: u64 = 256 << 20;
const BLOCK_BYTE: u8 = 0xa5;

/// How fast one writer can append and sync.
#[derive(Clone, Debug, Serialize)]
pub struct DiskFigures {
    /// How the file was written.
    pub writing: String,
    /// Size of each block, bytes.
    pub block_bytes: usize,
    /// Millions of bytes a second.
    pub megabytes_per_second: f64,
    /// Syncs a second.
    pub syncs_per_second: f64,
    /// Time of one append and its sync, microseconds.
    pub p50_us: u64,
    /// The same, exceeded by one in a hundred.
    pub p99_us: u64,
}

/// Appends and syncs blocks of `block_bytes` in `directory` for `duration`.
///
/// # Errors
///
/// Whatever the file system says.
pub fn measure_disk(
    directory: &Path,
    block_bytes: usize,
    writing: Writing,
    duration: Duration,
) -> io::Result<DiskFigures> {
    let mut file = BlockFile::create(&directory.join("disk"), FILE_BYTES, writing)?;
    let block = vec![BLOCK_BYTE; block_bytes];
    let mut times = Times::default();
    let started = Instant::now();
    while started.elapsed() < duration {
        let before = Instant::now();
        file.append(&block)?;
        file.sync()?;
        times.took(before.elapsed());
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(DiskFigures {
        writing: format!("{writing:?}").to_lowercase(),
        block_bytes,
        megabytes_per_second: times.count() as f64 * block_bytes as f64 / seconds / 1e6,
        syncs_per_second: times.count() as f64 / seconds,
        p50_us: times.quantile_us(0.5),
        p99_us: times.quantile_us(0.99),
    })
}
