//! Takes queues: from then on their messages and retries are fetched, until they are given up.

use std::sync::Arc;

use host::Shutdown;

use crate::consumer::delivery::{Filter, TopicQueue};
use crate::consumer::fetcher::Fetcher;
use crate::consumer::holdings::Signals;
use crate::consumer::retry_fetcher::RetryFetcher;
use crate::consumer::shared::Shared;

impl Shared {
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
}
