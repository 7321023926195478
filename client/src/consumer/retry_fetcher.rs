//! Asks for one queue's retries: messages that failed, that were handed back to the servers and that are due again.
//!
//! One call at a time. It is given up and made anew when a retry that is held here is done with, because what the servers
//! leave out for the length of a call is what was held when it began.

use std::sync::Arc;
use std::time::Duration;

use host::Shutdown;
use proto::place::Life;
use proto::redelivery::{PullRetriesResponse, Retry};
use proto::v2::Code;
use tokio::time::Instant;

use crate::answer::Attempt;
use crate::consumer::delivery::{Delivery, TopicQueue};
use crate::consumer::fetcher::PAUSE_AFTER_OTHER_LIFE;
use crate::consumer::holdings::{RetriesWanted, Signals};
use crate::consumer::redelivery;
use crate::consumer::shared::{REFUSALS_MAX, Shared};
use crate::pursuit::{Next, Pursuit};
use crate::received::ReceivedMessage;

/// Pause after what will not pass by itself.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Pause after a broker said that it knows no retries at all.
const PAUSE_WITHOUT_RETRIES: Duration = Duration::from_secs(30);
/// An empty answer that came sooner than this was not waited for: the next call does the waiting.
const HASTY: Duration = Duration::from_millis(100);

/// See the module's text.
pub(super) struct RetryFetcher {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: TopicQueue,
    pub(super) signals: Arc<Signals>,
}

impl RetryFetcher {
    /// Runs until the queue is given up.
    pub(super) async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            biased;
            () = shutdown.wait() => {}
            () = self.fetch() => {}
        }
    }

    async fn fetch(&self) {
        let mut pursuit = self.shared.pursuit(&self.queue).await;
        loop {
            let Some(wanted) = self.shared.holdings().retries_wanted(&self.queue) else {
                return;
            };
            if wanted.room == 0 {
                self.signals.retried.notified().await;
                continue;
            }
            let wait = tokio::select! {
                biased;
                () = self.signals.retried.notified() => Duration::ZERO,
                wait = self.pull_once(wanted, &mut pursuit) => wait,
            };
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// One call, and what follows from it. Returns how long to wait before the next one.
    async fn pull_once(&self, wanted: RetriesWanted, pursuit: &mut Pursuit) -> Duration {
        let brokers = &self.shared.core.connection.brokers;
        let address = pursuit.address(brokers);
        let began = Instant::now();
        let (queue, group) = (&self.queue, pursuit.group().clone());
        let life = wanted.life;
        let of_life = &queue.of_life(life);
        let (outcome, redirected) =
            redelivery::pull(&self.shared, of_life, wanted, &group, &address).await;
        let failure = match outcome {
            Attempt::Answered(answer) => {
                *pursuit = Pursuit::new(group, REFUSALS_MAX);
                return self.take(answer, life, began.elapsed());
            }
            Attempt::Refused(refusal) if refusal.code == Code::PreconditionFailed => {
                self.shared
                    .start_again(queue, life, "its topic was made again or restored");
                *pursuit = self.shared.pursuit(queue).await;
                return PAUSE_AFTER_OTHER_LIFE;
            }
            failure => failure,
        };
        self.shared.core.refresh_soon(&queue.topic);
        match pursuit.after(&failure, redirected, brokers, &address) {
            Next::Again(wait) => wait,
            Next::GiveUp => {
                tracing::debug!(%queue, ?failure, "no retries");
                // The queue's broker group may be another by now.
                *pursuit = self.shared.pursuit(&self.queue).await;
                let is_seed = brokers.seeds().contains(&address);
                pause_after(&failure, is_seed)
            }
        }
    }

    /// Takes an answer's retries. Returns how long to wait before the next call.
    fn take(&self, answer: PullRetriesResponse, life: Option<Life>, took: Duration) -> Duration {
        if answer.retries.is_empty() {
            return pause_after_nothing(answer.next_due_ms, took);
        }
        let (mut deliveries, mut wait) = (Vec::new(), Duration::ZERO);
        for retry in answer.retries {
            match self.delivery(retry, life) {
                Ok(delivery) => deliveries.push(delivery),
                Err(reason) => {
                    tracing::warn!(queue = %self.queue, reason, "a retry cannot be read");
                    wait = PAUSE_AFTER_FAILURE;
                }
            }
        }
        let mut holdings = self.shared.holdings();
        holdings.retries_came(&self.queue, deliveries);
        drop(holdings);
        self.shared.arrived.notify_waiters();
        wait
    }

    fn delivery(&self, retry: Retry, life: Option<Life>) -> Result<Delivery, String> {
        let message = ReceivedMessage::decode(retry.message).map_err(|error| error.to_string())?;
        let offset = message.queue_offset().ok_or("it has no offset")?;
        Ok(Delivery {
            topic: self.queue.topic.clone(),
            queue: self.queue.queue,
            offset,
            attempt: retry.attempt,
            message,
            life,
        })
    }
}

/// How long to wait after a failure that stands. A seed that does not know the call may be a name server, which is asked
/// when no broker of the group is known: that says nothing about its brokers.
fn pause_after<R>(failure: &Attempt<R>, is_seed: bool) -> Duration {
    match failure {
        Attempt::Refused(refusal) if refusal.code == Code::NotImplemented && !is_seed => {
            PAUSE_WITHOUT_RETRIES
        }
        _ => PAUSE_AFTER_FAILURE,
    }
}

/// How long to wait after an answer without retries, which took so long. `next_due_ms`: until there is one; 0: there is none.
fn pause_after_nothing(next_due_ms: u64, took: Duration) -> Duration {
    match next_due_ms {
        _ if took >= HASTY => Duration::ZERO,
        0 => PAUSE_AFTER_FAILURE,
        due_ms => PAUSE_AFTER_FAILURE.min(Duration::from_millis(due_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Refusal;

    /// Catches retries that wait half a minute because a name server was asked while no broker was known.
    #[test]
    fn only_a_broker_can_say_that_it_knows_no_retries() {
        let refused = |code: Code| Attempt::<()>::Refused(Refusal::new(code as i32, "no"));
        let unknown = refused(Code::NotImplemented);
        assert_eq!(pause_after(&unknown, true), PAUSE_AFTER_FAILURE);
        assert_eq!(pause_after(&unknown, false), PAUSE_WITHOUT_RETRIES);
        let other = refused(Code::InternalServerError);
        assert_eq!(pause_after(&other, false), PAUSE_AFTER_FAILURE);
    }

    /// Catches a thousand calls a second to a broker that answers at once that there is nothing.
    #[test]
    fn an_answer_that_nobody_waited_for_is_waited_for_here() {
        let ms = Duration::from_millis;
        assert_eq!(pause_after_nothing(0, ms(1)), PAUSE_AFTER_FAILURE);
        assert_eq!(pause_after_nothing(20, ms(1)), ms(20));
        assert_eq!(pause_after_nothing(60_000, ms(1)), PAUSE_AFTER_FAILURE);
        assert_eq!(pause_after_nothing(0, HASTY), Duration::ZERO);
    }
}
