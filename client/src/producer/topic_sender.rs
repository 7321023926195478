//! Sends the messages of one topic: workers that take requests from the gatherer and bring each through.
//!
//! A worker exists only while there is something to send. It does not let go of a request before every message of it
//! is stored, refused or past its deadline; until then its queues are busy, which is what keeps their order.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::MessageIdGenerator;
use proto::opaque::SendMessageRequest;
use proto::v2::{Code, SendMessageResponse, SendResultEntry};
use rand::RngExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::answer::{self, Attempt, Patience, Refusal};
use crate::connection::late;
use crate::core::Core;
use crate::error::Error;
use crate::lookout::PATIENCE;
use crate::measure;
use crate::producer::ProducerBuilder;
use crate::producer::fault_table::FaultTable;
use crate::producer::gatherer::{Batch, Gatherer, Handed, Queue, Target};
use crate::producer::in_flight::InFlight;
use crate::producer::sending::{Pending, Sending, is_stored};
use crate::producer::way::Way;
use crate::pursuit::{Next, Pursuit};
use crate::route::Route;

/// See the module's text.
pub(super) struct TopicSender {
    topic: Arc<str>,
    core: Arc<Core>,
    in_flight: Arc<InFlight>,
    faults: Arc<FaultTable>,
    retries: u32,
    linger: Duration,
    /// A whole request waits.
    filled: Notify,
    gatherer: Mutex<Gatherer<Pending>>,
    /// One for each queue: brokers go by the order of its ids, and what a queue gets in a row is one thing to remember.
    ids: Mutex<BTreeMap<u32, MessageIdGenerator>>,
    /// The route that the gatherer's queues are from.
    route: Mutex<Arc<Route>>,
}

/// The operation's name in errors.
const OPERATION: &str = "send";

/// What keeps a request from being settled.
#[derive(Clone, Debug)]
struct Trouble {
    address: Arc<str>,
    reason: String,
    /// A server's refusal, if it is one.
    code: Option<Code>,
    /// An attempt may have stored its messages all the same.
    maybe_stored: bool,
}

/// What to do after an attempt.
#[derive(Debug)]
enum Then {
    /// Send what is still open again, if anything is.
    GoOn,
    /// Send the halves one after the other.
    Split,
    /// Surely nothing was stored: another broker group may be better, and this one again after the wait.
    Elsewhere(Duration, Trouble),
}

impl TopicSender {
    pub(super) fn new(
        core: Arc<Core>,
        in_flight: Arc<InFlight>,
        faults: Arc<FaultTable>,
        route: Arc<Route>,
        settings: &ProducerBuilder,
    ) -> TopicSender {
        TopicSender {
            topic: route.topic.clone(),
            core,
            in_flight,
            faults,
            retries: settings.retries,
            linger: settings.linger,
            filled: Notify::new(),
            gatherer: Mutex::new(Gatherer::new(settings.bounds, queues(&route))),
            ids: Mutex::new(BTreeMap::new()),
            route: Mutex::new(route),
        }
    }

    /// Takes messages, in their order; starts workers as needed.
    pub(super) fn hand_over(self: &Arc<Self>, messages: impl IntoIterator<Item = Handed<Pending>>) {
        let mut start = false;
        let mut gatherer = self.gatherer();
        for handed in messages {
            start |= gatherer.push(handed);
        }
        if !self.linger.is_zero() && gatherer.is_full() {
            self.filled.notify_waiters();
        }
        drop(gatherer);
        if start {
            self.start_worker();
        }
    }

    /// The queue for messages that may go anywhere but together.
    pub(super) fn next_queue(self: &Arc<Self>) -> Target {
        self.adopt_route();
        self.gatherer().next_queue()
    }

    fn start_worker(self: &Arc<Self>) {
        tokio::spawn(self.clone().work());
    }

