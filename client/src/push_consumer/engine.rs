//! Hands deliveries out, no more at once than wanted, and brings each to its end: finished, or handed back to the
//! servers, or kept to be tried again. Progress passes none before that.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::retry;
use proto::cluster::{DescribeDeliveryResponse, NameRequest};
use proto::v2::Code;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::connection::Call;
use crate::consumer::holdings::{Pace, Pick, Ticket};
use crate::consumer::redelivery::{self, HandBack, HandedBack};
use crate::consumer::shared::{Shared, Sharing};
use crate::consumer::{Delivery, TopicQueue};
use crate::deadline;
use crate::error::Error;
use crate::measure;

/// How deliveries are handed out and what becomes of failed ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Deliveries in the user's hands at once, at most.
    pub(super) concurrency: usize,
    /// One at a time of each queue, and a failed one again before the next.
    pub(super) in_order: bool,
    pub(super) attempts: Attempts,
    /// Before a failed delivery is tried again without the servers' help.
    pub(super) pause: Duration,
}

impl Rules {
    fn pace(&self) -> Pace {
        match self.in_order {
            true => Pace::InOrder,
            false => Pace::AtOnce(self.concurrency),
        }
    }
}

/// How often a message is delivered before it has failed for good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Attempts {
    /// The servers count.
    AtServers,
    /// As often as its group says, counted here.
    OfGroup,
    /// So often, counted here.
    Here(u32),
}

/// See the module's text.
pub(super) struct Engine {
    shared: Arc<Shared>,
    rules: Rules,
    /// What the servers said when a delivery failed the first time.
    attempts_of_group: OnceCell<u32>,
    room: Arc<Semaphore>,
    /// What ended and waits here holds its place, so there are no more of it than there is `room` for.
    ended: mpsc::UnboundedSender<Ended>,
    /// Taken by whoever settles what ended.
    unsettled: Mutex<Option<mpsc::UnboundedReceiver<Ended>>>,
}

/// A delivery's place among those in the user's hands.
#[derive(Debug)]
pub(super) struct Work {
    ticket: Ticket,
    place: OwnedSemaphorePermit,
}

/// What the user says of a delivery that failed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failure {
    /// `None`: as the group's back-off has it.
    pub(super) delay: Option<Duration>,
    /// No further attempt.
    pub(super) dead: bool,
}

/// A delivery that is not in the user's hands any more, and of which the servers must hear.
#[derive(Debug)]
struct Ended {
    work: Work,
    delivery: Delivery,
    /// `None`: it went well.
    failure: Option<Failure>,
}

