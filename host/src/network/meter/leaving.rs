//! An answer's body, whose bytes count until the transport has let go of them.
//!
//! It leaves in slices, so that it shows whether a slow reader reads. Must never wait for bytes while it has some that do not
//! leave: two that do would wait for each other.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;

use crate::network::account::Call;
use crate::network::bounds::{Held, Kind, Share};

/// What is handed to the transport at once.
const SLICE_BYTES: usize = 32 << 10;

/// Longest wait for room; long enough that those who stand still have been cut off.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(30);

/// The body.
pub(super) struct Leaving {
    body: Body,
    call: Arc<Call>,
    bytes_from: BytesFrom,
    /// What was taken, and has not left.
    held: Option<Held>,
    room: Option<BoxFuture<'static, Option<Held>>>,
    /// What came, and has not left.
    rest: Bytes,
    has_failed: bool,
}

/// Where the bytes for an answer come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BytesFrom {
    /// They were taken before it was made. Headers of messages are more than that; they are few bytes.
    Maker,
    /// They are taken when a part is there.
    Part,
    /// They are taken before a part comes into being.
    Demand,
    /// Nothing is counted.
    Nowhere,
}

type Polled = Poll<Option<Result<Frame<Bytes>, Status>>>;

impl Leaving {
    pub(super) fn new(
        body: Body,
        call: Arc<Call>,
        held: Option<Held>,
        is_on_demand: bool,
    ) -> Leaving {
        let bytes_from = match (&held, call.account.shares()) {
            (Some(_), _) => BytesFrom::Maker,
            (None, None) => BytesFrom::Nowhere,
            (None, Some(_)) if is_on_demand => BytesFrom::Demand,
            (None, Some(_)) => BytesFrom::Part,
        };
        call.answered(held.as_ref().map_or(0, Held::bytes));
        Leaving {
            body,
            call,
            bytes_from,
            held,
            room: None,
            rest: Bytes::new(),
            has_failed: false,
        }
    }

    /// Takes bytes for what comes or came.
    fn take(&mut self, share: &Share, bytes: u64) {
        self.held = share.try_take(bytes);
        if self.held.is_none() {
            let share = share.clone();
            let room = async move {
                let taken = tokio::time::timeout(ROOM_WAIT_MAX, share.take(bytes)).await;
                taken.ok()
            };
            self.room = Some(room.boxed());
        }
    }