    async fn work(self: Arc<Self>) {
        loop {
            // Whoever is about to hand something over, having just got an answer, does so first.
            host::task::yield_now().await;
            self.linger().await;
            self.adopt_route();
            if self.faults.is_on() {
                let avoided = self.faults.avoided(Instant::now());
                self.gatherer().avoid(avoided);
            }
            self.expire_waiting(
                Instant::now(),
                "nobody",
                "there was no time left to send it",
            );
            let cut = self.gatherer().cut();
            if cut.start_another {
                self.start_worker();
            }
            let Some(batch) = cut.batch else { return };
            let queues = batch.queues.clone();
            let was_set_aside = self.bring_through(batch).await;
            self.gatherer().done(&queues);
            if was_set_aside && !self.gatherer().come_back() {
                return;
            }
        }
    }

    /// Waits for more, if that is wanted and there is not enough for a whole request.
    async fn linger(&self) {
        if self.linger.is_zero() {
            return;
        }
        let mut filled = pin!(self.filled.notified());
        // From here on a hand-over is noticed, also one between the look and the wait.
        filled.as_mut().enable();
        if !self.gatherer().is_full() {
            // Either will do: it is full, or time is up.
            let _ = tokio::time::timeout(self.linger, filled).await;
        }
    }

    /// Follows a change of the topic's queues.
    fn adopt_route(self: &Arc<Self>) {
        let Some(known) = self.core.known_route(&self.topic) else {
            return;
        };
        let mut route = self
            .route
            .lock()
            .expect("nothing panics while it is locked");
        if !Arc::ptr_eq(&route, &known) && known.writable().next().is_some() {
            self.gatherer().set_queues(queues(&known));
            *route = known;
        }
    }

