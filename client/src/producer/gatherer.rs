//! Gathers messages of one topic, handed over one by one, into requests. Pure: no clock, no network, no message.
//!
//! There is no timer: what is handed over while earlier requests are on their way makes up the next one.
//!
//! **Order.** A queue is *busy* from the moment a request with messages for it is cut until that request is done,
//! retries and all, and nothing else is cut for it meanwhile. So what is handed over for one queue (or one message
//! group, whose hash names the queue) leaves in that order, and a retry never comes after its successor.
//! Several queues are busy at once, up to `requests_max` requests.
//!
//! What may go anywhere waits in one line of its own and takes whole requests to the queue that has been idle for
//! longest: round-robin by request and not by message, so that requests are large. But no request takes more than its
//! share of what waits if that makes several of a fair size: while one is stored, the next one travels.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use model::queue_choice;
use tokio::time::Instant;

/// What waits is not split into requests of fewer items than this.
const SHARE_MIN: usize = 32;

/// Limits of what is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Most items of one request.
    pub(super) messages_max: usize,
    /// Most bytes of one request; a single larger item goes alone.
    pub(super) bytes_max: usize,
    /// Most requests at once.
    pub(super) requests_max: usize,
}

/// Where an item may go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// Wherever there is room first.
    Any,
    /// This queue.
    Queue(u32),
    /// The queue that this hash names.
    Hash(u64),
}

/// One item, and what must be known of it here.
#[derive(Debug)]
pub(super) struct Handed<T> {
    pub(super) item: T,
    pub(super) target: Target,
    pub(super) bytes: usize,
    /// When its sender stops waiting.
    pub(super) deadline: Instant,
}

/// An item that waits.
#[derive(Debug)]
struct Waiting<T> {
    handed: Handed<T>,
    /// How many were handed over before it: lines that become one keep that order.
    number: u64,
}

/// One queue of the topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Queue {
    pub(super) queue: u32,
    pub(super) group: Arc<str>,
    pub(super) writable: bool,
}

/// What goes into one request: for one broker group, items of one queue in their order.
#[derive(Debug)]
pub(super) struct Batch<T> {
    pub(super) group: Arc<str>,
    pub(super) items: Vec<(u32, Handed<T>)>,
    /// Busy until `done`.
    pub(super) queues: Vec<u32>,
    /// Any other queue would do as well.
    pub(super) anywhere: bool,
}

/// What a worker shall do.
#[derive(Debug)]
pub(super) struct Cut<T> {
    /// Send this and say `done`; nothing to do and the worker's place is given up if `None`.
    pub(super) batch: Option<Batch<T>>,
    /// There is work for one more worker, and its place is taken: start it.
    pub(super) start_another: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Gatherer<T> {
    bounds: Bounds,
    queues: Vec<Queue>,
    /// The broker group of each queue that there ever was: one that is away keeps its own.
    homes: BTreeMap<u32, Arc<str>>,
    /// Takes the place of `queues` when nothing is busy any more.
    next_queues: Option<Vec<Queue>>,
    lanes: BTreeMap<u32, Lane<T>>,
    anywhere: VecDeque<Waiting<T>>,
    /// Writable queues that are not busy, the longest idle first.
    idle: VecDeque<u32>,
    /// Queues that are not busy and have items of their own, the longest waiting first.
    ready: VecDeque<u32>,
    busy: usize,
    /// Items that wait, and their bytes.
    waiting: usize,
    waiting_bytes: usize,
    /// Items that were ever handed over.
    pushed: u64,
    /// Place in the queues of the last choice made while none was idle.
    turn: usize,
    /// Broker groups that get what may go anywhere only if there is no other.
    avoided: BTreeSet<Arc<str>>,
    workers: usize,
    /// A worker was called for and has not cut yet: it will see whatever is handed over until then.
    starting: bool,
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<Waiting<T>>,
    busy: bool,
}

impl<T> Gatherer<T> {
    pub(super) fn new(bounds: Bounds, queues: Vec<Queue>) -> Gatherer<T> {
        let mut gatherer = Gatherer {
            bounds,
            queues: Vec::new(),
            homes: BTreeMap::new(),
            next_queues: None,
            lanes: BTreeMap::new(),
            anywhere: VecDeque::new(),
            idle: VecDeque::new(),
            ready: VecDeque::new(),
            busy: 0,
            waiting: 0,
            waiting_bytes: 0,
            pushed: 0,
            turn: 0,
            avoided: BTreeSet::new(),
            workers: 0,
            starting: false,
        };
        gatherer.switch(queues);
        gatherer
    }

