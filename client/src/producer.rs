//! Producers: messages go in one by one, requests of many go out, and each sender learns what became of its message.
//!
//! | file | what it does |
//! | --- | --- |
//! | `producer` | the public face: bounds, topics, handing over |
//! | `in_flight` | back-pressure |
//! | `gatherer` | which messages make up the next request; pure |
//! | `topic_sender` | workers that bring requests through failures |
//! | `sending` | one request's messages: encoded once, settled one by one |
//! | `way` | from one broker group to the next |
//! | `fault_table` | broker groups to keep away from |
//! | `selection` | the hash of a message group |
//! | `named_queue` | whether a queue that a user names exists |

mod fault_table;
mod gatherer;
mod in_flight;
mod named_queue;
mod send_handle;
mod sending;
mod topic_sender;
mod way;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::queue_choice;
use tokio::time::Instant;
use tracing::Instrument;

pub use send_handle::{SendHandle, SendReceipt};

use crate::compression::compress;
use crate::core::Core;
use crate::deadline;
use crate::encode::size_hint;
use crate::error::Error;
use crate::message::Message;
use crate::producer::fault_table::FaultTable;
use crate::producer::gatherer::{Bounds, Handed, Target};
use crate::producer::in_flight::InFlight;
use crate::producer::sending::Pending;
use crate::producer::topic_sender::TopicSender;

/// A route that is younger is believed when it says that a queue does not exist.
const ROUTE_AGE_MAX: Duration = Duration::from_secs(1);

/// Sends messages. Cheap to clone; clones share order, bounds and routes.
///
/// **Durability.** A receipt says that the message is on the disks of a majority of its broker group.
///
/// **Order.** Messages that were handed over one after the other (each `send` awaited, or each `send_async` returned,
/// before the next call) and go to one queue are stored in that order, across retries and changes of leader. To one
/// queue go: messages of one message group, messages to one chosen queue, and the messages of one `send_batch` that
/// have neither. Other messages are spread over the queues and have no order among each other. A message whose error
/// [`Error::is_outcome_unknown`] may still be stored later; behind a successor in its queue only if it has an id of your own.
///
/// **Retries.** Within the send timeout a message is sent again, under the same id, which brokers store once: until the
/// deadline while there is no answer, no leader or too much load; [`ProducerBuilder::retries`] times after an error of
/// the server; never after a refusal of the message itself. A message that may go to any queue, and that a broker group
/// surely has not stored, is sent to the next broker group that has queues of its topic, and then to the replicas of each in
/// turn; one that may have been stored stays with its queue, because only there it is recognised.
///
/// **Cancellation.** Dropping the future of a `send` may or may not send the message; once `send_async` has returned, it
/// is sent whether or not the handle is kept.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    settings: ProducerBuilder,
    in_flight: Arc<InFlight>,
    faults: Arc<FaultTable>,
    topics: Mutex<BTreeMap<Arc<str>, Arc<TopicSender>>>,
    closed: AtomicBool,
}

impl Producer {
    /// Sends one message and returns when it is on the disks of a majority.
    ///
    /// # Errors
    /// [`Error::Refused`]: not stored, and why. [`Error::TimedOut`]: not stored by the deadline.
    /// [`Error::OutcomeUnknown`]: perhaps stored. [`Error::Closed`]: after [`Producer::close`].
    pub async fn send(&self, message: Message) -> Result<SendReceipt, Error> {
        let span = tracing::debug_span!("send", topic = &*message.topic);
        async { self.send_async(message).await?.await }
            .instrument(span)
            .await
    }

    /// Hands one message over and returns as soon as there is room for it; the handle resolves when it is stored.
    ///
    /// # Errors
    /// Of handing over: no route to the topic, no room until the deadline, closed. The message is not sent then.
    /// Everything else is the handle's.
    pub async fn send_async(&self, message: Message) -> Result<SendHandle, Error> {
        let deadline = deadline::after(self.inner.settings.send_timeout);
        let sender = self.inner.sender(&message.topic, deadline).await?;
        let target = self.inner.target(&message, deadline).await?;
        let message = self.inner.packed(message);
        if !self.inner.in_flight.try_enter(size_hint(&message)) {
            self.inner.wait_for_room(&message, deadline).await?;
        }
        let (handed, handle) = self.inner.handed(message, target, deadline);
        sender.hand_over([handed]);
        Ok(handle)
    }

    /// Hands one message over and tells nobody what becomes of it. It is sent, and sent again, like any other; use it
    /// where a lost message costs less than the wait for its receipt.
    ///
    /// # Errors
    /// As [`Producer::send_async`].
    pub async fn send_one_way(&self, message: Message) -> Result<(), Error> {
        self.send_async(message).await.map(drop)
    }

