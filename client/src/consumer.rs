//! Consumers of every kind: they find their place in each queue, keep it, and tell the servers. The pull consumer's face is
//! here; what becomes of each delivery of a push consumer is in `push_consumer`, which uses all the rest.
//!
//! | file | what it does |
//! | --- | --- |
//! | `consumer` | the pull consumer's public face |
//! | `shared` | who the consumer is and what it holds; commits |
//! | `holdings` | queues, buffers, offsets; pure |
//! | `at_work`, `retries` | what of one queue is worked on; pure |
//! | `take` | begins to fetch from a queue |
//! | `fetcher` | fills one queue's buffer |
//! | `retry_fetcher`, `redelivery` | messages that failed |
//! | `progress`, `progress_file` | where progress is kept |
//! | `rebalancer` | shares queues with the group's other members |
//! | `hand_over` | whose queues are left alone for a while; pure |
//! | `upkeep` | rebalances and commits in the background |
//! | `allocation`, `membership` | who reads what; pure |
//! | `delivery` | plain data |

mod allocation;
mod at_work;
mod delivery;
mod fetcher;
mod hand_over;
pub(crate) mod holdings;
pub(crate) mod leaving;
mod member_calls;
mod membership;
pub(crate) mod progress;
pub(crate) mod progress_file;
pub(crate) mod rebalancer;
pub(crate) mod redelivery;
mod retries;
mod retry_fetcher;
pub(crate) mod shared;
mod take;
mod turns;
pub(crate) mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use host::{Shutdown, ShutdownTrigger};
use model::{GroupName, TopicName};
use proto::v2::ClientType;
use tokio::time::Instant;
use tracing::Instrument;

pub use allocation::{
    Allocation, Averagely, AveragelyByCircle, Configured, ConsistentHash, MachineRoom,
    MachineRoomNearby, SharedQueue,
};
pub use delivery::{ConsumeFrom, Delivery, Filter, SeekTo, TopicQueue};

use crate::consumer::holdings::{Due, Finishing, PrefetchBounds};
use crate::consumer::leaving::leave;
use crate::consumer::progress::Progress;
use crate::consumer::rebalancer::Rebalancer;
use crate::consumer::shared::{Settings, Shared, Sharing};
use crate::core::Core;
use crate::deadline;
use crate::error::Error;
use crate::member_ids::MemberIds;
use crate::offsets;

/// Consumes topics as a member of a consumer group, or chosen queues on its own.
///
/// **What it delivers.** Of each queue that it holds: every message from the group's committed offset on (or, if there
/// is none, from [`PullConsumerBuilder::consume_from`] on), in order, none skipped, whoever leads. Only messages that
/// are on the disks of a majority. A message that retention removed before it was read is gone; the log warns then.
///
/// **What is committed.** With automatic commits (the default) the next `poll` says that everything handed out by
/// earlier polls is finished with; only that is committed, at intervals and before a queue is given up to another
/// member. [`PullConsumer::commit`] says the same at once. With [`PullConsumerBuilder::manual_commit`] only what was
/// finished by a `commit` is. So every message is delivered at least once; those handed out and not committed when the
/// consumer dies, or loses their queue, are delivered again to the queue's next owner. What was prefetched and not
/// handed out is dropped and never committed.
///
/// **Members.** Consumers that subscribe to a topic share its queues: by default in contiguous blocks of equal size, in
/// the order of their client ids ([`PullConsumerBuilder::allocation`]). A member that joins, leaves or dies is noticed at the next heartbeat (leaving without
/// [`PullConsumer::close`]: when the brokers miss it). A queue that goes from one living member to another is left to the
/// former one for two heartbeat intervals: it hands out nothing more of it and waits up to one interval for the `poll` or
/// `commit` that finishes what it handed out, so that nothing of it is delivered twice. Dropping the consumer stops it without a
/// commit.
pub struct PullConsumer {
    shared: Arc<Shared>,
    rebalancer: Arc<tokio::sync::Mutex<Rebalancer>>,
    /// Stops the background tasks, at the latest when it is dropped.
    running: ShutdownTrigger,
    shutdown: Shutdown,
    started: std::sync::Once,
}