    /// Takes an item. True: start a worker, its place is taken.
    pub(super) fn push(&mut self, handed: Handed<T>) -> bool {
        self.waiting += 1;
        self.waiting_bytes += handed.bytes;
        let number = self.pushed;
        self.pushed += 1;
        let waiting = Waiting { handed, number };
        match self.lane_of(waiting.handed.target) {
            Some(queue) => self.push_to(queue, waiting),
            None => self.anywhere.push_back(waiting),
        }
        self.call_worker()
    }

    /// The queue for items that may go anywhere, but together: the longest idle one, or else the next in turn.
    pub(super) fn next_queue(&mut self) -> Target {
        // Of those that there will be soon, if they change: one whose broker group is away would be waited for.
        let newest = self.next_queues.as_ref().unwrap_or(&self.queues);
        let writable = newest.iter().filter(|queue| queue.writable);
        let writable: Vec<u32> = writable.map(|queue| queue.queue).collect();
        if let Some(queue) = self.best_idle().filter(|queue| writable.contains(queue)) {
            self.idle.retain(|idle| *idle != queue);
            self.idle.push_back(queue);
            return Target::Queue(queue);
        }
        if writable.is_empty() {
            return Target::Any;
        }
        self.turn = (self.turn + 1) % writable.len();
        Target::Queue(writable[self.turn])
    }

    /// Broker groups to keep away from, as long as there are others.
    pub(super) fn avoid(&mut self, groups: BTreeSet<Arc<str>>) {
        self.avoided = groups;
    }

    /// The queue that has been idle for longest, of those that need not be avoided if there is one.
    fn best_idle(&self) -> Option<u32> {
        let mut idle = self.idle.iter().copied();
        if self.avoided.is_empty() {
            return idle.next();
        }
        let good = idle.find(|queue| !self.avoided.contains(&self.group_of(*queue)));
        good.or(self.idle.front().copied())
    }

    /// Whether what waits is enough for a whole request, as far as bounds go.
    pub(super) fn is_full(&self) -> bool {
        self.waiting >= self.bounds.messages_max || self.waiting_bytes >= self.bounds.bytes_max
    }

    /// A worker takes its next request.
    pub(super) fn cut(&mut self) -> Cut<T> {
        self.starting = false;
        let batch = self.cut_batch();
        match &batch {
            Some(batch) => self.left(batch.items.iter().map(|(_, handed)| handed.bytes)),
            None => self.workers -= 1,
        }
        Cut {
            batch,
            start_another: self.call_worker(),
        }
    }

    /// A worker's request waits for its broker group, and no other can take it: its place is somebody else's meanwhile, so that
    /// what is for other groups does not wait as well. Its queues stay busy. True: start a worker, its place is taken.
    pub(super) fn set_aside(&mut self) -> bool {
        self.workers -= 1;
        self.call_worker()
    }

    /// A request that was set aside is done. True: there is work, and a place for the worker that had it.
    pub(super) fn come_back(&mut self) -> bool {
        self.call_worker()
    }

    /// The request is settled: every item is either answered or given up.
    pub(super) fn done(&mut self, queues: &[u32]) {
        for &queue in queues {
            let Some(lane) = self.lanes.get_mut(&queue) else {
                continue;
            };
            lane.busy = false;
            self.busy -= 1;
            if !lane.waiting.is_empty() {
                self.ready.push_back(queue);
            }
            if self
                .queues
                .iter()
                .any(|known| known.queue == queue && known.writable)
            {
                self.idle.push_back(queue);
            }
        }
        if self.busy == 0
            && let Some(queues) = self.next_queues.take()
        {
            self.switch(queues);
        }
    }

