//! The leader takes over into the group's log where members are reached.
//!
//! A member announces its address; the log has another one. Once somebody reached it there, the leader proposes the membership
//! with the same replicas, the same votes and the new address. Never proposes an address that nobody reached: a wrong word in
//! one configuration must not become the group's.

use std::sync::Arc;
use std::time::Duration;

use host::Shutdown;

use crate::group::relocate;
use crate::peers::Peers;
use crate::state::State;

/// Time between looks: introductions come as often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for the change to be committed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Compares what members announce with what the log says.
pub(crate) struct Relocation {
    pub(crate) state: Arc<State>,
    pub(crate) peers: Peers,
}

impl Relocation {
    /// Looks until shutdown.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            if !self.state.leadership().borrow().serving {
                continue;
            }
            let addresses = self.peers.addresses();
            let relocating = relocate(
                &self.state,
                |broker_id| addresses.verified(broker_id),
                TIMEOUT,
            );
            let relocated = tokio::select! {
                biased;
                () = shutdown.wait() => return,
                relocated = relocating => relocated,
            };
            if let Err(error) = relocated {
                tracing::warn!(%error, "a member's new address is not in the log yet; this is tried again");
            }
        }
    }
}
