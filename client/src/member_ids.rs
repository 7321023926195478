//! The client ids of one client's consumers. Servers keep one consumer for each id, and members of a consumer group are told
//! apart by it: no two consumers of one client ever have the same, also if one description makes several.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::connection::Identity;
use crate::error::Error;

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct MemberIds {
    client: Identity,
    /// Consumers made so far.
    made: Arc<AtomicU32>,
}

impl MemberIds {
    pub(crate) fn new(client: Identity) -> MemberIds {
        MemberIds {
            client,
            made: Arc::default(),
        }
    }

    /// Who the next consumer is: the first has the client's id, the others have a number behind it.
    pub(crate) fn next(&self, beat_interval: Duration) -> Result<Identity, Error> {
        let id = self.client.client_id();
        match self.made.fetch_add(1, Ordering::Relaxed) + 1 {
            1 => self.client.member(id, beat_interval),
            number => self.client.member(&format!("{id}-{number}"), beat_interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches two consumers that share an id because they were described at once, and the numbering that users know.
    #[test]
    fn each_consumer_has_an_id_of_its_own() {
        let ids = MemberIds::new(Identity::new("c").expect("valid"));
        let next = |ids: &MemberIds| {
            let identity = ids.next(Duration::from_secs(2)).expect("valid");
            identity.client_id().to_owned()
        };
        let others = ids.clone();
        assert_eq!(next(&ids), "c");
        assert_eq!(next(&others), "c-2");
        assert_eq!(next(&ids), "c-3");
    }
}
