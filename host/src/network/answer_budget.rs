//! What a call takes of its connection's and of the server's bytes before it makes a large answer.

use std::sync::{Arc, Mutex, PoisonError};

use tonic::Extensions;

use super::bounds::Held;
#[cfg(not(madsim))]
use super::bounds::Share;

/// The bytes that answers on one connection may take. Without bound for peers, in the simulator, and where a call did not
/// come over a connection.
#[derive(Clone, Debug, Default)]
pub struct AnswerBudget {
    #[cfg(not(madsim))]
    share: Option<Share>,
}

/// Bytes that an answer takes from before it is made until it was taken. Given back when it is dropped.
#[derive(Debug, Default)]
pub struct AnswerHold {
    held: Option<Held>,
}

/// Has an answer be asked for its parts only while there is room for one, of whatever size: each of them comes into being
/// when it is asked for.
pub fn make_on_demand(extensions: &mut Extensions) {
    extensions.insert(OnDemand);
}

/// An answer whose parts come into being when they are asked for.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    madsim,
    allow(dead_code, reason = "nothing is counted in the simulator")
)]
pub(super) struct OnDemand;

/// A hold on its way to whoever sends the answer.
#[derive(Clone, Debug)]
pub(super) struct Attached(Arc<Mutex<Option<Held>>>);

impl AnswerBudget {
    /// That of the connection on which a request came.
    pub fn of(extensions: &Extensions) -> AnswerBudget {
        extensions
            .get::<AnswerBudget>()
            .cloned()
            .unwrap_or_default()
    }

    #[cfg(not(madsim))]
    pub(super) fn new(share: Share) -> AnswerBudget {
        AnswerBudget { share: Some(share) }
    }

    /// Waits until so many bytes may be taken, at most all that one connection may have. The caller bounds the time.
    #[cfg(not(madsim))]
    pub async fn take(&self, bytes: u64) -> AnswerHold {
        let held = match &self.share {
            Some(share) => Some(share.take(bytes).await),
            None => None,
        };
        AnswerHold { held }
    }

    /// In the simulator nothing is counted.
    #[cfg(madsim)]
    pub async fn take(&self, _bytes: u64) -> AnswerHold {
        AnswerHold::default()
    }
}

impl AnswerHold {
    /// Gives back what is above so many bytes.
    pub fn shrink(&mut self, bytes: u64) {
        if let Some(held) = &mut self.held {
            held.shrink(bytes);
        }
    }

    /// Sends it along with an answer; it is given back piece by piece, as the peer takes the answer.
    pub fn attach(self, extensions: &mut Extensions) {
        if let Some(held) = self.held {
            extensions.insert(Attached(Arc::new(Mutex::new(Some(held)))));
        }
    }
}

impl Attached {
    #[cfg_attr(
        madsim,
        allow(dead_code, reason = "nothing is attached in the simulator")
    )]
    pub(super) fn detach(self) -> Option<Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
