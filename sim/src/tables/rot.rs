//! What rotted of the tables: it lies beside them on the disk, so that it goes where they go and with them.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use store::table::Kind;
use store::{Kv, Pair};

use crate::chance::Chance;

/// The file in the tables' directory that says what rotted of them.
pub(super) const ROT: &str = "rot";

/// What is rotten together: a block of RocksDB.
const BLOCK_BYTES: usize = 4096;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotten {
    /// A block whose checksum is wrong. Whatever is copied from there is as rotten.
    Block,
    /// A block that the disk does not give back.
    Unreadable,
    /// A block that a compaction meets: nothing is written any more.
    Merged,
    /// A file without which nothing can be opened.
    File,
}

/// One thing that rotted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rot {
    /// Tells it from others.
    pub(super) seed: u64,
    pub(super) how: Rotten,
    /// The first and the last key of the block.
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Rot {
    /// A block of a kind of rows, if there are rows.
    pub(super) fn of_block(kv: &dyn Kv, seed: u64, how: Rotten) -> Option<Rot> {
        let mut chance = Chance::new(seed, "rot in tables");
        let of_kind = |kind: &Kind| kv.scan(&[kind.tag()], &[kind.tag() + 1], usize::MAX).ok();
        let kinds = Kind::ALL.iter().filter_map(of_kind);
        let kinds: Vec<Vec<Pair>> = kinds.filter(|rows| !rows.is_empty()).collect();
        if kinds.is_empty() {
            return None;
        }
        let rows = chance.pick(&kinds);
        let first = chance.below(rows.len() as u64) as usize;
        let mut bytes = 0;
        let block = rows[first..].iter().take_while(|(key, value)| {
            let fits = bytes < BLOCK_BYTES;
            bytes += key.len() + value.len();
            fits
        });
        let (to, _) = block.last()?;
        Some(Rot {
            seed,
            how,
            from: rows[first].0.to_vec(),
            to: to.to_vec(),
        })
    }

    /// A file of the tables.
    pub(super) fn of_file(seed: u64) -> Rot {
        Rot {
            seed,
            how: Rotten::File,
            from: Vec::new(),
            to: Vec::new(),
        }
    }

    /// Whether whoever reads from one of these keys to the other one meets it.
    pub(super) fn is_met(&self, from: &[u8], to: &[u8]) -> bool {
        matches!(self.how, Rotten::Block | Rotten::Unreadable)
            && *self.from <= *to
            && *from <= *self.to
    }

    /// Whether copies of the tables have it too.
    pub(super) fn is_linked(&self) -> bool {
        self.how == Rotten::Block
    }

    pub(super) fn read(content: Option<Bytes>) -> Vec<Rot> {
        let read = content.and_then(|content| serde_json::from_slice(&content).ok());
        read.unwrap_or_default()
    }

    pub(super) fn write(all: &[Rot]) -> Bytes {
        let written = serde_json::to_vec(all).expect("rot is plain data");
        Bytes::from(written)
    }
}

impl fmt::Display for Rot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.from.first().copied().and_then(Kind::from_tag);
        match kind {
            Some(kind) => write!(formatter, "{:?} of {}", self.how, kind.name()),
            None => write!(formatter, "{:?}", self.how),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch a block that rots and that nobody meets, and one that everybody does.
    #[test]
    fn who_passes_over_a_block_meets_its_rot() {
        let rot = |how| Rot {
            seed: 1,
            how,
            from: vec![4, 2],
            to: vec![4, 5],
        };
        for (from, to, met) in [
            ([4, 0], [4, 1], false),
            ([4, 0], [4, 2], true),
            ([4, 3], [4, 3], true),
            ([4, 5], [4, 9], true),
            ([4, 6], [4, 9], false),
        ] {
            assert_eq!(rot(Rotten::Block).is_met(&from, &to), met, "{from:?}");
            assert!(!rot(Rotten::Merged).is_met(&from, &to));
        }
        let all = vec![rot(Rotten::Unreadable), Rot::of_file(7)];
        assert_eq!(Rot::read(Some(Rot::write(&all))), all);
    }
}
