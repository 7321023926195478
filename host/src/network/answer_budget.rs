//! What a call takes of its connection's and of the server's bytes before it makes a large answer.

use std::sync::{Arc, Mutex, PoisonError};

use tonic::Extensions;

#[cfg(not(madsim))]
use super::account::Account;
use super::bounds::Held;

/// The bytes that answers on one connection may take. Without bound for peers, in the simulator, and where a call did not
/// come over a connection.
#[derive(Clone, Debug, Default)]
pub struct AnswerBudget {
    #[cfg(not(madsim))]
    account: Option<Arc<Account>>,
}

/// Bytes that an answer takes from before it is made until it was taken. Given back when it is dropped.
#[derive(Debug, Default)]
pub struct AnswerHold {
    held: Option<Held>,
}

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
    pub(super) fn new(account: Arc<Account>) -> AnswerBudget {
        AnswerBudget {
            account: Some(account),
        }
    }

    /// Waits until so many bytes may be taken, at most all that one connection may have. The caller bounds the time.
    #[cfg(not(madsim))]
    pub async fn take(&self, bytes: u64) -> AnswerHold {
        let shares = self.account.as_ref().and_then(|account| account.shares());
        let held = match shares {
            Some(shares) => Some(shares.answers.take(bytes).await),
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
