//! Streams on their way through: never without a deadline, never outliving the side that reads them.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::future::{AbortHandle, Abortable};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::failure::{explain, late};

/// The longest a forwarded stream may stay silent when its caller set no deadline. Longer than any long poll.
pub const STREAM_ITEM_DEADLINE: Duration = Duration::from_secs(60);

/// The answers of a forwarded streaming call. After an error nothing follows.
pub type AnswerStream<T> = BoxStream<'static, Result<T, Status>>;

/// How long a stream may take.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// All of it until then.
    Until(Instant),
    /// Each item this long.
    PerItem(Duration),
    /// It lives as long as both ends want: telemetry is silent for minutes in the normal case.
    Unlimited,
}

impl Patience {
    fn left(self) -> Option<Duration> {
        match self {
            Patience::Until(end) => Some(end.saturating_duration_since(Instant::now())),
            Patience::PerItem(limit) => Some(limit),
            Patience::Unlimited => None,
        }
    }
}

/// Passes on what `answers` yields. `keep` is dropped together with the stream. Where it is not read in time either, the call is
/// ended all the same: what its other end holds for it must not wait for a client that does not read.
pub(crate) fn pass_on<T, K>(
    address: &str,
    answers: Streaming<T>,
    patience: Patience,
    keep: K,
) -> AnswerStream<T>
where
    T: Send + 'static,
    K: Send + 'static,
{
    let (answers, reset) = Resettable::new(answers, patience);
    let state = Some((answers, address.to_owned(), keep, reset));
    stream::unfold(state, |state| async move {
        let (answers, address, keep, reset) = state?;
        answers.taken();
        let limit = answers.patience.left();
        let next = match limit {
            None => answers.next().await,
            Some(left) => tokio::time::timeout(left, answers.next())
                .await
                .unwrap_or(None),
        };
        match next {
            Some(Some(Ok(answer))) => {
                answers.taken();
                Some((Ok(answer), Some((answers, address, keep, reset))))
            }
            Some(None) => None,
            Some(Some(Err(status))) => Some((Err(explain(&address, status)), None)),
            None => Some((Err(late(&address, limit.unwrap_or_default())), None)),
        }
    })
    .boxed()
}

/// A stream that can be ended while nobody reads it.
struct Resettable<S> {
    open: Mutex<Option<S>>,
    patience: Patience,
    /// When something was last taken from it.
    taken: Mutex<Instant>,
}

impl<S: Send + 'static> Resettable<S> {
    /// The stream, and whoever ends it in time, for as long as that lives.
    fn new(stream: S, patience: Patience) -> (Arc<Resettable<S>>, Option<EndRequests>) {
        let resettable = Arc::new(Resettable {
            open: Mutex::new(Some(stream)),
            patience,
            taken: Mutex::new(Instant::now()),
        });
        let left = patience.left();
        let reset = left.map(|left| {
            let (handle, registration) = AbortHandle::new_pair();
            let watched = resettable.clone();
            let watching = async move {
                let mut left = left;
                while !left.is_zero() {
                    tokio::time::sleep(left).await;
                    left = watched.left();
                }
                *watched.lock() = None;
            };
            tokio::spawn(Abortable::new(watching, registration));
            EndRequests(handle)
        });
        (resettable, reset)
    }

    /// Until it is ended if nothing is taken.
    fn left(&self) -> Duration {
        let taken = *self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match self.patience {
            Patience::PerItem(limit) => (taken + limit).saturating_duration_since(Instant::now()),
            other => other.left().unwrap_or(Duration::MAX),
        }
    }

    fn taken(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn lock(&self) -> MutexGuard<'_, Option<S>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Stream + Unpin + Send + 'static> Resettable<S> {
    /// The next item; none if it was ended.
    async fn next(&self) -> Option<Option<S::Item>> {
        poll_fn(|context| match self.lock().as_mut() {
            Some(stream) => stream.poll_next_unpin(context).map(Some),
            None => Poll::Ready(None),
        })
        .await
    }
}

/// Ends the requests of a bidirectional call, or whoever watches over a stream, when the side that reads the answers is gone.
#[derive(Debug)]
pub(crate) struct EndRequests(AbortHandle);

impl Drop for EndRequests {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `requests` up to the first error, and the guard that ends them early.
///
/// A transport may go on polling the requests after the answers were dropped; without the guard that would keep a dead
/// client's stream, and the task that reads it, for ever.
pub(crate) fn guarded<T, S>(requests: S) -> (impl Stream<Item = T> + Send + 'static, EndRequests)
where
    S: Stream<Item = Result<T, Status>> + Send + 'static,
    T: Send + 'static,
{
    let (handle, registration) = AbortHandle::new_pair();
    let requests = requests
        .take_while(|request| std::future::ready(request.is_ok()))
        .filter_map(|request| std::future::ready(request.ok()));
    (Abortable::new(requests, registration), EndRequests(handle))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a dead client's requests being held open after nobody reads the answers.
    #[tokio::test]
    async fn dropping_the_guard_ends_the_requests() {
        let (requests, guard) = guarded(stream::pending::<Result<u32, Status>>());
        drop(guard);
        assert_eq!(requests.collect::<Vec<_>>().await, Vec::<u32>::new());
    }

    /// Catches requests that go on after the client's connection broke.
    #[tokio::test]
    async fn requests_end_at_the_first_error() {
        let broken = stream::iter([Ok(1), Err(Status::cancelled("gone")), Ok(2)]);
        let (requests, _guard) = guarded(broken);
        assert_eq!(requests.collect::<Vec<_>>().await, [1]);
    }
}
