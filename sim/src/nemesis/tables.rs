//! What goes wrong with tables.

use std::time::Duration;

use super::{Nemesis, sleep};
use crate::machine::Machine;
use crate::schedule::{Fault, Who};

impl Nemesis {
    pub(super) async fn tables(&self, who: Who, fault: Fault) {
        let kind = fault.kind();
        let Some(machine @ Machine::Broker(id)) = self.find(who) else {
            return;
        };
        let Some(broker) = self.world.broker(id) else {
            return;
        };
        let tables = &broker.tables;
        match fault {
            Fault::TablesStall { for_ms, .. } => {
                self.strikes(kind, format_args!("{machine} for {for_ms} ms"));
                tables.stall(Duration::from_millis(for_ms));
            }
            Fault::TablesFail { failing, .. } => {
                self.strikes(kind, format_args!("next {failing:?} of {machine}"));
                tables.fail_next(failing);
            }
            Fault::TablesRefuse { for_ms, .. } => {
                self.strikes(kind, format_args!("{machine} for {for_ms} ms"));
                tables.refuse(Duration::from_millis(for_ms));
            }
            Fault::SlowCheckpoints {
                longest_ms, for_ms, ..
            } => {
                self.strikes(
                    kind,
                    format_args!("{machine}, up to {longest_ms} ms for {for_ms} ms"),
                );
                tables.slow_checkpoints(Duration::from_millis(longest_ms));
                sleep(for_ms).await;
                tables.slow_checkpoints(Duration::ZERO);
            }
            Fault::TablesRot { seed, how, .. } => {
                if let Some(what) = tables.rot(seed, how) {
                    self.strikes(kind, format_args!("{machine}, {what}"));
                }
            }
            _ => {}
        }
    }
}
