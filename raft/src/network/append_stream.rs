//! One pipeline of AppendEntries to one follower.
//!
//! Requests go out without waiting for answers, in order, up to a bound of bytes in flight; answers
//! come back in order. A pipeline from which nothing comes back, though something went out, is
//! given up: a half open connection would otherwise stall the follower for good.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{AbortHandle, Abortable};
use futures::{Stream, StreamExt, stream};
use openraft::raft::AppendEntriesRequest;
use openraft::{EntryPayload, OptionalSend};
use proto::raft as wire;
use tokio::sync::Notify;

use super::{
    CallError, Peer, Results, call_error, check_answer, deadline, network_error, unreachable,
};
use crate::connections::Class;
use crate::convert::{append_result_from_wire, append_to_wire};
use crate::request_stream::RequestStream;
use crate::types::{RaftEntry, TypeConfig};

type Request = AppendEntriesRequest<TypeConfig>;

/// Longest wait for the follower to take the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest silence of a follower that owes an answer. Above the slowest sync that is worth waiting
/// for.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes that are on their way and not answered. Enough to fill a fast link during a sync;
/// bounds what a slow follower must hold.
const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;

/// What was sent and not answered yet.
#[derive(Default)]
struct InFlight {
    sizes: Mutex<(VecDeque<usize>, usize)>,
    answered: Notify,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<usize>, usize)> {
        // Both parts are changed together without anything between that could panic.
        self.sizes.lock().unwrap_or_else(|error| error.into_inner())
    }

    fn add(&self, bytes: usize) {
        let mut sizes = self.lock();
        sizes.0.push_back(bytes);
        sizes.1 += bytes;
    }

    fn remove_oldest(&self) {
        let mut sizes = self.lock();
        let bytes = sizes.0.pop_front().unwrap_or(0);
        sizes.1 -= bytes;
        drop(sizes);
        self.answered.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.lock().0.is_empty()
    }

    /// Returns when less than the bound is in flight. Ends with the stream of answers at the latest.
    async fn room(&self) {
        while self.lock().1 >= IN_FLIGHT_BYTES_MAX {
            self.answered.notified().await;
        }
    }
}

/// Ends the stream of requests when the stream of answers is dropped, whatever the transport does
/// with it: openraft locks its state while a request is being waited for.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes the first request, connects, and returns the answers. Nothing of that happens before the
/// answers are polled.
pub(super) fn open<S>(peer: Peer, requests: S) -> Results<'static>
where
    S: Stream<Item = Request> + OptionalSend + Unpin + 'static,
{
    // Boxed: the compiler cannot see through the nested streams otherwise.
    let opening: BoxFuture<'static, Results<'static>> = Box::pin(async move {
        let mut requests = requests;
        let Some(first) = requests.next().await else {
            return stream::empty().boxed();
        };
        match connect(&peer, first, requests).await {
            Ok(answers) => answers,
            Err(error) => stream::once(futures::future::ready(Err(error))).boxed(),
        }
    });
    stream::once(opening).flatten().boxed()
}

async fn connect<S>(peer: &Peer, first: Request, rest: S) -> Result<Results<'static>, CallError>
where
    S: Stream<Item = Request> + OptionalSend + Unpin + 'static,
{
    let mut client = peer.client(Class::Replication)?;
    let in_flight = Arc::new(InFlight::default());
    in_flight.add(body_bytes(&first));
    let term = first.vote.leader_id.term;
    let mut first = append_to_wire(first);
    peer.introduce(&mut first);
    let (outgoing, guard) = outgoing(first, rest, in_flight.clone());
    let answers = deadline(OPEN_TIMEOUT, client.append_stream(outgoing)).await?;
    let state = Some(Answers {
        term,
        answers,
        in_flight,
        _guard: guard,
    });
    Ok(stream::unfold(state, next_answer).boxed())
}

/// The requests, and what ends them when it is dropped.
fn outgoing<S>(
    first: wire::AppendRequest,
    rest: S,
    in_flight: Arc<InFlight>,
) -> (RequestStream<wire::AppendRequest>, AbortOnDrop)
where
    S: Stream<Item = Request> + OptionalSend + Unpin + 'static,
{
    let requests = stream::once(futures::future::ready(first)).chain(paced(rest, in_flight));
    let (abort, registration) = AbortHandle::new_pair();
    (
        RequestStream::new(Abortable::new(requests, registration)),
        AbortOnDrop(abort),
    )
}

/// Requests as they go over the wire, held back while too much is in flight.
fn paced<S>(requests: S, in_flight: Arc<InFlight>) -> impl Stream<Item = wire::AppendRequest> + Send
where
    S: Stream<Item = Request> + OptionalSend + Unpin + 'static,
{
    stream::unfold(
        (requests, in_flight),
        |(mut requests, in_flight)| async move {
            in_flight.room().await;
            let request = requests.next().await?;
            in_flight.add(body_bytes(&request));
            Some((append_to_wire(request), (requests, in_flight)))
        },
    )
}

struct Answers {
    /// Of the leader that asks.
    term: u64,
    answers: tonic::Streaming<wire::AppendResponse>,
    in_flight: Arc<InFlight>,
    _guard: AbortOnDrop,
}

type Answer = Result<openraft::raft::StreamAppendResult<TypeConfig>, CallError>;

/// The next answer; after an error there is none.
async fn next_answer(state: Option<Answers>) -> Option<(Answer, Option<Answers>)> {
    let mut state = state?;
    loop {
        let idle = state.in_flight.is_empty();
        let answer = match tokio::time::timeout(STALL_TIMEOUT, state.answers.next()).await {
            Ok(answer) => answer?,
            // Nothing was owed when the wait began.
            Err(_) if idle => continue,
            Err(_) => {
                let error = format!("follower owed an answer for {STALL_TIMEOUT:?}");
                return Some((Err(unreachable(error)), None));
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(status) => return Some((Err(call_error(status)), None)),
        };
        state.in_flight.remove_oldest();
        return match append_result_from_wire(answer) {
            Ok(result) => match check_answer(state.term, &result) {
                Ok(()) => Some((Ok(result), Some(state))),
                Err(error) => Some((Err(error), None)),
            },
            Err(error) => Some((Err(network_error(error)), None)),
        };
    }
}

fn body_bytes(request: &Request) -> usize {
    let body = |entry: &RaftEntry| match &entry.payload {
        EntryPayload::Normal(payload) => payload.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    request.entries.iter().map(body).sum()
}
