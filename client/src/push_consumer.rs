//! Consumers that are given each message: a listener is called, or a stream yields, one delivery after the other.
//!
//! What fetches, shares queues and commits is the pull consumer's (`consumer`); here is what becomes of a delivery.
//!
//! | file | what it does |
//! | --- | --- |
//! | `push_consumer` | the public face |
//! | `builder` | what the user may choose |
//! | `engine` | hands deliveries out, within bounds, and settles them |
//! | `push_delivery` | one delivery in the user's hands |
//! | `listener` | calls the user's code |

mod builder;
mod engine;
mod listener;
mod push_delivery;

use std::sync::Arc;

use futures::stream::{self, Stream};
use host::{Shutdown, ShutdownTrigger};

pub use builder::{Consumption, PushConsumerBuilder};
pub use listener::Listener;
pub use push_delivery::PushDelivery;

use crate::consumer::TopicQueue;
use crate::consumer::leaving::leave;
use crate::consumer::rebalancer::Rebalancer;
use crate::consumer::shared::Shared;
use crate::consumer::upkeep;
use crate::error::Error;
use crate::push_consumer::engine::Engine;

/// A member of a consumer group whose messages go to a listener. Made by [`PushConsumerBuilder::listen`].
///
/// **What it delivers.** Of each queue that it holds: every message from the group's committed offset on (or, if there is
/// none, from [`PushConsumerBuilder::consume_from`] on), at least once. Only messages that are on the disks of a majority.
/// A message that retention removed before it was read is gone; the log warns then.
///
/// **Progress** of a queue is the lowest offset that is not finished: a message that is still worked on, or that failed
/// and is not in the servers' hands yet, holds it back, whatever was finished behind it. It is committed at intervals
/// ([`PushConsumerBuilder::commit_interval`]), before a queue is given up to another member, and by
/// [`PushConsumer::close`]. What was finished and not committed when the consumer dies is delivered again.
///
/// **Failures.** A message whose listener returns an error, panics or takes too long is handed back to the servers, which
/// deliver it again after the group's back-off, to whichever member holds its queue then; progress passes it only when a
/// majority of servers has it. After the group's last attempt it goes to the topic `%DLQ%` + group, where it can be read
/// like any message. In order ([`PushConsumerBuilder::in_order`]) a failed message is tried again where it is, after a
/// pause, and nothing behind it in its queue is delivered before; after the last attempt it goes to the dead letters. A
/// broadcast message ([`Consumption::Broadcasting`]) is tried again here and given up, with a warning in the log, after
/// the last attempt.
///
/// **Members** share the queues as those of a [`crate::PullConsumer`] do; a member that joins or leaves, and a change of
/// the topic's queues, is noticed at the next heartbeat. A queue of another living member is taken two heartbeats later,
/// by when that member has stopped, waited for those who work on its messages, and committed; if the work takes longer,
/// the messages worked on are delivered twice. Dropping the consumer stops it without a commit.
pub struct PushConsumer {
    engine: Arc<Engine>,
    rebalancer: Arc<tokio::sync::Mutex<Rebalancer>>,
    /// Stops the background tasks, at the latest when it is dropped.
    running: ShutdownTrigger,
}

impl PushConsumer {
    /// Starts what runs in the background.
    fn start(engine: Arc<Engine>, rebalancer: Arc<tokio::sync::Mutex<Rebalancer>>) -> PushConsumer {
        let (running, shutdown) = Shutdown::new();
        upkeep::start(engine.shared(), &rebalancer, &shutdown);
        let settling = engine.clone().settle_ended();
        tokio::spawn(upkeep::until(shutdown, settling));
        PushConsumer {
            engine,
            rebalancer,
            running,
        }
    }

    /// The id under which the servers know this member.
    pub fn member_id(&self) -> &str {
        self.shared().identity.client_id()
    }

    /// The queues that this member holds now, in order.
    pub fn assignment(&self) -> Vec<TopicQueue> {
        self.shared().holdings().held()
    }

    /// Commits what is finished now. Returns when a majority has it.
    ///
    /// # Errors
    /// The first of what went wrong; the rest was committed all the same.
    pub async fn commit(&self) -> Result<(), Error> {
        self.shared().commit_due().await
    }

