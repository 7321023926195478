//! A request's body, whose bytes are counted before anybody decodes them.

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

use super::framing::Framing;
use crate::network::account::Call;
use crate::network::bounds::{CALL_BYTES, Held, SMALL_REQUEST_BYTES};

/// Longest wait for room; long enough that those who stand still have been cut off.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(30);

/// The body. While it waits for room nothing more is read, and the other end's window fills.
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

    /// Asks for room for messages of so many bytes.
    fn room(&self, begun: u64) -> Result<BoxFuture<'static, Result<Held, Status>>, Status> {
        let Some(shares) = self.call.account.shares() else {
            return Err(Status::internal("nothing is counted on this connection"));
        };
        let bytes = begun + CALL_BYTES;
        let share = match bytes <= SMALL_REQUEST_BYTES {
            true => shares.small.clone(),
            false => shares.uploads.clone(),
        };
        if bytes + self.call.held_bytes() > share.max {
            let most = share.max - CALL_BYTES;
            return Err(Status::out_of_range(format!(
                "a request of {begun} bytes is larger than what is taken, {most} bytes: send less at once"
            )));
        }
        let room = async move {
            let taken = tokio::time::timeout(ROOM_WAIT_MAX, share.take(bytes)).await;
            taken.map_err(|_| {
                Status::resource_exhausted(
                    "too many bytes of other requests are being received: try again later",
                )
            })
        };
        Ok(room.boxed())
    }

    fn take(&mut self, bytes: Bytes) -> Option<Polled> {
        let missing = self.framing.missing();
        let begun = self.framing.take(&bytes);
        if begun == 0 {
            self.call.arrived(missing - self.framing.missing());
            return Some(Poll::Ready(Some(Ok(Frame::data(bytes)))));
        }
        match self.room(begun) {
            Ok(room) => {
                // Now it waits for us.
                self.call.expect_nothing();
                self.waiting = Some(Waiting { bytes, room });
                None
            }
            Err(status) => {
                self.call.expect_nothing();
                Some(Poll::Ready(Some(Err(status))))
            }
        }
    }
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
                return Poll::Ready(Some(room.map(|held| {
                    self.call.hold(held);
                    self.call.expect(self.framing.missing());
                    Frame::data(bytes)
                })));
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
