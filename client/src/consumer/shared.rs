//! What the parts of one consumer share: who it is, what it was told to do, and what it holds.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use host::Shutdown;
use proto::GroupName;
use tokio::sync::Notify;

use crate::connection::Identity;
use crate::consumer::allocation::Allocation;
use crate::consumer::delivery::{ConsumeFrom, Filter, TopicQueue};
use crate::consumer::fetcher::Fetcher;
use crate::consumer::holdings::{Due, Holdings, PrefetchBounds, Signals};
use crate::core::Core;
use crate::error::Error;
use crate::offsets;

/// Commits on their way at once. Brokers gather them, so a few are enough.
const COMMITS_AT_ONCE: usize = 16;

/// What the user chose.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) consume_from: ConsumeFrom,
    /// `None`: only when told to.
    pub(super) auto_commit: Option<Duration>,
    pub(super) allocation: Arc<dyn Allocation>,
    pub(super) heartbeat_interval: Duration,
    pub(super) long_polling_timeout: Duration,
    pub(super) pull_messages_max: usize,
    pub(super) prefetch: PrefetchBounds,
}

/// See the module's text.
pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) identity: Identity,
    pub(super) group: GroupName,
    pub(super) settings: Settings,
    /// Messages came, or an error that a poll should return.
    pub(super) arrived: Notify,
    holdings: Mutex<Holdings>,
    /// One round of commits at a time, so that an older offset never follows a newer one.
    committing: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn new(
        core: Arc<Core>,
        identity: Identity,
        group: GroupName,
        settings: Settings,
    ) -> Shared {
        Shared {
            core,
            identity,
            group,
            holdings: Mutex::new(Holdings::new(settings.prefetch)),
            settings,
            arrived: Notify::new(),
            committing: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings
            .lock()
            .expect("nothing panics while the holdings are locked")
    }

    /// Takes queues and begins to fetch from them.
    pub(super) fn take(
        self: &Arc<Self>,
        queues: impl IntoIterator<Item = TopicQueue>,
        filter: &Filter,
    ) {
        for queue in queues {
            let signals = Arc::new(Signals::default());
            let (trigger, shutdown) = Shutdown::new();
            if !self
                .holdings()
                .take(queue.clone(), signals.clone(), trigger)
            {
                continue;
            }
            tracing::debug!(%queue, group = %self.group, "queue taken");
            let fetcher = Fetcher {
                shared: self.clone(),
                queue,
                filter: filter.clone(),
                signals,
            };
            tokio::spawn(fetcher.run(shutdown));
        }
    }

    /// Gives up queues: from here on nothing of them is handed out. Commits what is done in them.
    pub(super) async fn give_up(&self, queues: &[TopicQueue]) {
        let due: Vec<Due> = {
            let mut holdings = self.holdings();
            queues
                .iter()
                .filter_map(|queue| holdings.give_up(queue))
                .collect()
        };
        if let Err(error) = self.commit(due).await {
            // Its next owner starts a little earlier and delivers a few messages again.
            tracing::warn!(group = %self.group, %error, "offsets of given-up queues not committed");
        }
    }

    /// Tells the servers what is done. The first error, if there is any; the others were tried all the same.
    pub(super) async fn commit_due(&self) -> Result<(), Error> {
        let due = self.holdings().due();
        self.commit(due).await
    }

    pub(super) async fn commit(&self, due: Vec<Due>) -> Result<(), Error> {
        if due.is_empty() {
            return Ok(());
        }
        let _committing = self.committing.lock().await;
        let mut results = stream::iter(due)
            .map(|due| async move { (self.commit_one(&due).await, due) })
            .buffered(COMMITS_AT_ONCE);
        let mut failure = None;
        while let Some((result, due)) = results.next().await {
            match result {
                Ok(()) => self.holdings().committed(&due),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn commit_one(&self, due: &Due) -> Result<(), Error> {
        offsets::commit(
            &self.core,
            &self.identity,
            self.group.as_str(),
            &due.queue,
            due.offset,
        )
        .await
    }
}
