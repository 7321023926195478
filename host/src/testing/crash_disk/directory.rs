//! The names in one directory: as they are, as they would be after a crash, and the changes
//! between.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::{Chance, NodeId};

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
    pub(super) fn crash(&mut self, chance: &mut Chance) {
        let kept = chance.below(self.unsynced.len() as u64 + 1);
        for change in self.unsynced.drain(..).take(kept as usize) {
            apply(&mut self.durable, change);
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
