//! Which world is lived through, and what happens in it.

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::workload::Plan;

/// What happens in a world, instead of what its seed says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// What clients do.
    pub plan: Plan,
    /// What goes wrong.
    pub schedule: Schedule,
}

/// What to run.
#[derive(Clone)]
pub struct Spec {
    /// Decides everything.
    pub seed: u64,
    /// Which kind of world.
    pub scenario: &'static Scenario,
    /// What happens, if not what the seed says.
    pub course: Option<Course>,
    /// Whether the trace keeps its lines.
    pub keep_lines: bool,
}

impl Spec {
    /// A world as its seed says.
    pub fn new(scenario: &'static Scenario, seed: u64) -> Spec {
        Spec {
            seed,
            scenario,
            course: None,
            keep_lines: false,
        }
    }

    /// What happens in it.
    pub fn course(&self) -> Course {
        self.course.clone().unwrap_or_else(|| {
            let shape = self.scenario.shape(self.seed);
            let plan = Plan::draw(self.seed, self.scenario.size);
            let plan = plan.spread(self.seed, shape.group_count());
            let schedule = self.scenario.schedule(self.seed, &shape, &plan);
            Course { plan, schedule }
        })
    }
}
