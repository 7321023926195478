//! Bytes that many share: a pool, the parts of it that an origin and a connection may have, and those who wait.
//!
//! Whoever takes bytes asks its connection first, then its origin, then all; always in that order, so that nobody waits for
//! who waits for him. Must never hand out more than there is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// One origin may have this part of each pool, so that a few addresses cannot have it all.
const ORIGIN_PARTS: u64 = 4;

/// What bytes are for. Whatever there is of each stands in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Calls, small requests, small answers.
    Small,
    /// Large requests.
    Uploads,
    /// Large answers.
    Answers,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Small, Kind::Uploads, Kind::Answers];
}

/// Bytes for all connections.
#[derive(Debug)]
pub(super) struct Pool {
    bytes: Arc<Semaphore>,
    pub(super) max: u64,
    per_origin: u64,
    per_connection: u64,
    waiters: Mutex<Waiters>,
}

/// Those who found too little left, in the order in which they came.
#[derive(Debug, Default)]
struct Waiters {
    next: u64,
    waiting: BTreeMap<u64, Waiter>,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    since: Instant,
    want: Want,
}

/// Bytes that somebody has waited for, for longer than others may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) bytes: u64,
    /// Whose part is too small; none where all have too much.
    pub(crate) of: Option<IpAddr>,
}

impl Pool {
    pub(super) fn new(max: u64, per_connection: u64) -> Arc<Pool> {
        Arc::new(Pool {
            bytes: Arc::new(Semaphore::new(max as usize)),
            max,
            per_origin: (max / ORIGIN_PARTS).max(per_connection),
            per_connection,
            waiters: Mutex::default(),
        })
    }

    pub(super) fn held(&self) -> u64 {
        held(self.max, &self.bytes)
    }

    /// What the first to wait wants, of all and of each origin, if it has waited for so long.
    pub(super) fn wants(&self, now: Instant, waited: Duration) -> Vec<Want> {
        let waiters = self.waiters();
        let mut first: BTreeMap<Option<IpAddr>, Waiter> = BTreeMap::new();
        for waiter in waiters.waiting.values() {
            first.entry(waiter.want.of).or_insert(*waiter);
        }
        let long = |waiter: &Waiter| now.saturating_duration_since(waiter.since) >= waited;
        let wants = first.into_values().filter(long);
        wants.map(|waiter| waiter.want).collect()
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn held(max: u64, left: &Semaphore) -> u64 {
    max.saturating_sub(left.available_permits() as u64)
}

/// Somebody who waits, for as long as it lives.
struct Waiting<'a> {
    pool: &'a Pool,
    number: u64,
}

impl Waiting<'_> {
    fn new(pool: &Pool, want: Want) -> Waiting<'_> {
        let mut waiters = pool.waiters();
        let number = waiters.next;
        waiters.next += 1;
        let since = Instant::now();
        waiters.waiting.insert(number, Waiter { since, want });
        Waiting { pool, number }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pool.waiters().waiting.remove(&self.number);
    }
}

/// What one origin has of each pool.
#[derive(Debug)]
pub(super) struct Origin {
    address: IpAddr,
    /// By kind.
    parts: [Arc<Semaphore>; 3],
}

impl Origin {
    pub(super) fn new(address: IpAddr, pools: &[Arc<Pool>; 3]) -> Arc<Origin> {
        let part = |pool: &Arc<Pool>| Arc::new(Semaphore::new(pool.per_origin as usize));
        Arc::new(Origin {
            address,
            parts: pools.each_ref().map(part),
        })
    }

    fn part(&self, kind: Kind) -> &Arc<Semaphore> {
        &self.parts[kind as usize]
    }
}

/// One connection's part of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    kind: Kind,
    pool: Arc<Pool>,
    origin: Arc<Origin>,
    own: Arc<Semaphore>,
    pub(crate) max: u64,
}

impl Share {
    pub(super) fn new(kind: Kind, pool: &Arc<Pool>, origin: &Arc<Origin>) -> Share {
        Share {
            kind,
            pool: pool.clone(),
            origin: origin.clone(),
            own: Arc::new(Semaphore::new(pool.per_connection as usize)),
            max: pool.per_connection,
        }
    }

    /// What the connection has of it.
    pub(crate) fn held(&self) -> u64 {
        held(self.max, &self.own)
    }

    /// Takes so many bytes, at most all that one connection may have, if nobody has to be waited for.
    pub(crate) fn try_take(&self, bytes: u64) -> Option<Held> {
        let count = self.count(bytes);
        let take = |from: &Arc<Semaphore>| from.clone().try_acquire_many_owned(count).ok();
        Some(Held {
            own: take(&self.own)?,
            part: take(self.origin.part(self.kind))?,
            all: take(&self.pool.bytes)?,
            origin: self.origin.clone(),
        })
    }

    /// Waits for so many bytes, at most all that one connection may have. First come, first served.
    pub(crate) async fn take(&self, bytes: u64) -> Held {
        let count = self.count(bytes);
        let own = self.own.clone().acquire_many_owned(count).await;
        let of = Some(self.origin.address);
        let part = self.acquire(self.origin.part(self.kind), count, of).await;
        let all = self.acquire(&self.pool.bytes, count, None).await;
        Held {
            own: own.expect("nobody closes it"),
            part,
            all,
            origin: self.origin.clone(),
        }
    }

    async fn acquire(
        &self,
        from: &Arc<Semaphore>,
        count: u32,
        of: Option<IpAddr>,
    ) -> OwnedSemaphorePermit {
        if let Ok(permit) = from.clone().try_acquire_many_owned(count) {
            return permit;
        }
        let bytes = count.into();
        let _waiting = Waiting::new(&self.pool, Want { bytes, of });
        let permit = from.clone().acquire_many_owned(count).await;
        permit.expect("nobody closes it")
    }

    fn count(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.min(self.max)).unwrap_or(u32::MAX)
    }
}

/// Bytes that were taken; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    own: OwnedSemaphorePermit,
    part: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
    /// For as long as it has anything, it is the same origin's.
    origin: Arc<Origin>,
}

impl Held {
    pub(crate) fn bytes(&self) -> u64 {
        self.all.num_permits() as u64
    }

    /// Parts with so many bytes, or with all there are.
    pub(crate) fn split(&mut self, bytes: u64) -> Held {
        let count = self.bytes().min(bytes) as usize;
        let part = |of: &mut OwnedSemaphorePermit| of.split(count).expect("no more than there are");
        Held {
            own: part(&mut self.own),
            part: part(&mut self.part),
            all: part(&mut self.all),
            origin: self.origin.clone(),
        }
    }

    /// Whether both are of one pool and connection.
    pub(crate) fn merges_with(&self, other: &Held) -> bool {
        Arc::ptr_eq(self.own.semaphore(), other.own.semaphore())
    }

    /// Takes more of the same pool in.
    pub(crate) fn merge(&mut self, more: Held) {
        self.own.merge(more.own);
        self.part.merge(more.part);
        self.all.merge(more.all);
    }

    /// Gives back what is above so many bytes.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let surplus = self.bytes().saturating_sub(bytes);
        drop(self.split(surplus));
    }
}
