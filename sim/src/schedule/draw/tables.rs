//! Draws what goes wrong with tables.

use super::Drawing;
use crate::machine::Machine;
use crate::schedule::{Fault, Who};
use crate::tables::{Failing, Rotten};

impl Drawing<'_> {
    pub(super) fn tables_stall(&mut self) -> Fault {
        Fault::TablesStall {
            who: self.often_leader(),
            for_ms: self.duration(),
        }
    }

    /// A checkpoint that takes long.
    pub(super) fn slow_checkpoints(&mut self) -> Vec<(u64, Fault)> {
        let who = self.often_leader();
        let slow = Fault::SlowCheckpoints {
            who,
            longest_ms: *self.chance.pick(&[300, 2_000, 6_000]),
            for_ms: self.chance.between(2_000..=8_000),
        };
        let after_ms = self.chance.between(10..=500);
        vec![(0, slow), (after_ms, Fault::Checkpoint { who })]
    }

    pub(super) fn tables_fail(&mut self) -> Fault {
        let who = self.often_leader();
        if self.chance.one_in(3) {
            let for_ms = self.chance.between(500..=6_000);
            return Fault::TablesRefuse { who, for_ms };
        }
        let all = [Failing::Write, Failing::Flush, Failing::Checkpoint];
        let failing = *self.chance.pick(&all);
        Fault::TablesFail { who, failing }
    }

    /// Tables that rot, often those of a checkpoint as well, and then somebody who meets it.
    pub(super) fn tables_rot(&mut self) -> Vec<(u64, Fault)> {
        let machine = Machine::Broker(self.prey().victim);
        let who = Who::Machine(machine);
        let all = [
            Rotten::Block,
            Rotten::Unreadable,
            Rotten::Merged,
            Rotten::File,
        ];
        let how = *self.chance.pick(&all);
        let seed = self.chance.number();
        let mut faults = vec![(0, Fault::TablesRot { machine, seed, how })];
        if self.chance.one_in(3) {
            let seed = self.chance.number();
            faults.push((0, Fault::Rot { machine, seed }));
        }
        let after_ms = self.chance.between(10..=2_000);
        let looks = match self.chance.below(4) {
            0 => Fault::Checkpoint { who },
            1 if how != Rotten::File => Fault::TransferLeader { to: who },
            _ => Fault::Crash {
                who: vec![who],
                power: self.chance.one_in(2).then(|| self.chance.number()),
                down_ms: self.duration(),
                storm: false,
            },
        };
        faults.push((after_ms, looks));
        faults
    }

    fn often_leader(&mut self) -> Who {
        match self.chance.one_in(2) {
            true => Who::Leader,
            false => self.broker(),
        }
    }
}