impl Engine {
    pub(super) fn new(shared: Arc<Shared>, rules: Rules) -> Engine {
        let (ended, unsettled) = mpsc::unbounded_channel();
        Engine {
            shared,
            rules,
            attempts_of_group: OnceCell::new(),
            room: Arc::new(Semaphore::new(rules.concurrency)),
            ended,
            unsettled: Mutex::new(Some(unsettled)),
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Hands out nothing any more; whoever waits for something is told.
    pub(super) fn close(&self) {
        self.room.close();
        self.shared.arrived.notify_waiters();
    }

    /// The next delivery, as soon as there is one and room for it; `None` when there will be none any more.
    pub(super) async fn next(&self) -> Result<Option<(Delivery, Work)>, Error> {
        let Ok(place) = self.room.clone().acquire_owned().await else {
            return Ok(None);
        };
        loop {
            let mut arrived = pin!(self.shared.arrived.notified());
            // From here on an arrival is noticed, also one between the look and the wait.
            arrived.as_mut().enable();
            let now = Instant::now();
            let picked = self.shared.holdings().pick(self.rules.pace(), now);
            match picked {
                Pick::Delivery(ticket, delivery) => {
                    return Ok(Some((*delivery, Work { ticket, place })));
                }
                Pick::Failure(error) => return Err(error),
                Pick::Closed => return Ok(None),
                Pick::Nothing(None) => arrived.await,
                Pick::Nothing(Some(due)) => {
                    // Either will do: something arrived, or it is time.
                    let _ = tokio::time::timeout(due.saturating_duration_since(now), arrived).await;
                }
            }
        }
    }

    /// A delivery went well.
    pub(super) fn done(&self, work: Work, delivery: &Delivery) {
        let servers_have_it = {
            let mut holdings = self.shared.holdings();
            let have = work.ticket.is_retry || holdings.maybe_handed_back(&work.ticket);
            if !have {
                holdings.finish(&work.ticket);
            }
            have
        };
        match servers_have_it {
            true => self.end(work, delivery.clone(), None),
            false => self.released(work),
        }
    }

    /// A delivery failed.
    pub(super) fn failed(&self, work: Work, delivery: Delivery, failure: Failure) {
        self.end(work, delivery, Some(failure));
    }

    fn end(&self, work: Work, delivery: Delivery, failure: Option<Failure>) {
        // If nobody listens, the consumer was dropped: the queue's next owner gets the delivery.
        let _ = self.ended.send(Ended {
            work,
            delivery,
            failure,
        });
    }

    /// A delivery is in nobody's hands any more.
    fn released(&self, work: Work) {
        drop(work);
        self.shared.settled.notify_waiters();
        // Its queue may hand out a next one.
        self.shared.arrived.notify_waiters();
    }

    /// Tells the servers of deliveries that ended, for as long as the consumer is there.
    pub(super) async fn settle_ended(self: Arc<Self>) {
        let unsettled = self
            .unsettled
            .lock()
            .expect("nothing panics while it is locked")
            .take();
        let Some(mut unsettled) = unsettled else {
            return;
        };
        while let Some(ended) = unsettled.recv().await {
            tokio::spawn(self.clone().settle(ended));
        }
    }

    async fn settle(self: Arc<Self>, ended: Ended) {
        let Ended {
            work,
            delivery,
            failure,
        } = ended;
        // Its place goes to the next delivery: this may take as long as its brokers are away, and other queues go on. Not
        // without bound: of each queue only so many are handed out before the servers have heard of them.
        drop(work.place);
        match failure {
            None => self.settle_done(&work.ticket, &delivery).await,
            Some(failure) => self.settle_failed(&work.ticket, delivery, failure).await,
        }
        self.shared.settled.notify_waiters();
        self.shared.arrived.notify_waiters();
    }

    /// The servers are told that they need not deliver it again. They must hear it: a message that was worked on should
    /// not come back for ever.
    async fn settle_done(&self, ticket: &Ticket, delivery: &Delivery) {
        let (shared, queue) = (&self.shared, &ticket.queue);
        while let Err(error) =
            redelivery::settle(shared, queue, delivery.offset, delivery.attempt).await
        {
            tracing::debug!(%queue, offset = delivery.offset, %error, "not settled");
            if is_final(&error) || self.is_given_up(ticket) {
                break;
            }
            tokio::time::sleep(self.rules.pause).await;
        }
        self.shared.holdings().finish(ticket);
    }

    async fn settle_failed(&self, ticket: &Ticket, mut delivery: Delivery, failure: Failure) {
        let last = failure.dead || self.is_last(ticket, delivery.attempt).await;
        let alone = self.shared.settings.sharing == Sharing::AllForEach;
        let stays = alone || (self.rules.in_order && !ticket.is_retry);
        if stays && !last {
            delivery.attempt = delivery.attempt.saturating_add(1);
            self.try_again(ticket, delivery, false);
        } else if alone {
            let (queue, offset) = (&ticket.queue, delivery.offset);
            tracing::warn!(%queue, offset, "a broadcast message is given up after its last attempt");
            self.shared.holdings().finish(ticket);
        } else {
            self.hand_back(ticket, delivery, failure.delay, last).await;
        }
    }

    /// Whether this attempt was the last one, as far as that is decided here. Asks the servers as long as it takes: a
    /// message that is tried again although it has had all its attempts would be tried too often.
    async fn is_last(&self, ticket: &Ticket, attempt: u32) -> bool {
        loop {
            let max = match self.rules.attempts {
                Attempts::AtServers => return false,
                Attempts::Here(max) => return attempt >= max,
                Attempts::OfGroup => {
                    let asking = || attempts_of_group(&self.shared, &ticket.queue);
                    self.attempts_of_group.get_or_try_init(asking).await
                }
            };
            match max {
                Ok(max) => return attempt >= *max,
                Err(_) if self.is_given_up(ticket) => return false,
                Err(error) => {
                    tracing::debug!(group = %self.shared.group, %error, "the group's attempts are not known yet");
                    tokio::time::sleep(self.rules.pause).await;
                }
            }
        }
    }

    async fn hand_back(
        &self,
        ticket: &Ticket,
        delivery: Delivery,
        delay: Option<Duration>,
        dead: bool,
    ) {
        let (queue, offset) = (&ticket.queue, delivery.offset);
        let failed = HandBack {
            offset,
            attempt: delivery.attempt,
            delay,
            dead,
        };
        match redelivery::send_back(&self.shared, queue, failed).await {
            Ok(HandedBack::Kept) => {
                measure::handed_back(self.shared.group.as_str(), &queue.topic);
                self.shared.holdings().finish(ticket);
            }
            Ok(HandedBack::Gone) => {
                tracing::warn!(%queue, offset, "a failed message was gone before it could be kept for a retry");
                self.shared.holdings().finish(ticket);
            }
            Err(error) => {
                tracing::warn!(%queue, offset, %error, "a failed message could not be handed back");
                if ticket.is_retry {
                    // The servers deliver it again at once: not without a pause.
                    tokio::time::sleep(self.rules.pause).await;
                }
                self.try_again(ticket, delivery, error.is_outcome_unknown());
            }
        }
    }

    fn try_again(&self, ticket: &Ticket, delivery: Delivery, maybe_handed_back: bool) {
        let due = deadline::after(self.rules.pause);
        let mut holdings = self.shared.holdings();
        holdings.again(ticket, delivery, due, maybe_handed_back);
    }

    fn is_given_up(&self, ticket: &Ticket) -> bool {
        !self.shared.holdings().stays(ticket)
    }
}

/// How often the group's messages are delivered.
async fn attempts_of_group(shared: &Shared, queue: &TopicQueue) -> Result<u32, Error> {
    match describe_delivery(shared, queue).await {
        Ok(attempts) if attempts > 0 => Ok(attempts),
        Err(error) if !is_final(&error) => Err(error),
        // It has no settings.
        _ => Ok(retry::ATTEMPTS_DEFAULT),
    }
}

/// What a broker group has for the consumer group's setting, which is the same in each: the queue's, since another one may be
/// away.
async fn describe_delivery(shared: &Shared, queue: &TopicQueue) -> Result<u32, Error> {
    let connection = &shared.core.connection;
    let (operation, subject) = ("describe", format!("group {}", shared.group));
    let own = shared.core.known_group_of(&queue.topic, queue.queue);
    let Some(group) = own.or_else(|| connection.brokers.first_group()) else {
        return Err(Error::TimedOut {
            operation,
            subject,
            address: connection.brokers.seeds().join(","),
            reason: "no broker group is known yet".to_owned(),
        });
    };
    let call = Call {
        operation,
        subject,
        group,
        timeout: connection.request_timeout,
        changes: false,
        once: false,
    };
    let request = NameRequest {
        name: shared.group.as_str().to_owned(),
    };
    let identity = shared.identity.for_group(&call.group);
    let answer: DescribeDeliveryResponse = connection
        .call(call, |address, timeout| {
            let request = identity.request(request.clone(), timeout);
            async move {
                connection
                    .inquiry(&address)?
                    .describe_delivery(request)
                    .await
            }
        })
        .await?;
    Ok(u32::try_from(answer.max_attempts).unwrap_or(0))
}

/// Whether the servers will never take it. A name server, which is asked when no broker of the group is known, does not
/// know the call: no broker has said no then.
fn is_final(error: &Error) -> bool {
    !error.may_pass() && error.code() != Some(Code::NotImplemented)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::progress::Progress;
    use crate::consumer::shared::testing::{delivery, hold, queue, without_servers};
    use crate::push_consumer::push_delivery::PushDelivery;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn engine(pause: Duration) -> Arc<Engine> {
        engine_with(pause, Attempts::AtServers)
    }

    fn engine_with(pause: Duration, attempts: Attempts) -> Arc<Engine> {
        engine_for(1, pause, attempts)
    }

    fn engine_for(concurrency: usize, pause: Duration, attempts: Attempts) -> Arc<Engine> {
        let rules = Rules {
            concurrency,
            in_order: attempts == Attempts::OfGroup,
            attempts,
            pause,
        };
        let shared = without_servers(Progress::OfGroup, Duration::ZERO);
        Arc::new(Engine::new(shared, rules))
    }

    async fn next(engine: &Arc<Engine>) -> PushDelivery {
        let next = tokio::time::timeout(PATIENCE, PushDelivery::next(engine)).await;
        let delivery = next.expect("a delivery comes").expect("no error");
        delivery.expect("the engine runs")
    }

    /// Catches an outage of one broker group that stops the queues of all others: what cannot be settled, or handed back, took
    /// their places.
    #[tokio::test]
    async fn what_cannot_be_settled_keeps_no_place() {
        for fails in [false, true] {
            let engine = engine(Duration::from_secs(1));
            let shared = engine.shared().clone();
            hold(&shared, 0, 0);
            hold(&shared, 1, 1);
            shared
                .holdings()
                .retries_came(&queue(0), vec![delivery(0, 0)]);
            tokio::spawn(engine.clone().settle_ended());
            let retry = next(&engine).await;
            assert_eq!(retry.queue, 0);
            match fails {
                true => retry.retry_later(),
                false => retry.ack(),
            }
            let other = next(&engine).await;
            assert_eq!(other.queue, 1);
            assert_eq!(shared.holdings().running(&queue(0)), 1, "nobody was told");
        }
    }

    /// Catches a queue that stands still although one of its deliveries is done, because another one is on its way back for long.
    #[tokio::test]
    async fn what_is_done_makes_room_in_its_queue() {
        let engine = engine_for(2, Duration::from_secs(1), Attempts::AtServers);
        let shared = engine.shared().clone();
        hold(&shared, 0, 3);
        tokio::spawn(engine.clone().settle_ended());
        let (failed, done) = (next(&engine).await, next(&engine).await);
        failed.retry_later();
        let mut third = Box::pin(next(&engine));
        let early = tokio::time::timeout(Duration::from_millis(100), third.as_mut()).await;
        assert!(early.is_err(), "two of the queue are not done with");
        done.ack();
        assert_eq!(third.await.offset, 2);
        assert_eq!(
            shared.holdings().running(&queue(0)),
            2,
            "nobody took the failed one back"
        );
    }

    /// Catches a retry that is worked on again because a name server did not know what to do with its end.
    #[test]
    fn a_call_that_is_not_known_may_have_met_a_name_server() {
        let refused = |code| Error::Refused {
            operation: "settle",
            subject: "a message".to_owned(),
            address: "a:1".to_owned(),
            code,
            reason: "no".to_owned(),
        };
        assert!(!is_final(&refused(Code::NotImplemented)));
        assert!(!is_final(&refused(Code::HaNotAvailable)));
        assert!(is_final(&refused(Code::IllegalTopic)));
    }

    /// Catches a message that is tried more often than its group allows, because the servers were away when the consumer
    /// was made.
    #[tokio::test]
    async fn attempts_are_not_guessed() {
        let engine = engine_with(Duration::from_millis(1), Attempts::OfGroup);
        hold(engine.shared(), 0, 1);
        let picked = engine
            .shared()
            .holdings()
            .pick(Pace::InOrder, Instant::now());
        let Pick::Delivery(ticket, delivery) = picked else {
            panic!("{picked:?}")
        };
        let mut asking = Box::pin(engine.is_last(&ticket, delivery.attempt));
        assert!(futures::poll!(asking.as_mut()).is_pending(), "nobody said");
        engine.shared().holdings().give_up(&queue(0));
        let is_last = tokio::time::timeout(PATIENCE, asking).await;
        assert_eq!(is_last, Ok(false), "another member will know");
    }

    /// Catches a pause, as long as can be said, that overflows the clock.
    #[tokio::test]
    async fn the_longest_pause_is_taken() {
        let engine = engine(Duration::MAX);
        hold(engine.shared(), 0, 1);
        let picked = engine
            .shared()
            .holdings()
            .pick(Pace::AtOnce(1), Instant::now());
        let Pick::Delivery(ticket, delivery) = picked else {
            panic!("{picked:?}")
        };
        engine.try_again(&ticket, *delivery, false);
        assert_eq!(engine.shared().holdings().running(&queue(0)), 0);
    }
}
