//! What a name server says of a group only gets newer, as long as it runs. (`design.md` 9.8.)

use std::collections::BTreeMap;

use nameserver::route_table::RouteTable;

use crate::machine::Machine;
use crate::violation::Violation;

#[derive(Default)]
pub(super) struct Routes {
    /// Of each name server: the version of its table.
    tables: BTreeMap<Machine, u64>,
    /// Of each name server and group: epoch and version of the registration.
    registrations: BTreeMap<(Machine, String), (u64, u64)>,
    /// Who led a group in an epoch, as any name server ever said.
    leaders: BTreeMap<(String, u64), u64>,
}

impl Routes {
    /// It keeps nothing over a restart.
    pub(super) fn restarted(&mut self, machine: Machine) {
        self.tables.remove(&machine);
        self.registrations
            .retain(|(server, _), _| *server != machine);
    }

    pub(super) fn seen(&mut self, machine: Machine, table: &RouteTable) -> Result<(), Violation> {
        let version = table.version();
        let before = self.tables.insert(machine, version).unwrap_or(0);
        if version < before {
            return Err(Violation::new(
                "newer-route-wins",
                format!("{machine}: the table's version was {before} and is {version}"),
            ));
        }
        for registration in table.registrations() {
            let group = registration.group.clone();
            let now = (registration.epoch, registration.version);
            let before = self
                .registrations
                .insert((machine, group.clone()), now)
                .unwrap_or_default();
            if now < before {
                return Err(Violation::new(
                    "newer-route-wins",
                    format!("{machine}: the route of {group} was {before:?} and is {now:?}"),
                ));
            }
            let key = (group.clone(), registration.epoch);
            let leader = *self.leaders.entry(key).or_insert(registration.leader);
            if leader != registration.leader {
                return Err(Violation::new(
                    "one-leader-per-epoch",
                    format!(
                        "{machine}: epoch {} of {group} is led by {} and by {leader}",
                        registration.epoch, registration.leader
                    ),
                ));
            }
        }
        Ok(())
    }
}
