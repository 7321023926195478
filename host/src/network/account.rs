//! What a server knows of one connection: whose it is, what it may take, which calls run on it, and who owes whom bytes.
//!
//! Whoever sends no more of a request that it began, or takes no more of its answer, holds bytes that others need. A
//! connection on which that lasts is cut: HTTP/2 gives no other way to be rid of an answer that nobody reads.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Instant;

use super::bounds::{Bounds, Held, Shares};

/// Whoever moves this part of what is owed is not standing still.
const PROGRESS_PARTS: u64 = 8;

/// One connection's account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) peer: SocketAddr,
    /// None where nothing is counted.
    shares: Option<Shares>,
    is_proven: AtomicBool,
    is_cut: AtomicBool,
    /// Whoever reads and writes.
    waker: AtomicWaker,
    calls: Mutex<Calls>,
}

#[derive(Debug)]
struct Calls {
    running: BTreeMap<u64, Weak<Call>>,
    next: u64,
    idle_since: Instant,
}

/// What stands still on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stall {
    pub(super) is_upload: bool,
    pub(super) lasts: Duration,
    pub(super) bytes: u64,
}

impl Account {
    pub(super) fn new(peer: SocketAddr, bounds: Option<&Bounds>) -> Account {
        Account {
            peer,
            shares: bounds.map(Bounds::shares),
            is_proven: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            calls: Mutex::new(Calls {
                running: BTreeMap::new(),
                next: 0,
                idle_since: Instant::now(),
            }),
        }
    }

    /// Whom it belongs to, as far as an address says so: of IPv6 what one site has.
    pub(super) fn origin(&self) -> IpAddr {
        origin(self.peer.ip())
    }

    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Acquire)
    }

    pub(super) fn set_proven(&self, is_proven: bool) {
        self.is_proven.store(is_proven, Ordering::Release);
    }

    /// What it may take; none where nothing is counted: for peers.
    pub(super) fn shares(&self) -> Option<&Shares> {
        self.shares.as_ref().filter(|_| !self.is_proven())
    }

    /// Ends the connection, whatever its peer does.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// Whether it is cut; if not, the caller is woken when it is.
    pub(super) fn poll_cut(&self, context: &std::task::Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.is_cut()
    }

    /// Since when no call has run; none while one does.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let calls = self.calls();
        calls.running.is_empty().then_some(calls.idle_since)
    }

    /// A call begins; it runs until all that holds it is dropped.
    pub(super) fn begin(self: &Arc<Account>) -> Arc<Call> {
        let mut calls = self.calls();
        let id = calls.next;
        calls.next += 1;
        let call = Arc::new(Call {
            account: self.clone(),
            id,
            flows: Mutex::default(),
        });
        calls.running.insert(id, Arc::downgrade(&call));
        call
    }

    /// What has stood still for longer than it may.
    pub(super) fn stalled(&self, now: Instant, patience: (Duration, Duration)) -> Option<Stall> {
        let running: Vec<Arc<Call>> = {
            let calls = self.calls();
            calls.running.values().filter_map(Weak::upgrade).collect()
        };
        running.iter().find_map(|call| {
            let flows = call.flows();
            let kinds = [
                (true, &flows.upload, patience.0),
                (false, &flows.answer, patience.1),
            ];
            kinds.into_iter().find_map(|(is_upload, flow, patience)| {
                let lasts = flow.stands_still(now)?;
                (lasts >= patience).then_some(Stall {
                    is_upload,
                    lasts,
                    bytes: flow.owed,
                })
            })
        })
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn origin(address: IpAddr) -> IpAddr {
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

/// One call: from its head's arrival until its answer was taken.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) account: Arc<Account>,
    id: u64,
    flows: Mutex<Flows>,
}

#[derive(Debug, Default)]
struct Flows {
    /// What the peer owes of its request.
    upload: Flow,
    /// What the peer has to take of its answer.
    answer: Flow,
    /// What the request takes.
    held: Option<Held>,
    /// When the first message of the request got its bytes.
    began: Option<Instant>,
    is_answered: bool,
}

impl Call {
    /// The peer owes so much of its request, and the end of it unless the answer has begun.
    pub(super) fn expect(&self, bytes: u64) {
        let mut flows = self.flows();
        let end = u64::from(!flows.is_answered);
        flows.upload.set(bytes + end);
        // One more message is no progress: whoever has not been answered is to end the request.
        if end > 0 && flows.began.is_some() {
            flows.upload.since = flows.began;
        }
    }

    /// The peer owes nothing: its request has ended, or waits for us.
    pub(super) fn expect_nothing(&self) {
        self.flows().upload.set(0);
    }

    /// So much of the request arrived.
    pub(super) fn arrived(&self, bytes: u64) {
        self.flows().upload.moved(bytes);
    }

    /// The request takes these bytes until it is answered. One that goes on after that gives back what it had before.
    pub(super) fn hold(&self, more: Held) {
        let mut flows = self.flows();
        let is_answered = flows.is_answered;
        flows.began.get_or_insert_with(Instant::now);
        match &mut flows.held {
            Some(held) if !is_answered && held.merges_with(&more) => held.merge(more),
            held => *held = Some(more),
        }
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.flows().held.as_ref().map_or(0, Held::bytes)
    }

    /// The answer begins, so the request was read. The peer has to take so much of the answer.
    pub(super) fn answered(&self, bytes: u64) {
        let mut flows = self.flows();
        flows.is_answered = true;
        flows.held = None;
        if flows.upload.owed <= 1 {
            flows.upload.set(0);
        }
        flows.answer.more(bytes);
    }

    /// The answer is longer than was said.
    pub(super) fn leaves(&self, bytes: u64) {
        self.flows().answer.more(bytes);
    }

    /// So much of the answer is gone.
    pub(super) fn left(&self, bytes: u64) {
        self.flows().answer.moved(bytes);
    }

    fn flows(&self) -> MutexGuard<'_, Flows> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut calls = self.account.calls();
        calls.running.remove(&self.id);
        if calls.running.is_empty() {
            calls.idle_since = Instant::now();
        }
    }
}

