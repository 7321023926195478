//! How many bytes of requests and answers a server holds for those who have proved nothing.
//!
//! One budget, in three pools: small things, large requests, large answers. A call takes a little when it begins; a request
//! takes its share when its length is known, before it is decoded; an answer before what it says is copied. Who finds a pool
//! empty waits, and the transport holds the other end back. Each connection and each origin has a bound of its own in each
//! pool, so that a few cannot have it all. Must never count requests of peers: who proved the cluster's secret is not held
//! back by those who did not. What they ask for in others' names is answered out of the others' parts.

#![cfg_attr(
    madsim,
    allow(
        dead_code,
        unused_imports,
        reason = "nothing is counted in the simulator"
    )
)]

mod pool;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

pub(super) use self::pool::{Held, Kind, Share, Want};
use self::pool::{Origin, Pool};

/// What a call takes beside its request's bytes, until its answer was taken.
pub(super) const CALL_BYTES: u64 = 1 << 10;

/// Requests and answers up to here are small: they have a pool of their own, so that pulls and commits never wait for
/// uploads, and receipts never for messages that are not read.
pub(super) const SMALL_BYTES: u64 = 16 << 10;

/// What one call may leave unread in the transport, and what all calls of a connection that wait for room may: beyond that
/// they are refused at once. The connection's window is larger, or those that wait would block those that they wait for.
pub(super) const STREAM_WINDOW_BYTES: u32 = 256 << 10;
pub(super) const WAITING_WINDOW_BYTES: u32 = 2 * STREAM_WINDOW_BYTES;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = WAITING_WINDOW_BYTES + STREAM_WINDOW_BYTES;

/// Beside what a request's messages say: lengths and names on the wire.
const OVERHEAD_BYTES: u64 = 64 << 10;

/// Largest answers that fit into one connection's part at the same time, at least.
const ANSWERS_PER_CONNECTION_MIN: u64 = 2;

/// How long an upload or an answer may stand still, and how long while somebody has waited as long for its bytes.
const STALL: Duration = Duration::from_secs(20);
const STALL_WHILE_OTHERS_WAIT: Duration = Duration::from_secs(2);

/// Origins that are known before those that are gone are forgotten.
const ORIGINS_KEPT: usize = 64;

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
    /// By kind.
    pools: [Arc<Pool>; 3],
    /// Bytes of the largest answer, and what it says beside.
    answer: u64,
    origins: Mutex<BTreeMap<IpAddr, Weak<Origin>>>,
    patience: Patience,
    counters: Arc<Counters>,
}

