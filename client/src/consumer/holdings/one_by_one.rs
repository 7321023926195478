//! Handing out one delivery at a time, each finished for itself and in any order.

use std::ops::Bound;

use proto::place::Life;
use tokio::time::Instant;

use super::{Finishing, Held, Holdings};
use crate::consumer::delivery::{Delivery, TopicQueue, size};
use crate::error::Error;

/// By which a delivery is known while somebody works on it.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) queue: TopicQueue,
    pub(crate) offset: u64,
    /// It is one of the servers' retries: progress has passed it.
    pub(crate) is_retry: bool,
    epoch: u64,
}

/// How many deliveries of a queue may be worked on, or on their way back to the servers, before the next one is handed out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pace {
    /// One, and it is finished before the next.
    InOrder,
    /// So many, and no more: those that the servers of an absent broker group are to take keep their own queue, and no other.
    AtOnce(usize),
}

impl Pace {
    fn is_in_order(self) -> bool {
        self == Pace::InOrder
    }
}

/// What there is to hand out.
#[derive(Debug)]
pub(crate) enum Pick {
    Delivery(Ticket, Box<Delivery>),
    /// What keeps a queue from being read.
    Failure(Error),
    /// Nothing; from this time on perhaps something, if nothing arrives before.
    Nothing(Option<Instant>),
    /// Nothing ever again.
    Closed,
}

/// What a fetcher of retries should ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RetriesWanted {
    pub(crate) room: usize,
    /// Of which life of the topic.
    pub(crate) life: Option<Life>,
    /// Offsets that are not wanted.
    pub(crate) held: Vec<u64>,
}

impl Held {
    /// Deliveries of it in somebody's hands.
    fn running(&self) -> usize {
        self.at_work.running() + self.retries.running()
    }

    /// Whether any of it may be handed out now. If not, the passing of time alone changes nothing.
    fn may_go(&self, pace: Pace) -> bool {
        let most = match pace {
            Pace::InOrder => 1,
            Pace::AtOnce(most) => most,
        };
        !self.leaving && !self.paused && self.running() < most
    }

    /// How many retries may be taken from the servers. One of them always: it may be larger than the bound.
    fn room_for_retries(&self, bytes_max: usize) -> usize {
        match self.retries.room() {
            room if self.bytes() < bytes_max => room,
            room if self.retries.len() == 0 => room.min(1),
            _ => 0,
        }
    }

    fn has_something(&self, pace: Pace, now: Instant) -> bool {
        if !self.may_go(pace) {
            return false;
        }
        let next_may_go = !pace.is_in_order() || self.at_work.is_empty();
        let fresh = next_may_go && !self.buffer.is_empty();
        fresh || self.retries.is_ready() || self.at_work.next_due().is_some_and(|due| due <= now)
    }

    /// What comes first of what it has; and whether that is one of the servers' retries.
    fn hand_out(&mut self, pace: Pace, now: Instant) -> Option<(Delivery, bool)> {
        if let Some(delivery) = self.at_work.take_due(now) {
            return Some((delivery, false));
        }
        if let Some(delivery) = self.retries.begin() {
            return Some((delivery, true));
        }
        assert!(
            !pace.is_in_order() || self.at_work.is_empty(),
            "an unfinished delivery of the queue comes before its next one"
        );
        let delivery = self.buffer.pop_front()?;
        self.buffered_bytes -= size(&delivery);
        self.at_work.begin(&delivery);
        Some((delivery, false))
    }
}

impl Holdings {
    /// One delivery, from one queue after the other, of those that the pace allows.
    pub(crate) fn pick(&mut self, pace: Pace, now: Instant) -> Pick {
        if self.closed {
            return Pick::Closed;
        }
        let behind = self.turn.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut queues = self
            .queues
            .range::<TopicQueue, _>((behind, Bound::Unbounded))
            .chain(&self.queues);
        let found = queues.find(|(_, held)| held.has_something(pace, now));
        let Some(queue) = found.map(|(queue, _)| queue.clone()) else {
            return self.nothing(pace);
        };
        let held = self
            .queues
            .get_mut(&queue)
            .expect("is held: the key is from the map");
        let (delivery, is_retry) = held
            .hand_out(pace, now)
            .expect("has something: that was looked for");
        let ticket = Ticket {
            queue: queue.of_life(delivery.life),
            offset: delivery.offset,
            is_retry,
            epoch: held.epoch,
        };
        self.turn = Some(queue);
        Pick::Delivery(ticket, Box::new(delivery))
    }

