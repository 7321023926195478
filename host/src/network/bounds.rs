//! How many bytes of requests and answers a server holds for those who have proved nothing.
//!
//! One budget, in three pools: small requests, large requests, answers. A request takes its share when its length is
//! known, before it is decoded; an answer before what it says is copied. Who finds a pool empty waits, and the transport
//! holds the other end back. Each connection has a bound of its own in each pool, so that a few cannot have it all. Must
//! never count for peers: who proved the cluster's secret is not held back by those who did not.

#![cfg_attr(
    madsim,
    allow(dead_code, reason = "nothing is counted in the simulator")
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a call takes beside its request's bytes, until it is answered.
pub(super) const CALL_BYTES: u64 = 1 << 10;

/// Requests up to here are small: they have a pool of their own, so that pulls and commits never wait for uploads.
pub(super) const SMALL_REQUEST_BYTES: u64 = 16 << 10;

/// Beside what a request's messages say: lengths and names on the wire.
const OVERHEAD_BYTES: u64 = 64 << 10;

/// How often a call may be given its own part of a pool by one connection.
const ANSWERS_PER_CONNECTION_MIN: u64 = 2;

/// How long an upload or an answer may stand still, and how long while others wait for its bytes.
const STALL: Duration = Duration::from_secs(20);
const STALL_WHILE_OTHERS_WAIT: Duration = Duration::from_secs(2);

/// What is bounded.
#[derive(Clone, Copy, Debug)]
pub struct BoundsOptions {
    /// Bytes of all requests and answers together. Raised where one of them would not fit.
    pub bytes_max: u64,
    /// Bytes of the largest request that is read to its end; a larger one is refused by its length.
    pub request_bytes_max: u64,
    /// Bytes of the largest answer.
    pub answer_bytes_max: u64,
}

/// The budget. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Bounds(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    small: Arc<Pool>,
    uploads: Arc<Pool>,
    answers: Arc<Pool>,
    per_connection: PerConnection,
    stall: [Duration; 2],
    counters: Arc<Counters>,
}

/// What one connection may have of each pool.
#[derive(Clone, Copy, Debug)]
struct PerConnection {
    small: u64,
    uploads: u64,
    answers: u64,
}

/// Why connections were closed, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicUsize,
    pub(super) requests_cut: AtomicU64,
    pub(super) answers_cut: AtomicU64,
    pub(super) gave_way: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// What is held, and what was done about those who hold too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoundsStatus {
    /// Bytes of requests that are arriving or not answered yet.
    pub request_bytes: u64,
    /// Most of them.
    pub request_bytes_max: u64,
    /// Bytes of answers that were not taken yet.
    pub answer_bytes: u64,
    /// Most of them.
    pub answer_bytes_max: u64,
    /// Connections open now.
    pub connections: u64,
    /// Connections closed because an upload stood still.
    pub requests_cut: u64,
    /// Connections closed because an answer was not read.
    pub answers_cut: u64,
    /// Connections closed because others needed their place.
    pub gave_way: u64,
    /// Connections that found no place.
    pub refused: u64,
}

impl Bounds {
    /// Bounds of one server.
    pub fn new(options: &BoundsOptions) -> Bounds {
        Bounds::with_stall(options, [STALL, STALL_WHILE_OTHERS_WAIT])
    }

    pub(super) fn with_stall(options: &BoundsOptions, stall: [Duration; 2]) -> Bounds {
        let eighth = options.bytes_max / 8;
        // A refusal names the code if the request is not much too large; else its length is enough to know.
        let upload = options.request_bytes_max / 2 * 3 + OVERHEAD_BYTES + CALL_BYTES;
        let answer = options.answer_bytes_max + OVERHEAD_BYTES;
        let answers = (3 * eighth).max(2 * ANSWERS_PER_CONNECTION_MIN * answer);
        let per_connection = PerConnection {
            small: (eighth / 4).max(SMALL_REQUEST_BYTES + CALL_BYTES),
            uploads: upload,
            answers: (answers / 16).max(ANSWERS_PER_CONNECTION_MIN * answer),
        };
        Bounds(Arc::new(Shared {
            small: Pool::new(eighth.max(4 * per_connection.small)),
            uploads: Pool::new((4 * eighth).max(2 * upload)),
            answers: Pool::new(answers),
            per_connection,
            stall,
            counters: Arc::default(),
        }))
    }

