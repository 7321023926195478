//! A request's body, whose bytes are counted before anybody decodes them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tonic::body::Body;

use super::framing::Framing;
use super::unread;
use crate::network::account::{Call, Waits};
use crate::network::bounds::{Held, STREAM_WINDOW_BYTES};

/// Longest wait for room; long enough that those who stand still have been cut off.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(30);

/// The body. While it waits for room nothing more is read, and the other end's window fills. Only so many calls of a
/// connection wait as leave room in its window for the others.
pub(super) struct Arriving {
    body: Body,
    call: Arc<Call>,
    framing: Framing,
    waiting: Option<Waiting>,
}

/// Bytes in which a message begins that there was no room for yet.
struct Waiting {
    bytes: Bytes,
    room: BoxFuture<'static, Result<Held, Status>>,
    _unread: OwnedSemaphorePermit,
    _waits: Waits,
}

/// What is done for a message that begins.
enum Room {
    Taken(Held),
    Waits(Waiting),
}

type Polled = Poll<Option<Result<Frame<Bytes>, Status>>>;

impl Arriving {
    pub(super) fn new(body: Body, call: Arc<Call>) -> Arriving {
        if !body.is_end_stream() {
            call.expect(0);
        }
        Arriving {
            body,
            call,
            framing: Framing::default(),
            waiting: None,
        }
    }

    /// Asks for room for messages of so many bytes, which begin in `bytes`.
    fn room(&self, begun: u64, bytes: &Bytes) -> Result<Room, Status> {
        let account = &self.call.account;
        let Some(shares) = account.shares() else {
            return Err(Status::internal("nothing is counted on this connection"));
        };
        let share = shares.for_request(begun).clone();
        if begun + self.call.held_bytes() > share.max {
            let most = share.max;
            return Err(Status::out_of_range(format!(
                "a request of {begun} bytes is larger than what is taken, {most} bytes: send less at once"
            )));
        }
        if let Some(held) = share.try_take(begun) {
            return Ok(Room::Taken(held));
        }
        let window = begun.min(STREAM_WINDOW_BYTES.into()) as u32;
        let waiting = shares.waiting.clone();
        let Ok(unread) = waiting.try_acquire_many_owned(window) else {
            return Err(too_much());
        };
        let room = async move {
            let taken = tokio::time::timeout(ROOM_WAIT_MAX, share.take(begun)).await;
            taken.map_err(|_| too_much())
        };
        Ok(Room::Waits(Waiting {
            bytes: bytes.clone(),
            room: room.boxed(),
            _unread: unread,
            _waits: account.wait(),
        }))
    }

    fn take(&mut self, bytes: Bytes) -> Option<Polled> {
        let missing = self.framing.missing();
        let begun = self.framing.take(&bytes);
        if begun == 0 {
            self.call.arrived(missing - self.framing.missing());
            return Some(Poll::Ready(Some(Ok(Frame::data(bytes)))));
        }
        match self.room(begun, &bytes) {
            Ok(Room::Taken(held)) => Some(Poll::Ready(Some(Ok(self.begin(held, bytes))))),
            Ok(Room::Waits(waiting)) => {
                // Now it waits for us.
                self.call.expect_nothing();
                self.waiting = Some(waiting);
                None
            }
            Err(status) => {
                self.call.expect_nothing();
                Some(Poll::Ready(Some(Err(status))))
            }
        }
    }

    fn begin(&self, held: Held, bytes: Bytes) -> Frame<Bytes> {
        self.call.hold(held);
        self.call.expect(self.framing.missing());
        Frame::data(bytes)
    }
}

fn too_much() -> Status {
    unread("too many bytes of other requests are being received: try again later")
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        loop {
            if let Some(waiting) = &mut self.waiting {
                let room = ready!(waiting.room.as_mut().poll(context));
                let bytes = std::mem::take(&mut waiting.bytes);
                self.waiting = None;
                return Poll::Ready(Some(room.map(|held| self.begin(held, bytes))));
            }
            // Whoever asks for more has taken over what came.
            if self.framing.is_between() {
                self.call.handed_on();
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        if let Some(polled) = self.take(bytes) {
                            return polled;
                        }
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => {
                    self.call.expect_nothing();
                    return Poll::Ready(ended);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.waiting {
            None => self.body.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // Nobody wants the rest.
        self.call.expect_nothing();
    }
}