impl PullConsumer {
    /// Adds a topic, or changes its filter. The group's members share its queues among themselves. Returns after the
    /// first share-out, which may have left this member without a queue.
    ///
    /// # Errors
    /// [`Error::Invalid`]: not a topic's name, a filter that no broker evaluates, or queues were assigned before. [`Error::Refused`], [`Error::TimedOut`]:
    /// no such topic, a bad group, or nobody answered. If it was only the share-out that failed
    /// ([`PullConsumer::subscriptions`] tells), it is done at the next heartbeat.
    pub async fn subscribe(&self, topic: &str, filter: Filter) -> Result<(), Error> {
        self.check_open()?;
        TopicName::check(topic)
            .map_err(|error| Error::invalid(format!("topic {topic:?}"), error.to_string()))?;
        filter.check()?;
        let topic: Arc<str> = topic.into();
        let mut rebalancer = self.rebalancer.lock().await;
        if rebalancer.is_idle() && !self.shared.holdings().held().is_empty() {
            return Err(Error::invalid(
                format!("subscription to {topic}"),
                "queues were assigned",
            ));
        }
        // So that a topic that does not exist is refused now and not by and by.
        self.shared.core.route(&topic).await?;
        if rebalancer
            .filter(&topic)
            .is_some_and(|known| *known != filter)
        {
            rebalancer.unsubscribe(&self.shared, &topic).await;
        }
        rebalancer.subscribe(topic, filter);
        let round = rebalancer.round(&self.shared).await;
        drop(rebalancer);
        self.start();
        round
    }

    /// The topics subscribed to, sorted.
    pub async fn subscriptions(&self) -> Vec<String> {
        self.rebalancer.lock().await.topics()
    }

    /// Gives up a topic, after committing what is done in its queues.
    pub async fn unsubscribe(&self, topic: &str) -> Result<(), Error> {
        self.check_open()?;
        let mut rebalancer = self.rebalancer.lock().await;
        rebalancer.unsubscribe(&self.shared, topic).await;
        rebalancer.leave_if_idle(&self.shared).await;
        Ok(())
    }

    /// Takes exactly these queues, whoever else reads them; gives up those it held before. Excludes `subscribe`.
    ///
    /// # Errors
    /// [`Error::Invalid`] after a `subscribe`.
    pub async fn assign(&self, queues: impl IntoIterator<Item = TopicQueue>) -> Result<(), Error> {
        self.check_open()?;
        let rebalancer = self.rebalancer.lock().await;
        if !rebalancer.is_idle() {
            return Err(Error::invalid("assignment", "topics were subscribed to"));
        }
        let wanted: std::collections::BTreeSet<TopicQueue> = queues.into_iter().collect();
        let held = self.shared.holdings().held();
        let lost: Vec<TopicQueue> = held
            .into_iter()
            .filter(|queue| !wanted.contains(queue))
            .collect();
        self.shared.give_up_at_once(&lost).await;
        self.shared.take(wanted, &Filter::All);
        drop(rebalancer);
        self.start();
        Ok(())
    }

    /// The queues that this consumer holds now, in order.
    pub fn assignment(&self) -> Vec<TopicQueue> {
        self.shared.holdings().held()
    }

    /// Up to `max` messages; waits until there is at least one or `timeout` has passed (then none). Says that what
    /// earlier polls handed out is finished with, unless commits are manual.
    ///
    /// # Errors
    /// What keeps a queue from being read and will not pass by itself, once for each time that it is met; messages that
    /// came before are handed out first. Reading goes on as soon as it can. [`Error::Closed`].
    pub async fn poll(&self, max: usize, timeout: Duration) -> Result<Vec<Delivery>, Error> {
        let span = tracing::debug_span!("poll", group = self.shared.group.as_str());
        self.poll_held(max, timeout).instrument(span).await
    }