/// Bytes that are to move, and when they last did.
#[derive(Debug, Default)]
struct Flow {
    owed: u64,
    /// Most that was owed since nothing was.
    whole: u64,
    /// What moved since then.
    moved: u64,
    since: Option<Instant>,
}

impl Flow {
    fn set(&mut self, bytes: u64) {
        *self = Flow::default();
        self.more(bytes);
    }

    fn more(&mut self, bytes: u64) {
        if self.owed == 0 {
            *self = Flow::default();
            self.since = Some(Instant::now());
        }
        self.owed += bytes;
        self.whole = self.whole.max(self.owed);
    }

    /// A few bytes now and then are no progress: so a budget could be held for ever.
    fn moved(&mut self, bytes: u64) {
        let before = self.owed;
        self.owed = self.owed.saturating_sub(bytes);
        self.moved += bytes;
        let is_last = before > 1 && self.owed <= 1;
        if self.moved * PROGRESS_PARTS >= self.whole || is_last {
            self.moved = 0;
            self.since = Some(Instant::now());
        }
    }

    fn stands_still(&self, now: Instant) -> Option<Duration> {
        let since = self.since.filter(|_| self.owed > 0)?;
        Some(now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

    fn account() -> Arc<Account> {
        Arc::new(Account::new(([127, 0, 0, 1], 1).into(), None))
    }

    /// Catches long polls that count as standing still, and uploads that do not.
    #[tokio::test]
    async fn who_owes_stands_still_and_who_waits_does_not() {
        let account = account();
        let later = || Instant::now() + Duration::from_secs(5);
        let parked = account.begin();
        parked.expect(0);
        parked.arrived(0);
        assert!(
            account
                .stalled(later(), PATIENCE)
                .is_some_and(|stall| stall.is_upload)
        );
        parked.expect_nothing();
        assert_eq!(account.stalled(later(), PATIENCE), None);
        let upload = account.begin();
        upload.expect(800);
        assert!(
            account
                .stalled(later(), PATIENCE)
                .is_some_and(|stall| stall.is_upload)
        );
        upload.expect_nothing();
        upload.answered(800);
        assert!(
            account
                .stalled(later(), PATIENCE)
                .is_some_and(|stall| !stall.is_upload)
        );
        upload.left(800);
        assert_eq!(account.stalled(later(), PATIENCE), None);
    }

    /// Catches a byte now and then that passes for progress.
    #[tokio::test]
    async fn a_trickle_is_no_progress() {
        let mut flow = Flow::default();
        flow.set(8_000);
        let began = flow.since;
        flow.moved(999);
        assert_eq!(flow.since, began);
        flow.moved(1);
        assert_ne!(flow.since, began);
    }

    /// Catches connections with a call that are taken for idle, and those without that are not.
    #[tokio::test]
    async fn idle_is_where_no_call_runs() {
        let account = account();
        assert!(account.idle_since().is_some());
        let (one, other) = (account.begin(), account.begin());
        drop(one);
        assert_eq!(account.idle_since(), None);
        drop(other);
        assert!(account.idle_since().is_some());
    }

    /// Catches one site that counts as many.
    #[test]
    fn an_origin_is_a_site() {
        let of = |text: &str| origin(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