    /// Waits for what was asked for; false if there was no room in time.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if let Some(room) = &mut self.room {
            self.held = ready!(room.as_mut().poll(context));
            self.room = None;
            return Poll::Ready(self.held.is_some());
        }
        Poll::Ready(true)
    }

    /// The next part; what it takes was asked for.
    fn poll_part(&mut self, context: &mut Context<'_>) -> Polled {
        if self.bytes_from == BytesFrom::Demand && self.held.is_none() {
            if self.room.is_none()
                && let Some(shares) = self.call.account.shares()
            {
                let (share, most) = (shares.of(Kind::Answers).clone(), shares.answer);
                self.take(&share, most);
            }
            if !ready!(self.poll_room(context)) {
                return self.fail();
            }
        }
        let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(context) else {
            // Nothing is there, perhaps for long.
            if self.bytes_from == BytesFrom::Demand {
                self.held = None;
            }
            return Poll::Pending;
        };
        let frame = match polled {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        match frame.into_data() {
            Ok(bytes) => {
                self.came(bytes);
                Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
            }
            Err(trailers) => Poll::Ready(Some(Ok(trailers))),
        }
    }

    fn came(&mut self, bytes: Bytes) {
        let count = bytes.len() as u64;
        self.rest = bytes;
        match self.bytes_from {
            BytesFrom::Maker | BytesFrom::Nowhere => return,
            _ if count == 0 => {
                self.held = None;
                return;
            }
            BytesFrom::Demand => {
                if let Some(held) = &mut self.held {
                    held.shrink(count);
                }
            }
            BytesFrom::Part => {
                if let Some(shares) = self.call.account.shares() {
                    let share = shares.for_answer(count).clone();
                    self.take(&share, count);
                }
            }
        }
        self.call.leaves(count);
    }

    /// A slice that is counted until it is dropped.
    fn slice(&mut self) -> Bytes {
        if self.bytes_from == BytesFrom::Nowhere {
            return std::mem::take(&mut self.rest);
        }
        let length = self.rest.len().min(SLICE_BYTES);
        let bytes = self.rest.split_to(length);
        let count = bytes.len() as u64;
        let held = self.held.as_mut().map(|held| held.split(count));
        if self.bytes_from == BytesFrom::Maker {
            let more = count - held.as_ref().map_or(0, Held::bytes);
            self.call.leaves(more);
        } else if self.rest.is_empty() {
            self.held = None;
        }
        Bytes::from_owner(Piece {
            bytes,
            call: self.call.clone(),
            _held: held,
        })
    }

    /// Ends the answer, of which a part is missing. What was asked for may have been done.
    fn fail(&mut self) -> Polled {
        self.has_failed = true;
        let status = Status::deadline_exceeded("other answers were not read in time");
        let mut trailers = HeaderMap::new();
        let added = status.add_header(&mut trailers);
        Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        if self.has_failed {
            return Poll::Ready(None);
        }
        while self.rest.is_empty() {
            let polled = ready!(self.poll_part(context));
            match polled {
                Some(Ok(frame)) if frame.is_data() => {}
                other => return Poll::Ready(other),
            }
        }
        if !ready!(self.poll_room(context)) {
            return self.fail();
        }
        Poll::Ready(Some(Ok(Frame::data(self.slice()))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_failed || (self.rest.is_empty() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest.is_empty() {
            true => self.body.size_hint(),
            false => SizeHint::default(),
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let left = match self.bytes_from {
            BytesFrom::Maker => self.held.as_ref().map_or(0, Held::bytes),
            BytesFrom::Part | BytesFrom::Demand => self.rest.len() as u64,
            BytesFrom::Nowhere => 0,
        };
        self.call.left(left);
    }
}

/// Bytes on their way.
struct Piece {
    bytes: Bytes,
    call: Arc<Call>,
    _held: Option<Held>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.call.left(self.bytes.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;
    use crate::network::account::Account;
    use crate::network::bounds::{Bounds, CALL_BYTES, Patience, SMALL_BYTES};

    const MIB: usize = 1 << 20;
    const PATIENCE: Patience = Patience {
        alone: Duration::from_secs(4),
        pressed: Duration::from_secs(1),
    };

    /// Yields its parts; where there is none, nothing is there for now.
    struct Parts {
        parts: VecDeque<Option<Bytes>>,
        polled: Arc<AtomicUsize>,
    }

    impl http_body::Body for Parts {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Polled {
            self.polled.fetch_add(1, Ordering::SeqCst);
            match self.parts.pop_front() {
                Some(Some(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(None) => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    struct Server {
        bounds: Bounds,
        account: Arc<Account>,
        call: Arc<Call>,
        polled: Arc<AtomicUsize>,
    }

    impl Server {
        fn new() -> Server {
            let bounds = Bounds::new(&crate::network::BoundsOptions {
                bytes_max: 64 << 20,
                request_bytes_max: 4 << 20,
                answer_bytes_max: 4 << 20,
            });
            let account = Account::new(([10, 0, 0, 1], 1).into(), Some(&bounds));
            let account = Arc::new(account);
            let call = account.begin().unwrap();
            Server {
                bounds,
                account,
                call,
                polled: Arc::default(),
            }
        }

        fn leaving(&self, parts: &[Option<usize>], held: Option<Held>, on_demand: bool) -> Leaving {
            let part = |length: &Option<usize>| length.map(|length| Bytes::from(vec![7; length]));
            let parts = Parts {
                parts: parts.iter().map(part).collect(),
                polled: self.polled.clone(),
            };
            Leaving::new(Body::new(parts), self.call.clone(), held, on_demand)
        }

        /// Takes all that the connection may have for answers.
        fn fill(&self) -> Vec<Held> {
            let share = self.account.shares().unwrap().of(Kind::Answers);
            std::iter::from_fn(|| share.try_take(SMALL_BYTES)).collect()
        }

        fn answer_bytes(&self) -> u64 {
            self.bounds.status().answer_bytes
        }
    }

    fn poll(leaving: &mut Leaving) -> Poll<Option<Bytes>> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let polled = Pin::new(leaving).poll_frame(&mut context);
        polled.map(|frame| frame.map(|frame| frame.unwrap().into_data().unwrap()))
    }

    fn slice(leaving: &mut Leaving) -> Bytes {
        match poll(leaving) {
            Poll::Ready(Some(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    /// Catches a slow reader who is taken for one that does not read, because a message counts only when all of it is gone.
    #[tokio::test]
    async fn a_large_message_leaves_in_slices_that_are_progress() {
        let server = Server::new();
        let share = server.account.shares().unwrap().of(Kind::Answers).clone();
        let held = share.try_take(4 * MIB as u64);
        let mut leaving = server.leaving(&[Some(4 * MIB)], held, false);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut left = 0;
        while left < 2 * SLICE_BYTES {
            let slice = slice(&mut leaving);
            assert!(slice.len() <= SLICE_BYTES);
            left += slice.len();
            assert!(server.answer_bytes() <= (4 * MIB - left + slice.len()) as u64);
        }
        let soon = Instant::now() + PATIENCE.alone - Duration::from_millis(200);
        assert_eq!(server.account.stalled(soon, PATIENCE), None);
        let late = soon + Duration::from_millis(300);
        assert!(server.account.stalled(late, PATIENCE).is_some());
        drop(leaving);
        assert_eq!(server.answer_bytes(), 0);
        assert_eq!(server.account.stalled(late, PATIENCE), None);
    }

    /// Catches answers that are not counted because nobody took bytes for them, and small ones that wait for large ones.
    #[tokio::test]
    async fn what_nobody_took_bytes_for_takes_them_before_it_leaves() {
        let server = Server::new();
        let full = server.fill();
        let mut small = server.leaving(&[Some(1_000)], None, false);
        let left = slice(&mut small);
        let held = CALL_BYTES + 1_000;
        assert_eq!(server.bounds.status().request_bytes, held);
        drop(left);
        assert_eq!(server.bounds.status().request_bytes, CALL_BYTES);
        let mut large = server.leaving(&[Some(MIB)], None, false);
        assert!(poll(&mut large).is_pending());
        drop(full);
        let left = slice(&mut large);
        assert_eq!(server.answer_bytes(), MIB as u64);
        drop(left);
        assert_eq!(server.answer_bytes(), (MIB - SLICE_BYTES) as u64);
        while let Poll::Ready(Some(_)) = poll(&mut large) {}
        assert_eq!(server.answer_bytes(), 0);
    }

    /// Catches thousands of answers that are fetched from a leader for clients that do not read, and one that holds bytes while
    /// there is nothing to fetch.
    #[tokio::test]
    async fn on_demand_nothing_is_asked_for_without_room() {
        let server = Server::new();
        let full = server.fill();
        let mut leaving = server.leaving(&[None, Some(2 * MIB)], None, true);
        assert!(poll(&mut leaving).is_pending());
        assert_eq!(server.polled.load(Ordering::SeqCst), 0);
        drop(full);
        assert!(poll(&mut leaving).is_pending());
        assert_eq!(server.polled.load(Ordering::SeqCst), 1);
        assert_eq!(server.answer_bytes(), 0, "nothing is there yet");
        let left = slice(&mut leaving);
        assert_eq!(server.answer_bytes(), 2 * MIB as u64);
        drop((left, leaving));
        assert_eq!(server.answer_bytes(), 0);
    }
}