    /// The topic's queues are others now. Takes effect when nothing is busy: until then nothing more is cut, so that a
    /// message group whose hash names another queue now cannot overtake itself.
    pub(super) fn set_queues(&mut self, queues: Vec<Queue>) {
        if queues == self.queues {
            self.next_queues = None;
        } else if self.busy == 0 {
            self.switch(queues);
        } else {
            self.next_queues = Some(queues);
        }
    }

    /// Takes out what has waited past its deadline.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Handed<T>> {
        let mut expired = Vec::new();
        let lines = self.lanes.values_mut().map(|lane| &mut lane.waiting);
        for line in lines.chain([&mut self.anywhere]) {
            // Deadlines follow the order of handing over, so the front is the earliest.
            while line.front().is_some_and(|next| next.handed.deadline <= now) {
                expired.extend(line.pop_front().map(|next| next.handed));
            }
        }
        let lanes = &self.lanes;
        self.ready.retain(|queue| {
            lanes
                .get(queue)
                .is_some_and(|lane| !lane.waiting.is_empty())
        });
        self.left(expired.iter().map(|handed| handed.bytes));
        expired
    }

    /// When `expire` will find something next.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        let lines = self.lanes.values().map(|lane| &lane.waiting);
        lines
            .chain([&self.anywhere])
            .filter_map(|line| line.front())
            .map(|next| next.handed.deadline)
            .min()
    }

    /// Items of these sizes wait no more.
    fn left(&mut self, bytes: impl Iterator<Item = usize>) {
        for bytes in bytes {
            self.waiting -= 1;
            self.waiting_bytes -= bytes;
        }
    }

    fn lane_of(&self, target: Target) -> Option<u32> {
        match target {
            Target::Any => None,
            Target::Queue(queue) => Some(queue),
            Target::Hash(hash) => {
                let chosen = queue_choice::of_group(hash, self.queues.len() as u32);
                // Without queues there is no choice yet; the broker will make it.
                let chosen = self.queues.get(chosen as usize);
                Some(chosen.map_or(0, |chosen| chosen.queue))
            }
        }
    }

    fn push_to(&mut self, queue: u32, waiting: Waiting<T>) {
        let lane = self.lanes.entry(queue).or_insert_with(|| Lane {
            waiting: VecDeque::new(),
            busy: false,
        });
        if lane.waiting.is_empty() && !lane.busy {
            self.ready.push_back(queue);
        }
        lane.waiting.push_back(waiting);
    }

    fn call_worker(&mut self) -> bool {
        let place = !self.starting && self.workers < self.bounds.requests_max;
        let call = place && self.has_work();
        if call {
            self.workers += 1;
            self.starting = true;
        }
        call
    }

    fn has_work(&self) -> bool {
        self.next_queues.is_none()
            && (!self.ready.is_empty() || !self.anywhere.is_empty() && !self.idle.is_empty())
    }

    fn cut_batch(&mut self) -> Option<Batch<T>> {
        if !self.has_work() {
            return None;
        }
        if self.lanes_come_first() {
            self.cut_lanes()
        } else {
            self.cut_anywhere()
        }
    }

    /// Whoever has waited longest is served first.
    fn lanes_come_first(&self) -> bool {
        let own = self
            .ready
            .front()
            .and_then(|queue| self.lanes.get(queue)?.waiting.front());
        match (own, self.anywhere.front()) {
            (Some(own), Some(any)) => own.number < any.number || self.idle.is_empty(),
            (own, _) => own.is_some(),
        }
    }

    /// From the lines of as many ready queues of one broker group as there is room for.
    fn cut_lanes(&mut self) -> Option<Batch<T>> {
        let first = *self.ready.front()?;
        let mut batch = Batch {
            group: self.group_of(first),
            items: Vec::new(),
            queues: Vec::new(),
            anywhere: false,
        };
        let mut bytes = 0;
        let mut elsewhere = VecDeque::new();
        let share = self.ready.len().div_ceil(self.places());
        while let Some(queue) = self.ready.pop_front() {
            if batch.queues.len() >= share && batch.items.len() >= SHARE_MIN {
                elsewhere.push_front(queue);
                break;
            }
            if self.group_of(queue) != batch.group {
                elsewhere.push_back(queue);
                continue;
            }
            let lane = self.lanes.get_mut(&queue)?;
            let before = batch.items.len();
            take(
                &mut lane.waiting,
                &self.bounds,
                queue,
                &mut batch.items,
                &mut bytes,
            );
            if batch.items.len() == before {
                elsewhere.push_front(queue);
                break;
            }
            self.mark_busy(queue);
            batch.queues.push(queue);
        }
        while let Some(queue) = elsewhere.pop_back() {
            self.ready.push_front(queue);
        }
        Some(batch)
    }

    fn cut_anywhere(&mut self) -> Option<Batch<T>> {
        let queue = self.best_idle()?;
        let mut batch = Batch {
            group: self.group_of(queue),
            items: Vec::new(),
            queues: vec![queue],
            anywhere: true,
        };
        let share = self
            .anywhere
            .len()
            .div_ceil(self.places().min(self.idle.len()));
        let messages_max = self.bounds.messages_max.min(share.max(SHARE_MIN));
        let bounds = Bounds {
            messages_max,
            ..self.bounds
        };
        take(&mut self.anywhere, &bounds, queue, &mut batch.items, &mut 0);
        self.mark_busy(queue);
        // Its own line, if it has one, is ready again when this is done.
        self.ready.retain(|ready| *ready != queue);
        Some(batch)
    }

    /// Requests that could be cut now: one by the worker that asks, and one by each that may still be started.
    fn places(&self) -> usize {
        self.bounds.requests_max - self.workers + 1
    }

    fn mark_busy(&mut self, queue: u32) {
        let lane = self.lanes.entry(queue).or_insert_with(|| Lane {
            waiting: VecDeque::new(),
            busy: false,
        });
        assert!(!lane.busy, "one request at a time for one queue");
        lane.busy = true;
        self.busy += 1;
        self.idle.retain(|idle| *idle != queue);
    }

    fn group_of(&self, queue: u32) -> Arc<str> {
        if let Some(home) = self.homes.get(&queue) {
            return home.clone();
        }
        let first = self.queues.first();
        first.map_or_else(|| "".into(), |queue| queue.group.clone())
    }

    /// Nothing is busy: puts everything that waits into the lines of the new queues, as it was handed over.
    fn switch(&mut self, queues: Vec<Queue>) {
        assert_eq!(
            self.busy, 0,
            "no queue changes while a request is on its way"
        );
        let homes = queues.iter();
        self.homes
            .extend(homes.map(|queue| (queue.queue, queue.group.clone())));
        self.queues = queues;
        self.idle = self
            .queues
            .iter()
            .filter(|queue| queue.writable)
            .map(|queue| queue.queue)
            .collect();
        self.ready.clear();
        let lanes = std::mem::take(&mut self.lanes);
        let waiting = lanes.into_values().flat_map(|lane| lane.waiting);
        let mut waiting: Vec<Waiting<T>> = waiting.collect();
        waiting.sort_by_key(|waiting| waiting.number);
        for waiting in waiting {
            if let Some(queue) = self.lane_of(waiting.handed.target) {
                self.push_to(queue, waiting);
            }
        }
    }
}

/// Moves items from the front of a line, at least one if there is room for any.
fn take<T>(
    line: &mut VecDeque<Waiting<T>>,
    bounds: &Bounds,
    queue: u32,
    items: &mut Vec<(u32, Handed<T>)>,
    bytes: &mut usize,
) {
    while let Some(next) = line.front() {
        let next_bytes = next.handed.bytes;
        let fits = items.len() < bounds.messages_max && *bytes + next_bytes <= bounds.bytes_max;
        if !fits && !items.is_empty() {
            return;
        }
        *bytes += next_bytes;
        items.extend(line.pop_front().map(|next| (queue, next.handed)));
    }
}

#[cfg(test)]
#[path = "gatherer_test.rs"]
mod gatherer_test;