/// How long an upload or an answer may stand still.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) alone: Duration,
    /// While somebody has waited for its bytes for as long.
    pub(super) pressed: Duration,
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
        let patience = Patience {
            alone: STALL,
            pressed: STALL_WHILE_OTHERS_WAIT,
        };
        Bounds::with_patience(options, patience)
    }

    pub(super) fn with_patience(options: &BoundsOptions, patience: Patience) -> Bounds {
        let eighth = options.bytes_max / 8;
        let small = (eighth / 4).max(2 * SMALL_BYTES);
        // A refusal names the code if the request is not much too large; else its length is enough to know.
        let upload = options.request_bytes_max / 2 * 3 + OVERHEAD_BYTES;
        let answer = options.answer_bytes_max + OVERHEAD_BYTES;
        let answers = (3 * eighth).max(2 * ANSWERS_PER_CONNECTION_MIN * answer);
        let answers_each = (answers / 16).max(ANSWERS_PER_CONNECTION_MIN * answer);
        Bounds(Arc::new(Shared {
            pools: [
                Pool::new(eighth.max(4 * small), small),
                Pool::new((4 * eighth).max(2 * upload), upload),
                Pool::new(answers, answers_each),
            ],
            answer,
            origins: Mutex::default(),
            patience,
            counters: Arc::default(),
        }))
    }

    /// What is held now.
    pub fn status(&self) -> BoundsStatus {
        let shared = &*self.0;
        let counters = &*shared.counters;
        let [small, uploads, answers] = &shared.pools;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BoundsStatus {
            request_bytes: small.held() + uploads.held(),
            request_bytes_max: small.max + uploads.max,
            answer_bytes: answers.held(),
            answer_bytes_max: answers.max,
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

    pub(super) fn patience(&self) -> Patience {
        self.0.patience
    }

    /// What a new connection from an address may take.
    pub(super) fn shares(&self, address: IpAddr) -> Shares {
        let shared = &*self.0;
        let origin = self.origin(address);
        Shares {
            parts: Kind::ALL.map(|kind| self.share(kind, &origin)),
            answer: shared.answer,
            waiting: Arc::new(Semaphore::new(WAITING_WINDOW_BYTES as usize)),
        }
    }

    /// What an answer may take that a peer asked for in the name of somebody at an address.
    pub(super) fn forwarded(&self, address: IpAddr) -> Share {
        self.share(Kind::Answers, &self.origin(address))
    }

    fn share(&self, kind: Kind, origin: &Arc<Origin>) -> Share {
        Share::new(kind, &self.0.pools[kind as usize], origin)
    }

    /// Who has waited too long for bytes of a pool.
    pub(super) fn wants(&self, kind: Kind, now: Instant) -> Vec<Want> {
        self.0.pools[kind as usize].wants(now, self.0.patience.pressed)
    }

    fn origin(&self, address: IpAddr) -> Arc<Origin> {
        let shared = &*self.0;
        let address = site(address);
        let mut origins = shared
            .origins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = origins.get(&address).and_then(Weak::upgrade) {
            return origin;
        }
        // Each time as many came as had been there: so that looking costs little.
        if origins.len() >= ORIGINS_KEPT && origins.len().is_power_of_two() {
            origins.retain(|_, origin| origin.strong_count() > 0);
        }
        let origin = Origin::new(address, &shared.pools);
        origins.insert(address, Arc::downgrade(&origin));
        origin
    }
}

/// Whom an address belongs to, as far as it says so: of IPv6 what one site has.
pub(super) fn site(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        },
    }
}

/// The parts of one connection.
#[derive(Debug)]
pub(super) struct Shares {
    /// By kind.
    parts: [Share; 3],
    /// Bytes of the largest answer.
    pub(super) answer: u64,
    /// What calls that wait for room may leave in the connection's window.
    pub(super) waiting: Arc<Semaphore>,
}

impl Shares {
    pub(super) fn of(&self, kind: Kind) -> &Share {
        &self.parts[kind as usize]
    }

    /// For a request of so many bytes.
    pub(super) fn for_request(&self, bytes: u64) -> &Share {
        match bytes <= SMALL_BYTES {
            true => self.of(Kind::Small),
            false => self.of(Kind::Uploads),
        }
    }