    fn nothing(&mut self, pace: Pace) -> Pick {
        if let Some(failure) = self.take_failure() {
            return Pick::Failure(failure);
        }
        let waiting = self.queues.values().filter(|held| held.may_go(pace));
        Pick::Nothing(waiting.filter_map(|held| held.at_work.next_due()).min())
    }

    /// A delivery is finished with: progress may pass it.
    pub(crate) fn finish(&mut self, ticket: &Ticket) {
        let bytes_max = self.bounds.bytes;
        let Some(held) = self.of_epoch(&ticket.queue, ticket.epoch) else {
            return;
        };
        let had_room = held.room_for_retries(bytes_max) > 0;
        if ticket.is_retry {
            held.retries.end(ticket.offset);
        } else {
            held.at_work.finish(ticket.offset);
            held.advance();
        }
        held.signals.room.notify_one();
        if ticket.is_retry || (!had_room && held.room_for_retries(bytes_max) > 0) {
            held.signals.retried.notify_one();
        }
    }

    /// A delivery comes back unfinished and is handed out again from `due` on: progress does not pass it. If its queue
    /// was given up meanwhile, the queue's next owner gets it. Of a retry, only its place is given back: servers hand it
    /// out again. `maybe_handed_back`: servers may have a retry of it.
    pub(crate) fn again(
        &mut self,
        ticket: &Ticket,
        delivery: Delivery,
        due: Instant,
        maybe_handed_back: bool,
    ) {
        if ticket.is_retry {
            self.finish(ticket);
        } else if let Some(held) = self.of_epoch(&ticket.queue, ticket.epoch) {
            held.at_work.again(delivery, due, maybe_handed_back);
            if maybe_handed_back {
                // So that its retry is not asked for.
                held.signals.retried.notify_one();
            }
        }
    }

    /// Whether servers may have a retry of a delivery that is worked on.
    pub(crate) fn maybe_handed_back(&self, ticket: &Ticket) -> bool {
        let held = self.queues.get(&ticket.queue);
        held.is_some_and(|held| {
            held.epoch == ticket.epoch && held.at_work.maybe_handed_back(ticket.offset)
        })
    }

    /// Which retries to ask for; `None` if the queue is not held any more.
    pub(crate) fn retries_wanted(&self, queue: &TopicQueue) -> Option<RetriesWanted> {
        let held = self.queues.get(queue).filter(|held| !held.leaving)?;
        let mut offsets: Vec<u64> = held.retries.held().collect();
        offsets.extend(held.at_work.perhaps_handed_back());
        Some(RetriesWanted {
            // None before it is known which life of the topic is read.
            room: held
                .place
                .map_or(0, |_| held.room_for_retries(self.bounds.bytes)),
            life: held.place.and_then(|place| place.life),
            held: offsets,
        })
    }

    /// Servers bring retries of a queue.
    pub(crate) fn retries_came(&mut self, queue: &TopicQueue, deliveries: Vec<Delivery>) {
        let held = self.queues.get_mut(queue);
        if let Some((held, place)) = held.and_then(|held| held.place.map(|place| (held, place))) {
            let of_life = |delivery: &Delivery| delivery.life == place.life;
            held.retries
                .came(deliveries.into_iter().filter(of_life).collect());
        }
    }

    /// Whether a delivery's queue is held since then, and not about to be given up.
    pub(crate) fn stays(&self, ticket: &Ticket) -> bool {
        let held = self.queues.get(&ticket.queue);
        held.is_some_and(|held| held.epoch == ticket.epoch && !held.leaving)
    }

    /// How many deliveries of a queue are in somebody's hands.
    pub(crate) fn running(&self, queue: &TopicQueue) -> u64 {
        let Some(held) = self.queues.get(queue) else {
            return 0;
        };
        match (self.finishing, held.place, held.handed()) {
            (Finishing::AtOnce, Some(place), Some(handed)) => handed.saturating_sub(place.done),
            (Finishing::AtOnce, ..) => 0,
            (Finishing::OneByOne, ..) => held.running() as u64,
        }
    }

    /// Hands out nothing more and takes no more queues. Those that are held stay so until they are given up.
    pub(crate) fn stop(&mut self) -> Vec<TopicQueue> {
        self.closed = true;
        let queues = self.held();
        self.leave(&queues);
        queues
    }
}

#[cfg(test)]
#[path = "one_by_one_test.rs"]
mod one_by_one_test;