    /// What is held now.
    pub fn status(&self) -> BoundsStatus {
        let shared = &*self.0;
        let counters = &*shared.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BoundsStatus {
            request_bytes: shared.small.held() + shared.uploads.held(),
            request_bytes_max: shared.small.max + shared.uploads.max,
            answer_bytes: shared.answers.held(),
            answer_bytes_max: shared.answers.max,
            connections: counters.connections.load(Ordering::Relaxed) as u64,
            requests_cut: count(&counters.requests_cut),
            answers_cut: count(&counters.answers_cut),
            gave_way: count(&counters.gave_way),
            refused: count(&counters.refused),
        }
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// What a new connection may take.
    pub(super) fn shares(&self) -> Shares {
        let shared = &*self.0;
        let share = |pool: &Arc<Pool>, max| Share {
            pool: pool.clone(),
            own: Arc::new(Semaphore::new(max as usize)),
            max,
        };
        Shares {
            small: share(&shared.small, shared.per_connection.small),
            uploads: share(&shared.uploads, shared.per_connection.uploads),
            answers: share(&shared.answers, shared.per_connection.answers),
        }
    }

    /// How long uploads may stand still now, and answers.
    pub(super) fn patience(&self) -> (Duration, Duration) {
        let shared = &*self.0;
        let [alone, pressed] = shared.stall;
        let patience = |pool: &Pool| match pool.waiting.load(Ordering::Relaxed) {
            0 => alone,
            _ => pressed,
        };
        (patience(&shared.uploads), patience(&shared.answers))
    }
}

/// Bytes for all connections.
#[derive(Debug)]
struct Pool {
    bytes: Arc<Semaphore>,
    max: u64,
    /// Those who found too little left.
    waiting: AtomicUsize,
}

impl Pool {
    fn new(max: u64) -> Arc<Pool> {
        Arc::new(Pool {
            bytes: Arc::new(Semaphore::new(max as usize)),
            max,
            waiting: AtomicUsize::new(0),
        })
    }

    fn held(&self) -> u64 {
        self.max
            .saturating_sub(self.bytes.available_permits() as u64)
    }
}

/// The parts of one connection.
#[derive(Debug)]
pub(super) struct Shares {
    pub(super) small: Share,
    pub(super) uploads: Share,
    pub(super) answers: Share,
}

/// One connection's part of a pool.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pool: Arc<Pool>,
    own: Arc<Semaphore>,
    pub(super) max: u64,
}