    async fn poll_held(&self, max: usize, timeout: Duration) -> Result<Vec<Delivery>, Error> {
        if self.shared.settings.auto_commit.is_some() {
            self.shared.all_done();
        }
        let deadline = deadline::after(timeout);
        loop {
            let mut arrived = std::pin::pin!(self.shared.arrived.notified());
            // From here on an arrival is noticed, also one between the look and the wait.
            arrived.as_mut().enable();
            {
                let mut holdings = self.shared.holdings();
                if holdings.is_closed() {
                    return Err(Error::Closed {
                        subject: "consumer",
                    });
                }
                let deliveries = holdings.hand_out(max.max(1))?;
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || tokio::time::timeout(left, arrived).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    /// Goes to a place in a held queue: the next `poll` continues there. Drops what was prefetched of it. Going back
    /// does not take back what is committed: see [`crate::Admin::reset_offset`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if the queue is not held. For a place other than an offset, which must be asked for:
    /// [`Error::Refused`], [`Error::TimedOut`]; the consumer goes on where it was then.
    pub async fn seek(&self, queue: &TopicQueue, to: impl Into<SeekTo>) -> Result<(), Error> {
        self.check_held(queue)?;
        let core = &self.shared.core;
        let offset = match to.into() {
            SeekTo::Offset(offset) => offset,
            SeekTo::Begin => offsets::query(core, queue, offsets::Place::First).await?,
            SeekTo::End => offsets::query(core, queue, offsets::Place::Next).await?,
            SeekTo::TimeMs(time_ms) => {
                offsets::query(core, queue, offsets::Place::AtMs(time_ms)).await?
            }
        };
        match self.shared.holdings().seek(queue, offset) {
            true => Ok(()),
            // It was given up during the question.
            false => Err(not_held(queue)),
        }
    }

    /// Hands out nothing more of these queues until [`PullConsumer::resume`]. They stay this member's, and what was
    /// fetched of them is kept. A queue that is given up and taken again is not paused any more.
    ///
    /// # Errors
    /// [`Error::Invalid`] if one of them is not held; none is paused then.
    pub fn pause(&self, queues: &[TopicQueue]) -> Result<(), Error> {
        self.set_paused(queues, true)
    }

    /// Goes on with queues that were paused.
    ///
    /// # Errors
    /// [`Error::Invalid`] if one of them is not held; none is resumed then.
    pub fn resume(&self, queues: &[TopicQueue]) -> Result<(), Error> {
        self.set_paused(queues, false)?;
        // What they had ready is there for a poll that waits.
        self.shared.arrived.notify_waiters();
        Ok(())
    }

    /// The queues that are paused, in order.
    pub fn paused(&self) -> Vec<TopicQueue> {
        self.shared.holdings().paused()
    }

    /// The offset that the next `poll` continues at in a held queue; `None` if it is not held or not known yet.
    pub fn position(&self, queue: &TopicQueue) -> Option<u64> {
        self.shared.holdings().position(queue)
    }

    /// Says that everything handed out so far is finished with, and commits it. Returns when a majority has it.
    ///
    /// # Errors
    /// The first of what went wrong; the rest was committed all the same. What failed is tried again with the next
    /// commit.
    pub async fn commit(&self) -> Result<(), Error> {
        self.check_open()?;
        self.shared.all_done();
        self.shared.commit_due().await
    }

    /// Commits one offset of one queue: the next one to deliver. It need not be held. Where the queue is that of a delivery
    /// ([`Delivery::topic_queue`]) or is held, the life of its topic is meant from which that came.
    ///
    /// # Errors
    /// [`Error::Refused`] if it lies beyond the queue's end, or if the topic was made again or restored since
    /// (`PRECONDITION_FAILED`); [`Error::TimedOut`], [`Error::OutcomeUnknown`].
    pub async fn commit_offset(&self, queue: &TopicQueue, offset: u64) -> Result<(), Error> {
        let life = queue.life().or_else(|| self.shared.holdings().life(queue));
        let queue = queue.of_life(life);
        let due = Due {
            queue: queue.clone(),
            offset,
        };
        self.shared.commit(due).await?;
        self.shared.done_below(&queue, offset);
        Ok(())
    }

    /// What the group has committed in a queue, if anything.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such queue; [`Error::TimedOut`].
    pub async fn committed(&self, queue: &TopicQueue) -> Result<Option<u64>, Error> {
        self.shared.committed(queue).await
    }

    /// Leaves the group: stops reading, commits and says goodbye, so that others take over at once. With automatic
    /// commits this says that everything handed out is finished with. A broker group that does not answer holds up no other
    /// one, and this by no more than a request timeout, a heartbeat interval and a second.
    ///
    /// # Errors
    /// What of that failed first. The consumer is closed all the same.
    pub async fn close(&self) -> Result<(), Error> {
        if self.shared.settings.auto_commit.is_some() {
            self.shared.holdings().all_done();
        }
        let held = self.shared.holdings().stop();
        self.shared.arrived.notify_waiters();
        let held = (held, self.shared.finishing_timeout());
        leave(&self.shared, &self.rebalancer, &self.running, held).await
    }

    fn check_open(&self) -> Result<(), Error> {
        match self.shared.holdings().is_closed() {
            true => Err(Error::Closed {
                subject: "consumer",
            }),
            false => Ok(()),
        }
    }

    fn check_held(&self, queue: &TopicQueue) -> Result<(), Error> {
        self.check_open()?;
        match self.shared.holdings().holds(queue) {
            true => Ok(()),
            false => Err(not_held(queue)),
        }
    }

    fn set_paused(&self, queues: &[TopicQueue], paused: bool) -> Result<(), Error> {
        self.check_open()?;
        let mut holdings = self.shared.holdings();
        if let Some(foreign) = queues.iter().find(|queue| !holdings.holds(queue)) {
            return Err(not_held(foreign));
        }
        for queue in queues {
            holdings.pause(queue, paused);
        }
        Ok(())
    }

    /// Starts the background tasks, once.
    fn start(&self) {
        self.started.call_once(|| {
            upkeep::start(&self.shared, &self.rebalancer, &self.shutdown);
        });
    }
}

impl Drop for PullConsumer {
    /// The fetchers hold what is shared; giving up the queues lets them go.
    fn drop(&mut self) {
        self.shared.holdings().close();
    }
}

fn not_held(queue: &TopicQueue) -> Error {
    Error::invalid(format!("queue {queue}"), "this consumer does not hold it")
}

/// Describes a [`PullConsumer`].
#[derive(Clone)]
pub struct PullConsumerBuilder {
    core: Arc<Core>,
    group: String,
    member_ids: MemberIds,
    settings: Settings,
}

impl PullConsumerBuilder {
    pub(crate) fn new(
        core: Arc<Core>,
        group: String,
        member_ids: MemberIds,
    ) -> PullConsumerBuilder {
        let settings = Settings {
            client_type: ClientType::PullConsumer,
            sharing: Sharing::AmongMembers,
            finishing: Finishing::AtOnce,
            retries: false,
            // See `build`.
            leave_timeout: Duration::ZERO,
            handover_intervals: 2,
            lag_interval: None,
            consume_from: None,
            auto_commit: Some(Duration::from_secs(5)),
            allocation: Arc::new(Averagely),
            heartbeat_interval: Duration::from_secs(2),
            long_polling_timeout: Duration::from_secs(15),
            pull_messages_max: 256,
            prefetch: PrefetchBounds {
                messages: 1024,
                bytes: 8 * 1024 * 1024,
                span: u64::MAX,
            },
        };
        PullConsumerBuilder {
            core,
            group,
            member_ids,
            settings,
        }
    }

    /// Where the group starts in a queue in which it has committed no offset, if this consumer is the first one of it: the
    /// group keeps that, and a group that exists starts where it was told to (the log warns if that is elsewhere). Default
    /// the oldest message.
    #[must_use]
    pub fn consume_from(mut self, start: ConsumeFrom) -> Self {
        self.settings.consume_from = Some(start);
        self
    }

    /// How often to commit what is done, by itself. Default 5 s.
    #[must_use]
    pub fn auto_commit(mut self, interval: Duration) -> Self {
        self.settings.auto_commit = Some(interval);
        self
    }

    /// Commits only when told to.
    #[must_use]
    pub fn manual_commit(mut self) -> Self {
        self.settings.auto_commit = None;
        self
    }

    /// How the group's members share the queues; the same in all of them. Default [`Averagely`].
    #[must_use]
    pub fn allocation(mut self, strategy: impl Allocation) -> Self {
        self.settings.allocation = Arc::new(strategy);
        self
    }

    /// How often to tell the servers that this member lives, and to share the queues anew. Default 2 s. Must be well
    /// below the brokers' time after which a client is missed (30 s by default).
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.settings.heartbeat_interval = interval;
        self
    }

    /// How long a broker may hold a pull that finds nothing. Default 15 s.
    #[must_use]
    pub fn long_polling_timeout(mut self, timeout: Duration) -> Self {
        self.settings.long_polling_timeout = timeout;
        self
    }

    /// How often to ask how far behind this member is, for the metric `rocketmq_consumer_lag_messages`. Default never.
    #[must_use]
    pub fn lag_interval(mut self, interval: Duration) -> Self {
        self.settings.lag_interval = Some(interval);
        self
    }

    /// Most messages asked for by one pull. Default 256.
    #[must_use]
    pub fn pull_messages_max(mut self, messages: usize) -> Self {
        self.settings.pull_messages_max = messages;
        self
    }

    /// Most messages kept ready for each queue. Default 1024.
    #[must_use]
    pub fn prefetch_messages(mut self, messages: usize) -> Self {
        self.settings.prefetch.messages = messages;
        self
    }

    /// No pull begins while so many bytes are kept ready for its queue. Default 8 MiB.
    #[must_use]
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.settings.prefetch.bytes = bytes;
        self
    }

    /// The consumer, not yet reading anything. Talks to nobody yet.
    ///
    /// # Errors
    /// [`Error::Invalid`]: not a group's name, or a bound or interval of 0.
    pub fn build(mut self) -> Result<PullConsumer, Error> {
        let group = GroupName::new(self.group.clone()).map_err(|error| {
            Error::invalid(format!("group {:?}", self.group), error.to_string())
        })?;
        let settings = &self.settings;
        for (name, is_zero) in [
            (
                "auto_commit",
                settings
                    .auto_commit
                    .is_some_and(|interval| interval.is_zero()),
            ),
            ("heartbeat_interval", settings.heartbeat_interval.is_zero()),
            (
                "long_polling_timeout",
                settings.long_polling_timeout.is_zero(),
            ),
            (
                "lag_interval",
                settings
                    .lag_interval
                    .is_some_and(|interval| interval.is_zero()),
            ),
            ("pull_messages_max", settings.pull_messages_max == 0),
            ("prefetch_messages", settings.prefetch.messages == 0),
            ("prefetch_bytes", settings.prefetch.bytes == 0),
        ] {
            if is_zero {
                return Err(Error::invalid(name, "it is 0"));
            }
        }
        let identity = self.member_ids.next(self.settings.heartbeat_interval)?;
        let (running, shutdown) = Shutdown::new();
        // Who gives up a queue hears of that within one interval, and has the other to finish and to commit in.
        self.settings.leave_timeout = self.settings.heartbeat_interval;
        Ok(PullConsumer {
            shared: Arc::new(Shared::new(
                self.core,
                identity,
                group,
                self.settings,
                Progress::OfGroup,
            )),
            rebalancer: Arc::default(),
            running,
            shutdown,
            started: std::sync::Once::new(),
        })
    }
}
