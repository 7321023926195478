//! A file that blocks are appended to, in the three ways that cost differently at a sync.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::files;

const FILL_BYTES: usize = 1 << 20;

/// What the file system must do at a sync besides writing the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// The file grows with each block: its length and its blocks change.
    Growing,
    /// The length stands, the blocks are reserved: they become written ones.
    Reserved,
    /// The blocks were written before: nothing but the data changes.
    Overwriting,
}

/// Writes from the start to the end and then from the start again; one that grows is emptied first.
pub(super) struct BlockFile {
    file: File,
    position: u64,
    size_bytes: u64,
    writing: Writing,
}

impl BlockFile {
    /// Creates the file; fills it first when it is to be overwritten.
    pub(super) fn create(path: &Path, size_bytes: u64, writing: Writing) -> io::Result<BlockFile> {
        let file = files::create(path)?;
        match writing {
            Writing::Growing => {}
            Writing::Reserved => {
                let flags = rustix::fs::FallocateFlags::empty();
                rustix::fs::fallocate(&file, flags, 0, size_bytes)?;
            }
            Writing::Overwriting => {
                let fill = vec![0x5a; FILL_BYTES];
                for position in (0..size_bytes).step_by(FILL_BYTES) {
                    file.write_all_at(&fill, position)?;
                }
            }
        }
        file.sync_all()?;
        Ok(BlockFile {
            file,
            position: 0,
            size_bytes,
            writing,
        })
    }

    /// Appends `block`, which is not safe before `sync`.
    pub(super) fn append(&mut self, block: &[u8]) -> io::Result<()> {
        if self.position + block.len() as u64 > self.size_bytes {
            self.restart()?;
        }
        self.file.write_all_at(block, self.position)?;
        self.position += block.len() as u64;
        Ok(())
    }

    /// Goes on at the start.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.position = 0;
        match self.writing {
            Writing::Growing => self.file.set_len(0),
            Writing::Reserved | Writing::Overwriting => Ok(()),
        }
    }

    /// Makes what was appended safe.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