    /// Leaves the group: hands out nothing more, waits for those who work on messages (but not longer than
    /// [`PushConsumerBuilder::leave_timeout`]), commits and says goodbye, so that others take over at once. A broker group that
    /// does not answer holds up no other one, and this by no more than a request timeout, a heartbeat interval and a second.
    ///
    /// # Errors
    /// What of that failed first. The consumer is closed all the same.
    pub async fn close(&self) -> Result<(), Error> {
        let held = self.shared().holdings().stop();
        self.engine.close();
        let shared = self.shared();
        let held = (held, shared.finishing_timeout());
        let left = leave(shared, &self.rebalancer, &self.running, held).await;
        shared.close_progress();
        left
    }

    fn shared(&self) -> &Arc<Shared> {
        self.engine.shared()
    }
}

impl Drop for PushConsumer {
    /// The fetchers hold what is shared; giving up the queues lets them go.
    fn drop(&mut self) {
        self.shared().holdings().close();
        self.engine.close();
    }
}

/// A member of a consumer group whose messages are asked for one by one. Made by [`PushConsumerBuilder::stream`]. What it
/// promises is what [`PushConsumer`] promises.
pub struct PushStream {
    consumer: PushConsumer,
}

impl PushStream {
    /// The next delivery; waits until there is one and room for it: no more than [`PushConsumerBuilder::concurrency`] are
    /// in the user's hands at once. `None` after [`PushStream::close`]. Cancelling the wait loses nothing. Several tasks
    /// may call it at once.
    ///
    /// # Errors
    /// What keeps a queue from being read and will not pass by itself, once for each time that it is met. Reading goes on
    /// as soon as it can.
    pub async fn next(&self) -> Result<Option<PushDelivery>, Error> {
        PushDelivery::next(&self.consumer.engine).await
    }

    /// The same as a `futures::Stream`, which ends after [`PushStream::close`].
    pub fn deliveries(&self) -> impl Stream<Item = Result<PushDelivery, Error>> + Send + '_ {
        stream::unfold(self, |this| async move {
            let next = this.next().await.transpose()?;
            Some((next, this))
        })
    }

    /// As [`PushConsumer::member_id`].
    pub fn member_id(&self) -> &str {
        self.consumer.member_id()
    }

    /// As [`PushConsumer::assignment`].
    pub fn assignment(&self) -> Vec<TopicQueue> {
        self.consumer.assignment()
    }

    /// As [`PushConsumer::commit`].
    ///
    /// # Errors
    /// As there.
    pub async fn commit(&self) -> Result<(), Error> {
        self.consumer.commit().await
    }

    /// As [`PushConsumer::close`]. Deliveries that are still in the user's hands may be settled meanwhile.
    ///
    /// # Errors
    /// As there.
    pub async fn close(&self) -> Result<(), Error> {
        self.consumer.close().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::poll;

    use super::*;
    use crate::consumer::progress::Progress;
    use crate::consumer::shared::testing::without_servers;
    use crate::push_consumer::engine::{Attempts, Rules};

    /// Catches a hand-over that is cut off before its commit, because the consumer is closed meanwhile.
    #[tokio::test]
    async fn closing_waits_for_the_round_that_is_under_way() {
        let rules = Rules {
            concurrency: 1,
            in_order: false,
            attempts: Attempts::AtServers,
            pause: Duration::from_secs(1),
        };
        let shared = without_servers(Progress::OfGroup, Duration::ZERO);
        let rebalancer = Arc::new(tokio::sync::Mutex::new(Rebalancer::default()));
        let (running, shutdown) = Shutdown::new();
        let consumer = PushConsumer {
            engine: Arc::new(Engine::new(shared, rules)),
            rebalancer: rebalancer.clone(),
            running,
        };
        let round = rebalancer.lock().await;
        let mut close = Box::pin(consumer.close());
        assert!(poll!(close.as_mut()).is_pending());
        assert!(!shutdown.is_shut_down());
        drop(round);
        close.await.expect("closes");
        assert!(shutdown.is_shut_down());
    }
}
