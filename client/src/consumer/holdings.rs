//! The queues that a consumer holds, and for each how far it was fetched, handed out, done and committed. No waiting,
//! no network; one lock around it is held by its owner for moments only.
//!
//! ```text
//! committed <= done <= handed <= fetched
//! ```
//!
//! `fetched`: the next offset to pull. `handed`: the next offset that a poll hands out. `done`: everything below is
//! finished with. `committed`: what the servers were told. (Only a seek backwards puts `handed` below `done`.) A queue
//! that is lost is dropped whole, with whatever is buffered; what came back from a pull that began before that, or before
//! a seek, is recognised by its epoch.
//!
//! What is handed out is finished in one of two ways: all of it at once, by the next poll (`all_done`), or one delivery
//! after the other and in any order (`one_by_one`).

mod one_by_one;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use host::ShutdownTrigger;
use proto::place::Life;
use tokio::sync::Notify;

pub(crate) use one_by_one::{Pace, Pick, RetriesWanted, Ticket};

use crate::consumer::at_work::AtWork;
use crate::consumer::delivery::{Delivery, TopicQueue, size};
use crate::consumer::retries::Retries;
use crate::error::Error;

/// Limits of what is kept of one queue: of what is ready, and of what was handed out one by one and is not finished. The
/// bytes of retries count too; their number has a limit of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrefetchBounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// From the lowest offset that is not finished to the next one to pull.
    pub(crate) span: u64,
}

/// How what is handed out gets finished.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Finishing {
    /// All of it, by the next poll.
    AtOnce,
    /// Each delivery for itself.
    OneByOne,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Holdings {
    bounds: PrefetchBounds,
    finishing: Finishing,
    queues: BTreeMap<TopicQueue, Held>,
    /// The next poll begins behind this queue.
    turn: Option<TopicQueue>,
    /// Grows with each queue taken and each seek.
    epoch: u64,
    /// Why the consumer may read nothing, until its user was told.
    refused: Option<Error>,
    /// Takes no more queues.
    closed: bool,
}

#[derive(Debug)]
struct Held {
    epoch: u64,
    /// Unknown until the group's offset has been asked for.
    place: Option<Place>,
    buffer: VecDeque<Delivery>,
    buffered_bytes: usize,
    failure: Option<Error>,
    /// Nothing of it is handed out; fetching goes on until the buffer is full.
    paused: bool,
    /// Nothing of it is handed out any more: it is given up when nothing of it is worked on.
    leaving: bool,
    at_work: AtWork,
    retries: Retries,
    signals: Arc<Signals>,
    /// Stops the fetchers, at the latest when it is dropped.
    fetchers: ShutdownTrigger,
}

/// What a fetcher waits for.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// The buffer is full no more, or the place is another.
    pub(crate) room: Notify,
    /// The place is another.
    pub(crate) moved: Notify,
    /// A retry is worked on no more.
    pub(crate) retried: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// The life of the topic in which the offsets mean something; unknown after a seek that came first.
    life: Option<Life>,
    fetched: u64,
    done: u64,
    committed: Option<u64>,
}

/// What a fetcher should do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FetchNext {
    /// Ask where to start, for this epoch.
    FindStart { epoch: u64 },
    /// Pull at most so many messages from here.
    Pull {
        epoch: u64,
        life: Option<Life>,
        offset: u64,
        messages: usize,
    },
    /// Wait until something changes.
    Full,
    /// The queue is not held any more.
    Gone,
}

/// An offset to tell the servers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Due {
    pub(crate) queue: TopicQueue,
    pub(crate) offset: u64,
}

impl Held {
    fn handed(&self) -> Option<u64> {
        let fetched = self.place?.fetched;
        Some(
            self.buffer
                .front()
                .map_or(fetched, |delivery| delivery.offset),
        )
    }

    /// Messages that were fetched and are not finished.
    fn messages(&self) -> usize {
        self.buffer.len() + self.at_work.len() + self.retries.len()
    }

