//! A stream of requests whose type has no lifetime.
//!
//! The transport wants `'static` streams. The compiler forgets, inside a future, that a boxed
//! stream's lifetime is that one, and then cannot prove the future `Send`; a type without a lifetime
//! leaves it nothing to forget.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};

/// Requests on their way to one peer.
pub(crate) struct RequestStream<T>(BoxStream<'static, T>);

impl<T> RequestStream<T> {
    pub(crate) fn new(requests: impl Stream<Item = T> + Send + 'static) -> RequestStream<T> {
        RequestStream(requests.boxed())
    }
}

impl<T> Stream for RequestStream<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.as_mut().poll_next(context)
    }
}
