//! The listeners for operators that one client knows, and which of them it uses.
//!
//! Of several the first that answers is used until it fails. Asks nobody by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::network::ClusterSecret;

/// The listeners of one client.
pub(crate) struct Endpoints {
    pub(crate) secret: ClusterSecret,
    addresses: Vec<Arc<str>>,
    chosen: Mutex<Chosen>,
}

#[derive(Default)]
pub(crate) struct Chosen {
    /// The one in use.
    pub(crate) now: Option<Arc<str>>,
    /// The one that failed last: another one is tried first.
    pub(crate) failed: Option<Arc<str>>,
}

impl Endpoints {
    pub(crate) fn new(secret: ClusterSecret, addresses: &[String]) -> Endpoints {
        let addresses = addresses.iter();
        Endpoints {
            secret,
            addresses: addresses.map(|address| address.as_str().into()).collect(),
            chosen: Mutex::default(),
        }
    }

    /// All of them.
    pub(crate) fn addresses(&self) -> &[Arc<str>] {
        &self.addresses
    }

    /// It failed: another one is tried before it.
    pub(crate) fn failed(&self, address: &Arc<str>) {
        let mut chosen = self.chosen();
        if chosen.now.as_ref() == Some(address) {
            chosen.now = None;
            chosen.failed = Some(address.clone());
        }
    }

    pub(crate) fn chosen(&self) -> MutexGuard<'_, Chosen> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
