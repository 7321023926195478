//! What the parts of one consumer share: who it is, what it was told to do, and what it holds.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use host::Shutdown;
use proto::GroupName;
use proto::v2::ClientType;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connection::Identity;
use crate::consumer::allocation::Allocation;
use crate::consumer::delivery::{ConsumeFrom, Filter, TopicQueue};
use crate::consumer::fetcher::Fetcher;
use crate::consumer::holdings::{Due, Finishing, Holdings, PrefetchBounds, Signals};
use crate::consumer::progress::Progress;
use crate::consumer::retry_fetcher::RetryFetcher;
use crate::core::Core;
use crate::deadline;
use crate::error::Error;

/// Commits on their way at once. Brokers gather them, so a few are enough.
const COMMITS_AT_ONCE: usize = 16;

/// Who reads the queues of a topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sharing {
    /// Each queue is one member's.
    AmongMembers,
    /// Each member reads all of them.
    AllForEach,
}

/// What the user chose, and of what kind the consumer is.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) client_type: ClientType,
    pub(crate) sharing: Sharing,
    pub(crate) finishing: Finishing,
    /// Whether the servers are asked for retries of failed messages.
    pub(crate) retries: bool,
    /// How long a queue that is given up waits for those who work on its messages.
    pub(crate) leave_timeout: Duration,
    /// Heartbeat intervals for which a queue that another living member held before is left to it, so that it can finish
    /// and commit.
    pub(crate) handover_intervals: u32,
    /// How often the lag is measured.
    pub(crate) lag_interval: Option<Duration>,
    pub(crate) consume_from: ConsumeFrom,
    /// `None`: only when told to.
    pub(crate) auto_commit: Option<Duration>,
    pub(crate) allocation: Arc<dyn Allocation>,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) long_polling_timeout: Duration,
    pub(crate) pull_messages_max: usize,
    pub(crate) prefetch: PrefetchBounds,
}

/// See the module's text.
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) identity: Identity,
    pub(crate) group: GroupName,
    pub(crate) settings: Settings,
    /// Messages came, or an error that a poll should return.
    pub(crate) arrived: Notify,
    /// Somebody's work on a delivery ended.
    pub(crate) settled: Notify,
    progress: Progress,
    holdings: Mutex<Holdings>,
    /// One round of commits at a time, so that an older offset never follows a newer one.
    committing: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(crate) fn new(
        core: Arc<Core>,
        identity: Identity,
        group: GroupName,
        settings: Settings,
        progress: Progress,
    ) -> Shared {
        Shared {
            core,
            identity,
            group,
            holdings: Mutex::new(Holdings::new(settings.prefetch, settings.finishing)),
            settings,
            arrived: Notify::new(),
            settled: Notify::new(),
            progress,
            committing: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings
            .lock()
            .expect("nothing panics while the holdings are locked")
    }

    /// Takes queues and begins to fetch from them.
    pub(crate) fn take(
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
            if self.settings.retries {
                let fetcher = RetryFetcher {
                    shared: self.clone(),
                    queue: queue.clone(),
                    signals: signals.clone(),
                };
                tokio::spawn(fetcher.run(shutdown.clone()));
            }
            let fetcher = Fetcher {
                shared: self.clone(),
                queue,
                filter: filter.clone(),
                signals,
            };
            tokio::spawn(fetcher.run(shutdown));
        }
    }

    /// Gives up queues: from here on nothing of them is handed out. Waits for those who work on their messages, but not
    /// longer than the leave timeout; then commits what is done in them.
    pub(crate) async fn give_up(&self, queues: &[TopicQueue]) {
        if let Err(error) = self.release(queues).await {
            // Its next owner starts a little earlier and delivers a few messages again.
            tracing::warn!(group = %self.group, %error, "offsets of given-up queues not committed");
        }
    }

    /// As `give_up`, and says what went wrong with the commit.
    pub(crate) async fn release(&self, queues: &[TopicQueue]) -> Result<(), Error> {
        self.holdings().leave(queues);
        self.wait_for_work_on(queues).await;
        let due: Vec<Due> = {
            let mut holdings = self.holdings();
            queues
                .iter()
                .filter_map(|queue| holdings.give_up(queue))
                .collect()
        };
        self.commit(due).await
    }

    /// Returns when nothing of these queues is in anybody's hands, or the leave timeout is over.
    async fn wait_for_work_on(&self, queues: &[TopicQueue]) {
        let deadline = deadline::after(self.settings.leave_timeout);
        loop {
            let mut settled = pin!(self.settled.notified());
            // From here on an end is noticed, also one between the look and the wait.
            settled.as_mut().enable();
            let running = self.holdings().running(queues);
            if running == 0 {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || tokio::time::timeout(left, settled).await.is_err() {
                tracing::warn!(group = %self.group, running, "messages are still worked on: their queues' next owners get them too");
                return;
            }
        }
    }

    /// Commits no more.
    pub(crate) fn close_progress(&self) {
        self.progress.close();
    }

    /// What is committed in a queue, if anything.
    pub(crate) async fn committed(&self, queue: &TopicQueue) -> Result<Option<u64>, Error> {
        self.progress.committed(self, queue).await
    }

    /// Tells the servers what is done. The first error, if there is any; the others were tried all the same.
    pub(crate) async fn commit_due(&self) -> Result<(), Error> {
        let due = self.holdings().due();
        self.commit(due).await
    }

    pub(crate) async fn commit(&self, due: Vec<Due>) -> Result<(), Error> {
        if due.is_empty() {
            return Ok(());
        }
        let _committing = self.committing.lock().await;
        let mut results = stream::iter(due)
            .map(|due| async move { (self.progress.commit(self, &due).await, due) })
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
        let saved = self.progress.save().await;
        failure.map_or(saved, Err)
    }
}