    /// Sends several messages and returns when each is settled; results in the order of the messages.
    ///
    /// Messages of one topic without message group or chosen queue go to one queue together.
    pub async fn send_batch(&self, messages: Vec<Message>) -> Vec<Result<SendReceipt, Error>> {
        let deadline = deadline::after(self.inner.settings.send_timeout);
        let mut handles = Vec::with_capacity(messages.len());
        let mut chosen: BTreeMap<Arc<str>, Target> = BTreeMap::new();
        let mut ready: Vec<Handed<Pending>> = Vec::new();
        let mut ready_for: Option<Arc<TopicSender>> = None;
        for message in messages {
            let sender = match self.inner.sender(&message.topic, deadline).await {
                Ok(sender) => sender,
                Err(error) => {
                    handles.push(Err(error));
                    continue;
                }
            };
            let target = match self.inner.target(&message, deadline).await {
                Ok(Target::Any) => *chosen
                    .entry(message.topic.clone())
                    .or_insert_with(|| sender.next_queue()),
                Ok(target) => target,
                Err(error) => {
                    handles.push(Err(error));
                    continue;
                }
            };
            let message = self.inner.packed(message);
            let has_room = self.inner.in_flight.try_enter(size_hint(&message));
            // What is ready goes before there is a wait for room, which it may be the one to make.
            let other_topic = ready_for
                .as_ref()
                .is_some_and(|other| !Arc::ptr_eq(other, &sender));
            if other_topic || !has_room {
                flush_ready(&mut ready, &ready_for);
            }
            ready_for = Some(sender);
            if !has_room && let Err(error) = self.inner.wait_for_room(&message, deadline).await {
                handles.push(Err(error));
                continue;
            }
            let (handed, handle) = self.inner.handed(message, target, deadline);
            ready.push(handed);
            handles.push(Ok(handle));
        }
        flush_ready(&mut ready, &ready_for);
        let mut outcomes = Vec::with_capacity(handles.len());
        for handle in handles {
            outcomes.push(match handle {
                Ok(handle) => handle.await,
                Err(error) => Err(error),
            });
        }
        outcomes
    }

    /// Returns when everything handed over before is settled, one way or the other. Messages handed over during the
    /// call wait until it returns.
    ///
    /// # Errors
    /// [`Error::TimedOut`], which only a stopped runtime can cause: every message is settled by its deadline.
    pub async fn flush(&self) -> Result<(), Error> {
        // A message may have been handed over just now; its worker may need a moment more than its deadline.
        let timeout =
            self.inner.settings.send_timeout.min(deadline::LONGEST) + Duration::from_secs(1);
        self.inner
            .in_flight
            .drained(timeout)
            .await
            .map_err(|_| Error::TimedOut {
                operation: "flush",
                subject: "the producer".to_owned(),
                address: "nobody".to_owned(),
                reason: format!("messages are not settled after {} ms", timeout.as_millis()),
            })
    }

    /// Takes no more messages and settles those in flight.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.closed.store(true, Ordering::Release);
        self.flush().await
    }
}

