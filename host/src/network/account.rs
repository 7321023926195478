//! What a server knows of one connection: whose it is, what it may take, which calls run on it, and who owes whom bytes.
//!
//! Whoever sends no more of a request that it began, or takes no more of its answer, holds bytes that others need. A
//! connection on which that lasts is cut: HTTP/2 gives no other way to be rid of an answer that nobody reads.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Instant;

use super::bounds::{Bounds, CALL_BYTES, Held, Kind, Patience, Share, Shares, site};

/// Whoever moves this part of what is owed is not standing still, nor who moves so many bytes.
const PROGRESS_PARTS: u64 = 8;
const PROGRESS_BYTES: u64 = 64 << 10;

/// One connection's account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) peer: SocketAddr,
    /// None where nothing is counted.
    shares: Option<Shares>,
    bounds: Option<Bounds>,
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
    /// Calls that wait for room, or since when none does.
    waiting: usize,
    waited_until: Option<Instant>,
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
            shares: bounds.map(|bounds| bounds.shares(peer.ip())),
            bounds: bounds.cloned(),
            is_proven: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            calls: Mutex::new(Calls {
                running: BTreeMap::new(),
                next: 0,
                idle_since: Instant::now(),
                waiting: 0,
                waited_until: None,
            }),
        }
    }

    /// Whom it belongs to, as far as an address says so: of IPv6 what one site has.
    pub(super) fn origin(&self) -> IpAddr {
        site(self.peer.ip())
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

    /// What a peer's call may take that is made in the name of somebody at an address; none where nothing is counted.
    pub(super) fn forwarded(&self, address: IpAddr) -> Option<Share> {
        let bounds = self.bounds.as_ref().filter(|_| self.is_proven())?;
        Some(bounds.forwarded(address))
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

    /// A call begins; it runs until all that holds it is dropped. None if there is no room for it.
    pub(super) fn begin(self: &Arc<Account>) -> Option<Arc<Call>> {
        let held = match self.shares() {
            Some(shares) => Some(shares.of(Kind::Small).try_take(CALL_BYTES)?),
            None => None,
        };
        let mut calls = self.calls();
        let id = calls.next;
        calls.next += 1;
        let call = Arc::new(Call {
            account: self.clone(),
            id,
            flows: Mutex::default(),
            _held: held,
        });
        calls.running.insert(id, Arc::downgrade(&call));
        Some(call)
    }

    /// A call waits for room, for as long as the answer lives.
    pub(super) fn wait(self: &Arc<Account>) -> Waits {
        self.calls().waiting += 1;
        Waits(self.clone())
    }

    /// What has stood still for longer than anything may.
    pub(super) fn stalled(&self, now: Instant, patience: Patience) -> Option<Stall> {
        let stall = self.longest(now, patience, |_| true)?;
        (stall.lasts >= patience.alone).then_some(stall)
    }

    /// What has stood still for too long while others wait for bytes of this kind, and how many of them it has.
    pub(super) fn stalled_with(
        &self,
        kind: Kind,
        now: Instant,
        patience: Patience,
    ) -> Option<(Stall, u64)> {
        let held = self.shares()?.of(kind).held();
        let stall = self.longest(now, patience, |is_upload| match kind {
            Kind::Small => true,
            Kind::Uploads => is_upload,
            Kind::Answers => !is_upload,
        })?;
        (held > 0 && stall.lasts >= patience.pressed).then_some((stall, held))
    }

    fn longest(
        &self,
        now: Instant,
        patience: Patience,
        counts: impl Fn(bool) -> bool,
    ) -> Option<Stall> {
        let (running, excused_until) = {
            let calls = self.calls();
            let running = calls.running.values().filter_map(Weak::upgrade);
            let excused_until = match calls.waiting {
                0 => calls.waited_until,
                _ => Some(now),
            };
            (running.collect::<Vec<_>>(), excused_until)
        };
        let stalls = running.iter().flat_map(|call| {
            let flows = call.flows();
            // Whoever waits for us may fill what the others' bytes come through. Not for ever, or one that waits in vain
            // would protect all that stand still.
            let excuse = excused_until.map(|until| (until, patience.alone));
            [(true, &flows.upload, excuse), (false, &flows.answer, None)].map(
                |(is_upload, flow, excuse)| {
                    let lasts = flow.stands_still(now, excuse)?;
                    Some(Stall {
                        is_upload,
                        lasts,
                        bytes: flow.owed,
                    })
                },
            )
        });
        let counted = stalls.flatten().filter(|stall| counts(stall.is_upload));
        counted.max_by_key(|stall| stall.lasts)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Account::wait`].
#[derive(Debug)]
pub(super) struct Waits(Arc<Account>);

impl Drop for Waits {
    fn drop(&mut self) {
        let mut calls = self.0.calls();
        calls.waiting -= 1;
        calls.waited_until = Some(Instant::now());
    }
}

/// One call: from its head's arrival until its answer was taken.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) account: Arc<Account>,
    id: u64,
    flows: Mutex<Flows>,
    /// What a call takes, however small.
    _held: Option<Held>,
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

    /// The messages that came were taken over. After its answer began nothing of them is kept.
    pub(super) fn handed_on(&self) {
        let mut flows = self.flows();
        if flows.is_answered {
            flows.held = None;
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
        let is_part = self.moved * PROGRESS_PARTS >= self.whole || self.moved >= PROGRESS_BYTES;
        if is_part || is_last {
            self.moved = 0;
            self.since = Some(Instant::now());
        }
    }

    /// For how long nothing moved. What it is excused for does not count, up to so much.
    fn stands_still(&self, now: Instant, excuse: Option<(Instant, Duration)>) -> Option<Duration> {
        let since = self.since.filter(|_| self.owed > 0)?;
        let excused = excuse.map(|(until, most)| until.min(since + most));
        Some(now.saturating_duration_since(excused.unwrap_or(since).max(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        alone: Duration::from_secs(4),
        pressed: Duration::from_secs(1),
    };

    fn account() -> Arc<Account> {
        Arc::new(Account::new(([127, 0, 0, 1], 1).into(), None))
    }

    /// Catches long polls that count as standing still, and uploads that do not.
    #[tokio::test]
    async fn who_owes_stands_still_and_who_waits_does_not() {
        let account = account();
        let later = || Instant::now() + Duration::from_secs(5);
        let parked = account.begin().unwrap();
        parked.expect(0);
        parked.arrived(0);
        assert!(
            account
                .stalled(later(), PATIENCE)
                .is_some_and(|stall| stall.is_upload)
        );
        parked.expect_nothing();
        assert_eq!(account.stalled(later(), PATIENCE), None);
        let upload = account.begin().unwrap();
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
        let (one, other) = (account.begin().unwrap(), account.begin().unwrap());
        drop(one);
        assert_eq!(account.idle_since(), None);
        drop(other);
        assert!(account.idle_since().is_some());
    }

    /// Catches a slow line that is taken for a trickle.
    #[tokio::test]
    async fn so_many_bytes_are_progress_however_much_is_owed() {
        let mut flow = Flow::default();
        flow.set(24 << 20);
        let began = flow.since;
        flow.moved(PROGRESS_BYTES - 1);
        assert_eq!(flow.since, began);
        flow.moved(1);
        assert_ne!(flow.since, began);
    }

    /// Catches a client that is cut because another call of its own waits for us and fills its window; and one that is never
    /// cut because it always has one that waits.
    #[tokio::test]
    async fn while_a_call_waits_for_room_the_uploads_beside_it_are_excused_for_a_while() {
        let account = account();
        let upload = account.begin().unwrap();
        upload.expect(8_000);
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert!(account.stalled(at(5), PATIENCE).is_some());
        let slept = Duration::from_millis(300);
        tokio::time::sleep(slept).await;
        let waits = account.wait();
        assert_eq!(account.stalled(at(5), PATIENCE), None);
        assert!(account.stalled(at(9), PATIENCE).is_some());
        drop(waits);
        let stall = account.longest(Instant::now(), PATIENCE, |_| true);
        assert!(stall.unwrap().lasts < slept, "its clock did not begin anew");
        assert!(account.stalled(at(5), PATIENCE).is_some());
        // Answers are not held up by it.
        upload.answered(800);
        upload.expect_nothing();
        let _waits = account.wait();
        assert!(account.stalled(at(5), PATIENCE).is_some());
    }

    /// Catches calls that cost nothing, as many as somebody likes to begin.
    #[tokio::test]
    async fn a_call_takes_a_little_until_its_end() {
        let bounds = Bounds::new(&crate::network::BoundsOptions {
            bytes_max: 1 << 20,
            request_bytes_max: 1 << 20,
            answer_bytes_max: 1 << 20,
        });
        let peer = ([127, 0, 0, 1], 1).into();
        let account = Arc::new(Account::new(peer, Some(&bounds)));
        let calls: Vec<_> = std::iter::from_fn(|| account.begin()).take(1_000).collect();
        assert!(calls.len() < 1_000, "there was room for all");
        assert!(calls.len() as u64 * CALL_BYTES <= bounds.status().request_bytes);
        drop(calls);
        assert!(account.begin().is_some());
        account.set_proven(true);
        let peers: Vec<_> = std::iter::from_fn(|| account.begin()).take(1_000).collect();
        assert_eq!(peers.len(), 1_000);
    }

    /// Catches a stream of requests that keeps what its last message took for as long as it is open.
    #[tokio::test]
    async fn what_was_handed_on_after_the_answer_began_is_given_back() {
        let bounds = Bounds::new(&crate::network::BoundsOptions {
            bytes_max: 1 << 20,
            request_bytes_max: 1 << 20,
            answer_bytes_max: 1 << 20,
        });
        let peer = ([127, 0, 0, 1], 1).into();
        let account = Arc::new(Account::new(peer, Some(&bounds)));
        let call = account.begin().unwrap();
        let take = || {
            account
                .shares()
                .unwrap()
                .of(Kind::Small)
                .try_take(5_000)
                .unwrap()
        };
        call.hold(take());
        call.handed_on();
        assert_eq!(call.held_bytes(), 5_000, "it is not answered yet");
        call.answered(0);
        call.hold(take());
        call.handed_on();
        assert_eq!(bounds.status().request_bytes, CALL_BYTES);
    }
}