impl Share {
    /// Waits for so many bytes, at most all that one connection may have. First come, first served: on the connection,
    /// then among all.
    pub(super) async fn take(&self, bytes: u64) -> Held {
        let count = u32::try_from(bytes.min(self.max)).unwrap_or(u32::MAX);
        let own = self.own.clone().acquire_many_owned(count).await;
        let all = match self.pool.bytes.clone().try_acquire_many_owned(count) {
            Ok(all) => Ok(all),
            Err(_) => {
                let _waiting = Waiting::new(&self.pool.waiting);
                self.pool.bytes.clone().acquire_many_owned(count).await
            }
        };
        Held {
            own: own.expect("nobody closes it"),
            all: all.expect("nobody closes it"),
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that were taken; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Held {
    pub(super) fn bytes(&self) -> u64 {
        self.all.num_permits() as u64
    }

    /// Parts with so many bytes, or with all there are.
    pub(super) fn split(&mut self, bytes: u64) -> Held {
        let count = self.bytes().min(bytes) as usize;
        let (own, all) = (self.own.split(count), self.all.split(count));
        Held {
            own: own.expect("no more than there are"),
            all: all.expect("no more than there are"),
        }
    }

    /// Whether both are of one pool and connection.
    pub(super) fn merges_with(&self, other: &Held) -> bool {
        Arc::ptr_eq(self.own.semaphore(), other.own.semaphore())
    }

    /// Takes more of the same pool in.
    pub(super) fn merge(&mut self, more: Held) {
        self.own.merge(more.own);
        self.all.merge(more.all);
    }

    /// Gives back what is above so many bytes.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let surplus = self.bytes().saturating_sub(bytes);
        drop(self.split(surplus));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn bounds() -> Bounds {
        Bounds::new(&BoundsOptions {
            bytes_max: 64 * MIB,
            request_bytes_max: 4 * MIB,
            answer_bytes_max: MIB,
        })
    }

    /// Catches a bound that is passed by several connections, or by one, and bytes that are not given back.
    #[test]
    fn neither_one_connection_nor_all_take_more_than_there_is() {
        let bounds = bounds();
        let mut connections = Vec::new();
        let mut held = Vec::new();
        for _ in 0..64 {
            let shares = bounds.shares();
            while let Some(one) = shares.answers.take(MIB).now_or_never() {
                held.push(one);
            }
            let own = shares.answers.max - shares.answers.own.available_permits() as u64;
            assert!(own <= shares.answers.max);
            connections.push(shares);
        }
        let status = bounds.status();
        assert!(status.answer_bytes <= status.answer_bytes_max);
        assert!(
            status.answer_bytes + MIB > status.answer_bytes_max,
            "{status:?}"
        );
        held.clear();
        assert_eq!(bounds.status().answer_bytes, 0);
        assert_eq!(bounds.status().request_bytes, 0);
    }

    /// Catches uploads that keep the pulls out.
    #[test]
    fn small_requests_do_not_wait_for_uploads() {
        let bounds = bounds();
        let hogs: Vec<Shares> = (0..64).map(|_| bounds.shares()).collect();
        let full = hogs
            .iter()
            .map(|hog| hog.uploads.take(hog.uploads.max).now_or_never());
        let held: Vec<Option<Held>> = full.collect();
        assert!(held.iter().any(Option::is_none), "there was room for all");
        assert!(
            bounds
                .shares()
                .small
                .take(CALL_BYTES)
                .now_or_never()
                .is_some()
        );
    }

    /// Catches bytes that are given back twice, or never, when an answer leaves in pieces.
    #[test]
    fn pieces_add_up() {
        let bounds = bounds();
        let shares = bounds.shares();
        let mut held = shares.answers.take(1_000).now_or_never().unwrap();
        let piece = held.split(300);
        held.shrink(500);
        assert_eq!(bounds.status().answer_bytes, 800);
        assert_eq!(held.split(900).bytes(), 500);
        assert_eq!(bounds.status().answer_bytes, 300);
        held.merge(piece);
        drop(held);
        assert_eq!(bounds.status().answer_bytes, 0);
    }

    /// Catches a deadline that is the same while others wait.
    #[test]
    fn patience_is_short_while_others_wait() {
        let bounds = bounds();
        assert_eq!(bounds.patience(), (STALL, STALL));
        let hogs: Vec<Shares> = (0..64).map(|_| bounds.shares()).collect();
        let mut takes: Vec<_> = (hogs.iter())
            .map(|hog| Box::pin(hog.uploads.take(hog.uploads.max)))
            .collect();
        let taken: Vec<_> = (takes.iter_mut()).map(|take| take.now_or_never()).collect();
        assert_eq!(bounds.patience(), (STALL_WHILE_OTHERS_WAIT, STALL));
        drop((takes, taken));
        assert_eq!(bounds.patience(), (STALL, STALL));
    }
}
