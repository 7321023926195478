//! Starts processes again that ended by themselves, as a machine's service manager does.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use madsim::rand::Rng;

use super::{Wanted, World};
use crate::broker_process::BrokerProcess;
use crate::machine::Machine;

/// Time until a process that ended is started again.
const PAUSE: Range<Duration> = Duration::from_millis(300)..Duration::from_millis(2_000);

/// Keeps one broker running.
pub(super) async fn keep_broker(world: Arc<World>, broker: Arc<BrokerProcess>) {
    let mut ends = broker.ends();
    let mut seen = ends.borrow().count;
    loop {
        // The sender lives in the process, which this task holds.
        if ends.wait_for(|ended| ended.count != seen).await.is_err() {
            return;
        }
        seen = ends.borrow().count;
        restart(&world, broker.machine).await;
    }
}

async fn restart(world: &World, machine: Machine) {
    let pause = madsim::rand::thread_rng().gen_range(PAUSE);
    tokio::time::sleep(pause).await;
    let mut nodes = world.nodes();
    if let Some(node) = nodes.get_mut(&machine)
        && node.wanted == Wanted::Running
        && world.simulator.is_exit(node.id)
    {
        // A process that ended leaves its ports to be closed.
        world.simulator.kill(node.id);
        world.simulator.restart(node.id);
    }
}
