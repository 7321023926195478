//! Who may not stand still: entries are applied while a checkpoint takes long, and a leader whose tables take nothing for
//! longer than an election does not keep the lead where another one could have it.

use std::collections::BTreeMap;
use std::time::Duration;

use raft::{GroupStatus, Phase};

use crate::effect::Effect;
use crate::machine::Machine;
use crate::violation::Violation;

/// Longest time between two looks at which something was applied, while there is more to apply.
const APPLIES_WITHIN: Duration = Duration::from_secs(2);

/// Longest time that a leader stands still: its peers say once a second how far they are, an election takes up to 1.15 s in
/// these worlds, and handing over a second.
const LEAVES_WITHIN: Duration = Duration::from_secs(4);

/// A replica, and what is known of it from outside.
pub(super) struct Look<'a> {
    pub(super) machine: Machine,
    /// In the world's time.
    pub(super) at: Duration,
    pub(super) status: &'a GroupStatus,
    /// Whether its process may act.
    pub(super) runs: bool,
    /// Whether a checkpoint is being made that takes long.
    pub(super) slow_checkpoint: bool,
    /// Whether its tables take nothing.
    pub(super) stalls: bool,
    /// Whether others are further, and all is well with them and between them.
    pub(super) can_be_left: bool,
}

#[derive(Default)]
struct Replica {
    applied: Option<u64>,
    slow_checkpoint: bool,
    /// Since when it applies nothing although it should.
    idle: Option<Duration>,
    /// Since when it leads although it should not.
    leading: Option<Duration>,
}

#[derive(Default)]
pub(super) struct Standstill {
    replicas: BTreeMap<Machine, Replica>,
}

impl Standstill {
    /// What is wrong, and what of it went as it should.
    pub(super) fn seen(&mut self, look: &Look<'_>) -> (Result<(), Violation>, Option<Effect>) {
        let Look {
            machine, status, ..
        } = look;
        let replica = self.replicas.entry(*machine).or_default();
        let takes_part = look.runs && status.phase == Phase::Running;
        let stands = status.applied == replica.applied;
        let meanwhile = replica.slow_checkpoint && look.slow_checkpoint && !stands;
        let left = replica.leading.is_some() && look.stalls && !status.leadership.is_leader;
        replica.applied = status.applied;
        replica.slow_checkpoint = look.slow_checkpoint;
        // A log that has to be repaired cannot be applied.
        let should_apply = takes_part
            && look.slow_checkpoint
            && !look.stalls
            && status.damage_found == 0
            && status.committed > status.applied;
        let idle = since(&mut replica.idle, look.at, should_apply && stands);
        let should_leave =
            takes_part && look.stalls && look.can_be_left && status.leadership.is_leader && stands;
        let leading = since(&mut replica.leading, look.at, should_leave);
        let (applied, committed) = (status.applied, status.committed);
        let violation = if idle > APPLIES_WITHIN {
            let detail = format!(
                "{machine} makes a checkpoint and has applied {applied:?} of {committed:?} for {idle:?}"
            );
            Err(Violation::new("applying-goes-on", detail))
        } else if leading > LEAVES_WITHIN {
            let detail = format!(
                "{machine} leads, its tables have taken nothing after {applied:?} for {leading:?}, and others are further"
            );
            Err(Violation::new("stalled-leaders-leave", detail))
        } else {
            Ok(())
        };
        let effect = match (meanwhile, left) {
            (true, _) => Some(Effect::AppliedMeanwhile),
            (_, true) => Some(Effect::StalledLeaderLeft),
            _ => None,
        };
        (violation, effect)
    }
}

/// For how long it has been so, if it is so now.
fn since(begin: &mut Option<Duration>, at: Duration, is_so: bool) -> Duration {
    *begin = is_so.then(|| begin.unwrap_or(at));
    begin.map_or(Duration::ZERO, |begin| at - begin)
}
