//! Streams on their way through: never without a deadline, never outliving the side that reads them.

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

/// Passes on what `answers` yields. `keep` is dropped together with the stream.
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
    let address = address.to_owned();
    stream::unfold(Some((answers, address, keep)), move |state| async move {
        let (mut answers, address, keep) = state?;
        let next = match patience.left() {
            None => answers.message().await,
            Some(left) => match tokio::time::timeout(left, answers.message()).await {
                Ok(next) => next,
                Err(_) => return Some((Err(late(&address, left)), None)),
            },
        };
        match next {
            Ok(Some(answer)) => Some((Ok(answer), Some((answers, address, keep)))),
            Ok(None) => None,
            Err(status) => Some((Err(explain(&address, status)), None)),
        }
    })
    .boxed()
}

/// Ends the requests of a bidirectional call when the side that reads its answers is gone.
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
