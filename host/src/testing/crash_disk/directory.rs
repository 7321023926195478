//! The names in one directory: as they are, as they would be after a crash, and the changes
//! between.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::{Chance, Lost, NodeId};

type Names = BTreeMap<OsString, NodeId>;

/// One change that is durable as a whole or not at all.
type Change = Vec<(OsString, Option<NodeId>)>;

#[derive(Default)]
pub(super) struct Directory {
    names: Names,
    durable: Names,
    unsynced: Vec<Change>,
}

impl Directory {
    pub(super) fn get(&self, name: &OsStr) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &OsString> {
        self.names.keys()
    }

    /// All that it names, or would name after a crash.
    pub(super) fn all_nodes(&self) -> impl Iterator<Item = NodeId> {
        let unsynced = self.unsynced.iter().flatten();
        let changed = unsynced.filter_map(|(_, node)| *node);
        let named = self.names.values().chain(self.durable.values());
        named.copied().chain(changed)
    }

    pub(super) fn set(&mut self, name: OsString, node: Option<NodeId>) {
        self.change(vec![(name, node)]);
    }

    pub(super) fn rename(&mut self, from: OsString, to: OsString, node: NodeId) {
        if from != to {
            self.change(vec![(from, None), (to, Some(node))]);
        }
    }

    pub(super) fn sync(&mut self) {
        self.durable = self.names.clone();
        self.unsynced.clear();
    }

    /// Keeps the changes up to some point, as a journal would.
    pub(super) fn crash(&mut self, chance: &mut Chance, lost: &mut Lost) {
        let kept = chance.below(self.unsynced.len() as u64 + 1) as usize;
        for (place, change) in self.unsynced.drain(..).enumerate() {
            if place < kept {
                apply(&mut self.durable, change);
            } else {
                match change[..] {
                    [(_, Some(_))] => lost.creates += 1,
                    [(_, None)] => lost.removes += 1,
                    _ => lost.renames += 1,
                }
            }
        }
        self.names = self.durable.clone();
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, change.clone());
        self.unsynced.push(change);
    }
}

fn apply(names: &mut Names, change: Change) {
    for (name, node) in change {
        match node {
            Some(node) => names.insert(name, node),
            None => names.remove(&name),
        };
    }
}