    /// For an answer of so many bytes.
    pub(super) fn for_answer(&self, bytes: u64) -> &Share {
        match bytes <= SMALL_BYTES {
            true => self.of(Kind::Small),
            false => self.of(Kind::Answers),
        }
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

    /// Connections from as many addresses.
    fn shares(bounds: &Bounds, hosts: u8) -> Vec<Shares> {
        let one = |host| bounds.shares([10, 0, 0, host].into());
        (0..hosts).map(one).collect()
    }

    /// Catches a bound that is passed by several connections, or by one, and bytes that are not given back.
    #[test]
    fn neither_one_connection_nor_all_take_more_than_there_is() {
        let bounds = bounds();
        let mut held = Vec::new();
        for shares in shares(&bounds, 64) {
            while let Some(one) = shares.of(Kind::Answers).take(MIB).now_or_never() {
                held.push(one);
            }
            assert!(shares.of(Kind::Answers).held() <= shares.of(Kind::Answers).max);
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

    /// Catches one address that has all, with many connections, and one whose part begins anew while it still has bytes.
    #[test]
    fn an_origin_has_a_part_of_each_pool() {
        let bounds = bounds();
        let hog = [10, 0, 0, 1].into();
        let mut held: Vec<Held> = Vec::new();
        for _ in 0..64 {
            let shares = bounds.shares(hog);
            held.extend(std::iter::from_fn(|| {
                shares.of(Kind::Answers).try_take(MIB)
            }));
            held.extend(std::iter::from_fn(|| {
                shares.of(Kind::Uploads).try_take(MIB)
            }));
            held.extend(std::iter::from_fn(|| {
                shares.of(Kind::Small).try_take(CALL_BYTES)
            }));
        }
        let status = bounds.status();
        assert!(
            4 * status.answer_bytes <= status.answer_bytes_max,
            "{status:?}"
        );
        assert!(
            4 * status.request_bytes <= status.request_bytes_max,
            "{status:?}"
        );
        assert!(bounds.forwarded(hog).try_take(MIB).is_none());
        let other = bounds.shares([10, 0, 0, 2].into());
        for kind in Kind::ALL {
            assert!(other.of(kind).try_take(CALL_BYTES).is_some(), "{kind:?}");
        }
        drop(held);
        assert!(bounds.forwarded(hog).try_take(MIB).is_some());
    }

    /// Catches uploads that keep the pulls out.
    #[test]
    fn small_requests_do_not_wait_for_uploads() {
        let bounds = bounds();
        let hogs = shares(&bounds, 64);
        let full = hogs
            .iter()
            .map(|hog| hog.of(Kind::Uploads).try_take(4 * MIB));
        let held: Vec<Option<Held>> = full.collect();
        assert!(held.iter().any(Option::is_none), "there was room for all");
        assert!(hogs[63].of(Kind::Small).try_take(CALL_BYTES).is_some());
    }

    /// Catches bytes that are given back twice, or never, when an answer leaves in pieces.
    #[test]
    fn pieces_add_up() {
        let bounds = bounds();
        let shares = shares(&bounds, 1);
        let mut held = shares[0]
            .of(Kind::Answers)
            .take(1_000)
            .now_or_never()
            .unwrap();
        let piece = held.split(300);
        held.shrink(500);
        assert_eq!(bounds.status().answer_bytes, 800);
        assert_eq!(held.split(900).bytes(), 500);
        assert_eq!(bounds.status().answer_bytes, 300);
        held.merge(piece);
        drop(held);
        assert_eq!(bounds.status().answer_bytes, 0);
    }

    /// Catches a first waiter at whose word everybody is cut, one that is forgotten, and one whose own origin has too much
    /// and for whom others give way.
    #[tokio::test]
    async fn whoever_has_waited_long_is_named_first_of_all_and_of_each_origin() {
        let bounds = bounds();
        let hogs = shares(&bounds, 64);
        let wants = |kind, later| bounds.wants(kind, Instant::now() + later);
        let long = STALL_WHILE_OTHERS_WAIT;
        let second = bounds.shares([10, 0, 0, 0].into());
        let max = second.of(Kind::Uploads).max;
        let mut takes = vec![
            hogs[0].of(Kind::Uploads).take(max).boxed(),
            second.of(Kind::Uploads).take(max).boxed(),
        ];
        takes.extend(
            hogs[1..]
                .iter()
                .map(|hog| hog.of(Kind::Uploads).take(max).boxed()),
        );
        let taken: Vec<_> = (takes.iter_mut()).map(|take| take.now_or_never()).collect();
        assert!(taken[0].is_some() && taken[1].is_none());
        assert_eq!(wants(Kind::Uploads, Duration::ZERO), []);
        let want = |of| Want { bytes: max, of };
        let expected = [want(None), want(Some([10, 0, 0, 0].into()))];
        assert_eq!(wants(Kind::Uploads, long), expected);
        assert_eq!(wants(Kind::Small, long), []);
        drop((takes, taken));
        assert_eq!(wants(Kind::Uploads, long), []);
    }

    /// Catches one site that counts as many.
    #[test]
    fn an_origin_is_a_site() {
        let of = |text: &str| site(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
