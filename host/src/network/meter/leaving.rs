//! An answer's body, whose bytes count until the transport has let go of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::network::account::Call;
use crate::network::bounds::Held;

/// The body.
pub(super) struct Leaving {
    body: Body,
    call: Arc<Call>,
    /// What was taken for it, and has not left.
    held: Option<Held>,
    is_counted: bool,
}

impl Leaving {
    pub(super) fn new(
        body: Body,
        call: Arc<Call>,
        held: Option<Held>,
        is_counted: bool,
    ) -> Leaving {
        call.answered(held.as_ref().map_or(0, Held::bytes));
        Leaving {
            body,
            call,
            held,
            is_counted,
        }
    }

    /// A piece that is counted until it is dropped. Headers of messages are more than was taken; they are few bytes.
    fn counted(&mut self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let count = bytes.len() as u64;
        let held = self.held.as_mut().map(|held| held.split(count));
        let more = count - held.as_ref().map_or(0, Held::bytes);
        self.call.leaves(more);
        Bytes::from_owner(Piece {
            bytes,
            call: self.call.clone(),
            _held: held,
        })
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match polled {
            Some(Ok(frame)) if self.is_counted && frame.is_data() => {
                let counted = frame
                    .into_data()
                    .map(|bytes| Frame::data(self.counted(bytes)));
                Some(Ok(counted.unwrap_or_else(|frame| frame)))
            }
            other => other,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.call.left(held.bytes());
        }
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