    fn gatherer(&self) -> MutexGuard<'_, Gatherer<Pending>> {
        self.gatherer
            .lock()
            .expect("nothing panics while the gatherer is locked")
    }

    fn new_id(&self, queue: u32) -> String {
        let mut ids = self.lock_ids();
        let generator = ids.entry(queue).or_insert_with(|| {
            let clock = self.core.connection.clock.clone();
            let mut random = rand::rng();
            MessageIdGenerator::new(random.random(), random.random(), move || clock.now_ms())
        });
        generator.next_id()
    }

    fn lock_ids(&self) -> MutexGuard<'_, BTreeMap<u32, MessageIdGenerator>> {
        self.ids
            .lock()
            .expect("nothing panics while ids are locked")
    }

    /// Sends until every message is settled. Returns whether the worker gave its place up for that.
    async fn bring_through(self: &Arc<Self>, batch: Batch<Pending>) -> bool {
        let mut is_set_aside = false;
        let movable = batch.anywhere;
        let id = |queue| self.new_id(queue);
        let sending = Sending::encode(self.topic.clone(), batch.items, movable, id);
        let mut parts = VecDeque::from([(sending, Way::new(batch.group, self.retries))]);
        while let Some((mut sending, mut way)) = parts.pop_front() {
            while !sending.is_settled() {
                match self.send_once(&mut sending, &mut way.pursuit).await {
                    Then::GoOn if sending.is_settled() || is_set_aside => {}
                    // It goes on, and not elsewhere.
                    Then::GoOn => is_set_aside = self.set_aside(way.pursuit.group()),
                    // One message spoils the request for the others: find it.
                    Then::Split => {
                        let mut other = Way::new(way.pursuit.group().clone(), self.retries);
                        other.pursuit.maybe_done = way.pursuit.maybe_done;
                        parts.push_front((sending.split(), other));
                    }
                    Then::Elsewhere(wait, trouble) => {
                        if self.go_elsewhere(&mut sending, &mut way, &trouble) {
                            self.pause(wait, &mut sending, &trouble).await;
                        }
                    }
                }
            }
        }
        is_set_aside
    }

    /// Lets others send meanwhile, where there are other broker groups than this one to send to; whether there are.
    fn set_aside(self: &Arc<Self>, group: &str) -> bool {
        let route = self
            .route
            .lock()
            .expect("nothing panics while it is locked");
        let others = route.queues.iter().any(|queue| *queue.group != *group);
        drop(route);
        if !others {
            return false;
        }
        if self.gatherer().set_aside() {
            self.start_worker();
        }
        true
    }

    /// Goes to the next broker group that can take what is left. Returns whether all were tried before: then a wait is
    /// due.
    fn go_elsewhere(
        self: &Arc<Self>,
        sending: &mut Sending,
        way: &mut Way,
        trouble: &Trouble,
    ) -> bool {
        let avoided = self.faults.avoided(Instant::now());
        let route = self
            .route
            .lock()
            .expect("nothing panics while it is locked");
        let Some((group, queue, tried)) = way.next_group(&route, &avoided) else {
            drop(route);
            // The queue is gone with the topic that was; the one that is now has others.
            if trouble.code == Some(Code::NotFound)
                && let Some(known) = self.core.known_route(&self.topic)
                && let Some(queue) = way.next_queue(&known)
            {
                sending.move_to(queue);
            }
            return true;
        };
        drop(route);
        tracing::debug!(topic = %self.topic, %group, queue, "trying another broker group");
        way.go_to(group);
        sending.move_to(queue);
        tried
    }

    /// One attempt, what its outcome means for the messages, and the wait before the next.
    async fn send_once(self: &Arc<Self>, sending: &mut Sending, pursuit: &mut Pursuit) -> Then {
        let brokers = &self.core.connection.brokers;
        let address = pursuit.address(brokers);
        let began = Instant::now();
        let attempt = self.attempt(sending, pursuit, &address).await;
        let Some((outcome, queues, redirected)) = attempt else {
            return Then::GoOn;
        };
        let failed = match &outcome {
            Attempt::Answered(_) => false,
            Attempt::Refused(refusal) => refusal.patience() != Patience::None,
            Attempt::Lost { .. } => true,
        };
        let took = began.elapsed();
        let answered = matches!(outcome, Attempt::Answered(_));
        measure::request(&self.topic, took, answered);
        self.faults
            .observe(pursuit.group(), took, failed, began + took);
        let (next, code, reason) = match outcome {
            Attempt::Answered(answer) => {
                match self.settle(sending, pursuit, &answer, &queues, &address) {
                    None => return Then::GoOn,
                    Some(refusal) => self.refused(sending, pursuit, refusal, redirected, &address),
                }
            }
            Attempt::Refused(refusal)
                if sending.len() > 1 && is_about_one_message(refusal.code) =>
            {
                return Then::Split;
            }
            Attempt::Refused(refusal) => {
                self.refused(sending, pursuit, refusal, redirected, &address)
            }
            Attempt::Lost { reason, sent } => (
                pursuit.after_loss(sent, redirected, brokers, &address),
                None,
                reason,
            ),
        };
        self.core.refresh_soon(&self.topic);
        if let Next::Again(wait) = next {
            let trouble = Trouble {
                address,
                reason,
                code,
                maybe_stored: pursuit.maybe_done,
            };
            tracing::debug!(topic = %self.topic, ?trouble, ?wait, "will send again");
            measure::send_retried(&self.topic, sending.open_count());
            // Who named another leader has that one tried first. What may be stored stays with its queue, whose broker
            // group recognises it.
            if !pursuit.maybe_done && !redirected && sending.is_movable() {
                return Then::Elsewhere(wait, trouble);
            }
            self.pause(wait, sending, &trouble).await;
        }
        Then::GoOn
    }

    /// Sends what is not settled and waits for the answer, giving up meanwhile whatever passes its deadline.
    /// `None`: nothing is left to wait for.
    async fn attempt(
        self: &Arc<Self>,
        sending: &mut Sending,
        pursuit: &Pursuit,
        address: &Arc<str>,
    ) -> Option<(Attempt<SendMessageResponse>, Vec<u32>, bool)> {
        let connection = &self.core.connection;
        let messages = sending.messages();
        let left = sending
            .latest_deadline()?
            .saturating_duration_since(Instant::now());
        let timeout = connection.attempt_timeout.min(left);
        let attempt_ends = Instant::now() + timeout;
        let sequenced = sending.is_sequenced();
        let mut call = pin!(async {
            let identity = connection.identity.for_group(pursuit.group());
            let mut request = identity.request(SendMessageRequest { messages }, timeout);
            if sequenced {
                answer::mark_sequenced(request.metadata_mut());
            }
            connection.messaging(address)?.send_message(request).await
        });
        let trouble = Trouble {
            address: address.clone(),
            reason: "no answer yet".to_owned(),
            code: None,
            maybe_stored: true,
        };
        let mut overtaken = pin!(connection.overtaken(pursuit.group(), address, PATIENCE));
        loop {
            let tick = self.next_deadline(sending, attempt_ends);
            let result = tokio::select! {
                biased;
                result = &mut call => result,
                () = &mut overtaken => return Some((answer::overtaken(), Vec::new(), true)),
                () = tokio::time::sleep_until(tick) => {
                    let now = Instant::now();
                    self.expire(now, sending, &trouble);
                    if sending.is_settled() {
                        return None;
                    }
                    if now < attempt_ends {
                        continue;
                    }
                    Err(late(timeout))
                }
            };
            let queues = match &result {
                Ok(response) => answer::queues(response.metadata()),
                Err(_) => Vec::new(),
            };
            let (outcome, redirected) = connection.read(pursuit.group(), address, result);
            return Some((outcome, queues, redirected));
        }
    }

    /// Tells the senders what an answer says about their messages. Returns a refusal that is worth another attempt for
    /// those that are still open, if there are any.
    fn settle(
        &self,
        sending: &mut Sending,
        pursuit: &Pursuit,
        answer: &SendMessageResponse,
        queues: &[u32],
        address: &Arc<str>,
    ) -> Option<Refusal> {
        if answer.entries.len() != sending.len() {
            let reason = format!(
                "{} results for {} messages",
                answer.entries.len(),
                sending.len()
            );
            return Some(Refusal {
                code: Code::Unspecified,
                reason,
            });
        }
        let movable = sending.is_movable();
        let (settled, kept) = sending.read(
            answer,
            queues,
            // A queue that is gone is no reason to give up what may go anywhere.
            |refusal| refusal.patience() != Patience::None || movable && is_queue_gone(refusal),
            |refusal, id| self.refusal(refusal, address, id, pursuit.maybe_done),
        );
        let stored = answer.entries.iter().filter(|entry| is_stored(entry));
        let stored = stored.count().min(settled.len());
        if answer.entries.iter().any(is_out_of_sequence) {
            // Somebody else sends under the same ids: a copy of this process, with its machine.
            self.lock_ids().clear();
        }
        measure::sent(&self.topic, stored);
        measure::send_failed(&self.topic, settled.len() - stored);
        self.in_flight.leave(settled);
        kept
    }

    /// A refusal of everything that is still open: settles it if there is no point in another attempt.
    fn refused(
        &self,
        sending: &mut Sending,
        pursuit: &mut Pursuit,
        refusal: Refusal,
        redirected: bool,
        address: &Arc<str>,
    ) -> (Next, Option<Code>, String) {
        let movable = is_queue_gone(&refusal) && sending.is_movable();
        let next = match movable {
            true => pursuit.after_lost_way(redirected),
            false => pursuit.after_refusal(&refusal, redirected),
        };
        if next == Next::GiveUp {
            let maybe_stored = pursuit.maybe_done;
            let settled =
                sending.give_up(None, |id| self.refusal(&refusal, address, id, maybe_stored));
            measure::send_failed(&self.topic, settled.len());
            self.in_flight.leave(settled);
        }
        (next, Some(refusal.code), refusal.reason)
    }

    /// Waits before the next attempt, giving up meanwhile whatever passes its deadline.
    async fn pause(&self, wait: Duration, sending: &mut Sending, trouble: &Trouble) {
        let ends = Instant::now() + wait;
        while !sending.is_settled() {
            tokio::time::sleep_until(self.next_deadline(sending, ends)).await;
            let now = Instant::now();
            self.expire(now, sending, trouble);
            if now >= ends {
                return;
            }
        }
    }

    /// When a message passes its deadline next, if that is before `ends`.
    fn next_deadline(&self, sending: &Sending, ends: Instant) -> Instant {
        let waiting = self.gatherer().earliest_deadline();
        [sending.earliest_deadline(), waiting]
            .into_iter()
            .flatten()
            .fold(ends, Instant::min)
    }

    /// Gives up messages past their deadline: of this request, and those that wait behind it.
    fn expire(&self, now: Instant, sending: &mut Sending, trouble: &Trouble) {
        let settled = sending.give_up(Some(now), |id| self.failure(trouble, id));
        measure::send_failed(&self.topic, settled.len());
        self.in_flight.leave(settled);
        let reason = format!("earlier messages are still being sent: {}", trouble.reason);
        self.expire_waiting(now, &trouble.address, &reason);
    }

    /// Gives up messages that passed their deadline before they were sent.
    fn expire_waiting(&self, now: Instant, address: &str, reason: &str) {
        let waiting = self.gatherer().expire(now);
        measure::send_failed(&self.topic, waiting.len());
        self.in_flight
            .leave(waiting.iter().map(|handed| handed.bytes));
        for handed in waiting {
            let error = Error::TimedOut {
                operation: OPERATION,
                subject: self.subject(),
                address: address.to_owned(),
                reason: reason.to_owned(),
            };
            let _ = handed.item.completion.send(Err(error));
        }
    }

    fn subject(&self) -> String {
        format!("topic {}", self.topic)
    }

    /// What a sender is told of a message that could not be sent.
    fn failure(&self, trouble: &Trouble, message_id: &str) -> Error {
        let (operation, subject) = (OPERATION, self.subject());
        let (address, reason) = (trouble.address.to_string(), trouble.reason.clone());
        match trouble.code {
            _ if trouble.maybe_stored => Error::OutcomeUnknown {
                operation,
                subject,
                address,
                reason,
                message_id: Some(message_id.to_owned()),
            },
            Some(code) => Error::Refused {
                operation,
                subject,
                address,
                code,
                reason,
            },
            None => Error::TimedOut {
                operation,
                subject,
                address,
                reason,
            },
        }
    }

    fn refusal(
        &self,
        refusal: &Refusal,
        address: &Arc<str>,
        message_id: &str,
        maybe_stored: bool,
    ) -> Error {
        let (address, reason) = (address.clone(), refusal.reason.clone());
        let trouble = Trouble {
            address,
            reason,
            code: Some(refusal.code),
            maybe_stored,
        };
        self.failure(&trouble, message_id)
    }
}

fn queues(route: &Route) -> Vec<Queue> {
    let queue = |queue: &crate::route::RouteQueue| Queue {
        queue: queue.queue,
        group: queue.group.clone(),
        writable: queue.writable,
    };
    route.queues.iter().map(queue).collect()
}

fn is_queue_gone(refusal: &Refusal) -> bool {
    refusal.code == Code::NotFound
}

fn is_out_of_sequence(result: &SendResultEntry) -> bool {
    let code = result.status.as_ref().map(|status| status.code);
    code == Some(Code::IllegalMessageId as i32)
}

/// Refusals that may be due to a single message of the request.
fn is_about_one_message(code: Code) -> bool {
    matches!(
        code,
        Code::BadRequest
            | Code::IllegalMessageTag
            | Code::IllegalMessageKey
            | Code::IllegalMessageGroup
            | Code::IllegalMessagePropertyKey
            | Code::IllegalMessageId
            | Code::IllegalDeliveryTime
            | Code::MessagePropertyConflictWithType
            | Code::MessageCorrupted
            | Code::PayloadTooLarge
            | Code::MessageBodyTooLarge
            | Code::MessageBodyEmpty
            | Code::MessagePropertiesTooLarge
    )
}