impl Inner {
    /// Who sends a topic's messages; fetches the topic's route if it is the first.
    async fn sender(&self, topic: &Arc<str>, deadline: Instant) -> Result<Arc<TopicSender>, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed {
                subject: "producer",
            });
        }
        if let Some(sender) = self.topics().get(topic) {
            return Ok(sender.clone());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let route = tokio::time::timeout(left, self.core.route(topic))
            .await
            .unwrap_or_else(|_| {
                Err(self.not_handed_over(topic, "the topic's route is not known yet".to_owned()))
            })?;
        if route.writable().next().is_none() {
            return Err(Error::invalid(
                format!("topic {topic}"),
                "none of its queues takes messages",
            ));
        }
        let sender = self
            .topics()
            .entry(topic.clone())
            .or_insert_with(|| {
                Arc::new(TopicSender::new(
                    self.core.clone(),
                    self.in_flight.clone(),
                    self.faults.clone(),
                    route,
                    &self.settings,
                ))
            })
            .clone();
        Ok(sender)
    }

    /// Where a message may go.
    async fn target(&self, message: &Message, deadline: Instant) -> Result<Target, Error> {
        match (&message.message_group, message.queue) {
            (Some(group), _) => Ok(Target::Hash(queue_choice::hash(group))),
            (None, Some(queue)) => {
                self.check_queue(&message.topic, queue, deadline).await?;
                Ok(Target::Queue(queue))
            }
            (None, None) => match &self.settings.queue_selector {
                Some(choose) => self.chosen(message, &**choose).map(Target::Queue),
                None => Ok(Target::Any),
            },
        }
    }

    /// Whether a topic has a queue; asks servers where the route that is known has none, because it may be new.
    async fn check_queue(
        &self,
        topic: &Arc<str>,
        queue: u32,
        deadline: Instant,
    ) -> Result<(), Error> {
        // Without a route, the broker decides.
        let Some(known) = self.core.known_route(topic) else {
            return Ok(());
        };
        if named_queue::check(&known, queue).is_ok() {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let fresh = self.core.route_younger_than(topic, ROUTE_AGE_MAX);
        let route = match tokio::time::timeout(left, fresh).await {
            Ok(route) => route?,
            Err(_) => known,
        };
        // Its broker group is away: that may pass, and another one has no such queue.
        let home = self.core.known_group_of(topic, queue);
        match home.filter(|home| !route.groups().contains(home)) {
            Some(home) => Err(named_queue::is_away(topic, queue, &home)),
            None => named_queue::check(&route, queue),
        }
    }

    /// The queue that the user's selector chooses.
    fn chosen(
        &self,
        message: &Message,
        choose: &(dyn Fn(&Message, &[u32]) -> u32 + Send + Sync),
    ) -> Result<u32, Error> {
        let route = self.core.known_route(&message.topic);
        let writable: Vec<u32> = route
            .iter()
            .flat_map(|route| route.writable())
            .map(|queue| queue.queue)
            .collect();
        let subject = || format!("topic {}", message.topic);
        if writable.is_empty() {
            return Err(Error::invalid(
                subject(),
                "none of its queues takes messages",
            ));
        }
        let queue = choose(message, &writable);
        match writable.contains(&queue) {
            true => Ok(queue),
            false => Err(Error::invalid(
                subject(),
                format!("the queue selector chose {queue}, which takes no messages"),
            )),
        }
    }

    /// The message as it travels.
    fn packed(&self, mut message: Message) -> Message {
        if message.body.len() >= self.settings.compress_from_bytes
            && let Some(body) = compress(&message.body)
        {
            message.body = body;
            message.compressed = true;
        }
        message
    }

    async fn wait_for_room(&self, message: &Message, deadline: Instant) -> Result<(), Error> {
        self.in_flight
            .enter(size_hint(message), deadline)
            .await
            .map_err(|_| {
                let reason = format!(
                    "there was no room: {} messages or {} bytes are in flight",
                    self.settings.max_in_flight, self.settings.max_in_flight_bytes
                );
                self.not_handed_over(&message.topic, reason)
            })
    }

    /// A message for which there is room, ready for its topic's sender.
    fn handed(
        &self,
        message: Message,
        target: Target,
        deadline: Instant,
    ) -> (Handed<Pending>, SendHandle) {
        let bytes = size_hint(&message);
        let (handle, completion) = SendHandle::new(message.topic.clone());
        let born_ms = self.core.connection.clock.now_ms();
        let item = Pending {
            message,
            born_ms,
            completion,
        };
        (
            Handed {
                item,
                target,
                bytes,
                deadline,
            },
            handle,
        )
    }

    fn topics(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Arc<TopicSender>>> {
        self.topics
            .lock()
            .expect("nothing panics while the topics are locked")
    }

    fn not_handed_over(&self, topic: &str, reason: String) -> Error {
        Error::TimedOut {
            operation: "send",
            subject: format!("topic {topic}"),
            address: "nobody".to_owned(),
            reason,
        }
    }
}

fn flush_ready(ready: &mut Vec<Handed<Pending>>, sender: &Option<Arc<TopicSender>>) {
    if let Some(sender) = sender {
        sender.hand_over(ready.drain(..));
    }
}

/// Describes a [`Producer`].
#[derive(Clone)]
pub struct ProducerBuilder {
    core: Arc<Core>,
    send_timeout: Duration,
    retries: u32,
    max_in_flight: usize,
    max_in_flight_bytes: usize,
    bounds: Bounds,
    compress_from_bytes: usize,
    linger: Duration,
    queue_selector: Option<QueueSelector>,
    latency_fault_tolerance: bool,
}

/// Chooses one of a topic's writable queues for a message.
type QueueSelector = Arc<dyn Fn(&Message, &[u32]) -> u32 + Send + Sync>;

impl ProducerBuilder {
    pub(crate) fn new(core: Arc<Core>) -> ProducerBuilder {
        ProducerBuilder {
            core,
            send_timeout: Duration::from_secs(10),
            retries: 2,
            max_in_flight: 4096,
            max_in_flight_bytes: 64 * 1024 * 1024,
            bounds: Bounds {
                messages_max: 1024,
                bytes_max: 1024 * 1024,
                requests_max: 2,
            },
            compress_from_bytes: 4096,
            linger: Duration::ZERO,
            queue_selector: None,
            latency_fault_tolerance: false,
        }
    }

    /// Deadline of each message, retries and all. Default 10 s: a change of leader takes up to two. Must be shorter than
    /// the time for which brokers recognise a message sent again (two minutes by default).
    #[must_use]
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.send_timeout = timeout;
        self
    }

    /// Further attempts after a refusal that is neither final nor passing (an internal error, a topic not found).
    /// Passing ones (an election, an overload, no answer) are retried until the deadline. Default 2.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Most messages handed over and not settled. Default 4096.
    #[must_use]
    pub fn max_in_flight(mut self, messages: usize) -> Self {
        self.max_in_flight = messages;
        self
    }

    /// Most bytes handed over and not settled. Default 64 MiB.
    #[must_use]
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.max_in_flight_bytes = bytes;
        self
    }

    /// Most messages gathered into one request. Default 1024.
    #[must_use]
    pub fn request_messages_max(mut self, messages: usize) -> Self {
        self.bounds.messages_max = messages;
        self
    }

    /// Most bytes gathered into one request; a larger message goes alone. Default 1 MiB.
    #[must_use]
    pub fn request_bytes_max(mut self, bytes: usize) -> Self {
        self.bounds.bytes_max = bytes;
        self
    }

    /// Most requests on their way at once for one topic; there is never more than one for one queue. Default 2: while
    /// one is stored, the next one travels; more make them smaller, which costs more than it gains.
    #[must_use]
    pub fn requests_in_flight_max(mut self, requests: usize) -> Self {
        self.bounds.requests_max = requests;
        self
    }

    /// Bodies of so many bytes and more are compressed (gzip), if that makes them smaller. Default 4 KiB, as RocketMQ
    /// has it; `usize::MAX` compresses nothing. Consumers of this and of the official clients unpack by themselves.
    #[must_use]
    pub fn compress_from_bytes(mut self, bytes: usize) -> Self {
        self.compress_from_bytes = bytes;
        self
    }

    /// How long the first message of a request waits for others, unless the request is full before. Default 0: what
    /// is handed over while one request is on its way makes up the next, which is nearly as good and costs no time.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Chooses the queue of each message that has neither a message group nor a queue of its own: gets the message and
    /// the numbers of the topic's writable queues, ascending and never none, and returns one of them. Default: wherever
    /// there is room first, round-robin.
    #[must_use]
    pub fn queue_selector(
        mut self,
        choose: impl Fn(&Message, &[u32]) -> u32 + Send + Sync + 'static,
    ) -> Self {
        self.queue_selector = Some(Arc::new(choose));
        self
    }

    /// Keeps away for a while from broker groups that were slow or failed, where a message may go anywhere and another
    /// group has queues of its topic: after an answer that took 550 ms for 2 s, 1800 ms for 5 s, 3 s for 6 s, 5 s or a
    /// failure for 10 s, 15 s for 30 s. Default off, as in RocketMQ: a message finds another group by itself when one
    /// fails, and slow groups get less because their queues are busy for longer.
    #[must_use]
    pub fn latency_fault_tolerance(mut self, on: bool) -> Self {
        self.latency_fault_tolerance = on;
        self
    }

    /// The producer. Talks to nobody yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a bound is 0.
    pub fn build(self) -> Result<Producer, Error> {
        for (name, value) in [
            ("max_in_flight", self.max_in_flight),
            ("max_in_flight_bytes", self.max_in_flight_bytes),
            ("request_messages_max", self.bounds.messages_max),
            ("request_bytes_max", self.bounds.bytes_max),
            ("requests_in_flight_max", self.bounds.requests_max),
            ("send_timeout", usize::from(!self.send_timeout.is_zero())),
        ] {
            if value == 0 {
                return Err(Error::invalid(
                    name,
                    "it is 0, which would let nothing through",
                ));
            }
        }
        let in_flight = Arc::new(InFlight::new(self.max_in_flight, self.max_in_flight_bytes));
        let faults = Arc::new(FaultTable::new(self.latency_fault_tolerance));
        let inner = Inner {
            faults,
            core: self.core.clone(),
            settings: self,
            in_flight,
            topics: Mutex::new(BTreeMap::new()),
            closed: AtomicBool::new(false),
        };
        Ok(Producer {
            inner: Arc::new(inner),
        })
    }
}