    /// Their bytes.
    fn bytes(&self) -> usize {
        self.buffered_bytes + self.at_work.bytes() + self.retries.bytes()
    }

    /// Progress where deliveries are finished one by one: up to the lowest that is not.
    fn advance(&mut self) {
        let lowest = self.at_work.lowest().or(self.handed());
        if let (Some(place), Some(lowest)) = (self.place.as_mut(), lowest) {
            place.done = place.done.max(lowest);
        }
    }

    fn due(&self, queue: &TopicQueue) -> Option<Due> {
        let place = self.place?;
        let news = place
            .committed
            .is_none_or(|committed| place.done > committed);
        news.then(|| Due {
            queue: queue.of_life(place.life),
            offset: place.done,
        })
    }
}

impl Holdings {
    pub(crate) fn new(bounds: PrefetchBounds, finishing: Finishing) -> Holdings {
        Holdings {
            bounds,
            finishing,
            queues: BTreeMap::new(),
            turn: None,
            epoch: 0,
            refused: None,
            closed: false,
        }
    }

    pub(crate) fn held(&self) -> Vec<TopicQueue> {
        self.queues.keys().cloned().collect()
    }

    pub(crate) fn holds(&self, queue: &TopicQueue) -> bool {
        self.queues.contains_key(queue)
    }

    /// Takes a queue. False: it is held already, or nothing is taken any more.
    pub(crate) fn take(
        &mut self,
        queue: TopicQueue,
        signals: Arc<Signals>,
        fetchers: ShutdownTrigger,
    ) -> bool {
        if self.closed || self.holds(&queue) {
            return false;
        }
        self.epoch += 1;
        let held = Held {
            epoch: self.epoch,
            place: None,
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            failure: None,
            paused: false,
            leaving: false,
            at_work: AtWork::default(),
            retries: Retries::default(),
            signals,
            fetchers,
        };
        self.queues.insert(queue, held);
        true
    }

    /// Begins to give up queues: nothing more of them is handed out.
    pub(crate) fn leave(&mut self, queues: &[TopicQueue]) {
        for queue in queues {
            if let Some(held) = self.queues.get_mut(queue) {
                held.leaving = true;
                held.fetchers.shut_down();
            }
        }
    }

    /// Gives up a queue: its buffer goes, its fetchers stop.
    pub(crate) fn give_up(&mut self, queue: &TopicQueue) {
        self.queues.remove(queue);
    }

    /// Gives up everything, for good.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.queues.clear();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn fetch_next(&self, queue: &TopicQueue) -> FetchNext {
        let Some(held) = self.queues.get(queue) else {
            return FetchNext::Gone;
        };
        let Some(place) = held.place else {
            return FetchNext::FindStart { epoch: held.epoch };
        };
        let bounds = &self.bounds;
        let kept = held.buffer.len() + held.at_work.len();
        let room = bounds.messages.saturating_sub(kept);
        let span = place.fetched.saturating_sub(place.done);
        if room == 0 || held.bytes() >= bounds.bytes || span >= bounds.span {
            return FetchNext::Full;
        }
        FetchNext::Pull {
            epoch: held.epoch,
            life: place.life,
            offset: place.fetched,
            messages: room,
        }
    }

    /// The fetcher found where to start.
    pub(crate) fn start_at(
        &mut self,
        queue: &TopicQueue,
        epoch: u64,
        offset: u64,
        (committed, life): (Option<u64>, Option<Life>),
    ) {
        if let Some(held) = self.of_epoch(queue, epoch) {
            held.place = Some(Place {
                life,
                fetched: offset,
                done: offset,
                committed,
            });
            held.failure = None;
            held.signals.retried.notify_one();
        }
    }

    /// The fetcher brings messages, in order, and where to go on. Returns whether they are still wanted.
    pub(crate) fn fetched(
        &mut self,
        queue: &TopicQueue,
        epoch: u64,
        deliveries: Vec<Delivery>,
        next: u64,
    ) -> bool {
        let one_by_one = self.finishing == Finishing::OneByOne;
        let Some(held) = self.of_epoch(queue, epoch) else {
            return false;
        };
        let Some(place) = held.place.as_mut() else {
            return false;
        };
        assert!(next >= place.fetched, "a queue is fetched forwards");
        place.fetched = next;
        held.buffered_bytes += deliveries.iter().map(size).sum::<usize>();
        held.buffer.extend(deliveries);
        held.failure = None;
        if one_by_one {
            held.advance();
        }
        true
    }

    /// The topic is in this life, as a pull says: that counts where none was known.
    pub(crate) fn lives(&mut self, queue: &TopicQueue, epoch: u64, life: Life) {
        if let Some(place) = self
            .of_epoch(queue, epoch)
            .and_then(|held| held.place.as_mut())
        {
            place.life.get_or_insert(life);
        }
    }

    /// The life of the topic that a held queue is read in.
    pub(crate) fn life(&self, queue: &TopicQueue) -> Option<Life> {
        self.queues.get(queue)?.place?.life
    }

    /// A queue is read from anew: its place means nothing any more. What was fetched of it goes, and what is in somebody's
    /// hands counts no more. False: that had been noticed, or the queue is not held.
    pub(crate) fn start_again(&mut self, queue: &TopicQueue, life: Option<Life>) -> bool {
        self.epoch += 1;
        let epoch = self.epoch;
        let Some(held) = self.queues.get_mut(queue) else {
            return false;
        };
        if held.place.is_none_or(|place| place.life != life) {
            return false;
        }
        held.epoch = epoch;
        held.place = None;
        held.buffer.clear();
        held.buffered_bytes = 0;
        held.failure = None;
        held.at_work = AtWork::default();
        held.retries = Retries::default();
        held.signals.moved.notify_one();
        held.signals.room.notify_one();
        held.signals.retried.notify_one();
        true
    }

    /// The fetcher met something that will not pass by itself.
    pub(crate) fn failed(&mut self, queue: &TopicQueue, epoch: u64, failure: Error) {
        if let Some(held) = self.of_epoch(queue, epoch) {
            held.failure = Some(failure);
        }
    }

    /// The consumer may read nothing for now: the user should know why.
    pub(crate) fn refused(&mut self, error: Error) {
        self.refused = Some(error);
    }

    /// What the user should know of: once.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        let of_queues = &mut self.queues;
        (self.refused.take())
            .or_else(|| of_queues.values_mut().find_map(|held| held.failure.take()))
    }

    /// Up to `max` messages, from one queue after the other; or a failure that the user should know of.
    pub(crate) fn hand_out(&mut self, max: usize) -> Result<Vec<Delivery>, Error> {
        let mut handed_out = Vec::new();
        for queue in self.in_turn() {
            let held = self
                .queues
                .get_mut(&queue)
                .expect("is held: the keys are from the map");
            let count = held.buffer.len().min(max - handed_out.len());
            if count == 0 || held.paused || held.leaving {
                continue;
            }
            let before = handed_out.len();
            handed_out.extend(held.buffer.drain(..count));
            held.buffered_bytes -= handed_out[before..].iter().map(size).sum::<usize>();
            held.signals.room.notify_one();
            self.turn = Some(queue);
            if handed_out.len() == max {
                break;
            }
        }
        if handed_out.is_empty()
            && let Some(failure) = self.take_failure()
        {
            return Err(failure);
        }
        Ok(handed_out)
    }

    /// The held queues, beginning behind the one that was served last.
    fn in_turn(&self) -> Vec<TopicQueue> {
        let mut queues = self.held();
        if let Some(turn) = &self.turn {
            let behind = queues.partition_point(|queue| queue <= turn);
            queues.rotate_left(behind);
        }
        queues
    }

    /// Everything handed out so far is finished with.
    pub(crate) fn all_done(&mut self) {
        for held in self.queues.values_mut() {
            let handed = held.handed();
            if let (Some(place), Some(handed)) = (held.place.as_mut(), handed) {
                place.done = place.done.max(handed);
            }
        }
    }

    /// The user says so of everything below an offset; what was not handed out yet is not finished by that.
    pub(crate) fn done_below(&mut self, queue: &TopicQueue, offset: u64) {
        if let Some(held) = self.queues.get_mut(queue)
            && let Some(handed) = held.handed()
            && let Some(place) = held.place.as_mut()
        {
            place.done = place.done.max(offset.min(handed));
        }
    }

    /// Of each held queue whose place is known: up to where it is done.
    pub(crate) fn done(&self) -> Vec<(TopicQueue, u64)> {
        let known = self.queues.iter().filter_map(|(queue, held)| {
            let place = held.place?;
            Some((queue.clone(), place.done))
        });
        known.collect()
    }

    /// Of each topic: messages that were fetched and are not finished, as far as that is known, and their bytes.
    pub(crate) fn cached(&self) -> BTreeMap<Arc<str>, (usize, usize)> {
        let mut cached: BTreeMap<Arc<str>, (usize, usize)> = BTreeMap::new();
        for (queue, held) in &self.queues {
            let of_topic = cached.entry(queue.topic.clone()).or_default();
            of_topic.0 += held.messages();
            of_topic.1 += held.bytes();
        }
        cached
    }

    /// What is done and not committed.
    pub(crate) fn due(&self) -> Vec<Due> {
        self.queues
            .iter()
            .filter_map(|(queue, held)| held.due(queue))
            .collect()
    }

    /// The same of one queue.
    pub(crate) fn due_in(&self, queue: &TopicQueue) -> Option<Due> {
        let (queue, held) = self.queues.get_key_value(queue)?;
        held.due(queue)
    }

    /// The servers were told.
    pub(crate) fn committed(&mut self, due: &Due) {
        if let Some(place) = self
            .queues
            .get_mut(&due.queue)
            .and_then(|held| held.place.as_mut())
            .filter(|place| place.life == due.queue.life())
        {
            place.committed = place.committed.max(Some(due.offset));
        }
    }

    /// Goes elsewhere. False: the queue is not held.
    pub(crate) fn seek(&mut self, queue: &TopicQueue, offset: u64) -> bool {
        self.epoch += 1;
        let epoch = self.epoch;
        let Some(held) = self.queues.get_mut(queue) else {
            return false;
        };
        held.epoch = epoch;
        let (done, committed, life) = held.place.map_or((offset, None, None), |place| {
            (place.done, place.committed, place.life)
        });
        held.place = Some(Place {
            life,
            fetched: offset,
            done,
            committed,
        });
        held.buffer.clear();
        held.buffered_bytes = 0;
        held.failure = None;
        held.signals.moved.notify_one();
        held.signals.room.notify_one();
        true
    }

    /// Stops handing out of a queue, or goes on with it. False: the queue is not held.
    pub(crate) fn pause(&mut self, queue: &TopicQueue, paused: bool) -> bool {
        let held = self.queues.get_mut(queue);
        held.map(|held| held.paused = paused).is_some()
    }

    /// The queues that are paused, in order.
    pub(crate) fn paused(&self) -> Vec<TopicQueue> {
        let paused = self.queues.iter().filter(|(_, held)| held.paused);
        paused.map(|(queue, _)| queue.clone()).collect()
    }

    /// The next offset that a poll hands out.
    pub(crate) fn position(&self, queue: &TopicQueue) -> Option<u64> {
        self.queues.get(queue)?.handed()
    }

    fn of_epoch(&mut self, queue: &TopicQueue, epoch: u64) -> Option<&mut Held> {
        self.queues
            .get_mut(queue)
            .filter(|held| held.epoch == epoch)
    }
}

#[cfg(test)]
#[path = "holdings_test.rs"]
mod holdings_test;
