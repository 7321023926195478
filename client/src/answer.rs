//! What one attempt at a call came to, told apart by what may be done next.
//!
//! The only file that reads gRPC statuses and RocketMQ codes. Decides nothing about addresses or time.

use std::sync::{Mutex, MutexGuard};

use host::network::UNREAD;
use proto::v2::Code;
use proto::{cluster, redelivery, v2};
use tonic::Response;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::error::{code_is_retriable, code_is_transient, code_leaves_outcome_unknown};

/// Response metadata that names the leader of the broker group that was asked for, as `host:port`.
pub(crate) const LEADER_HEADER: &str = "x-raftmq-leader";

/// Request metadata that says that the ids of a send count, and how brokers may go by that.
const SEQUENCED_HEADER: &str = "x-raftmq-sequenced";

/// Response metadata that says where messages are, if not where they were sent to.
const QUEUES_HEADER: &str = "x-raftmq-queues";

/// Queues that are read from an answer, at most.
const QUEUES_MAX: usize = 1 << 20;

/// A response that says in its body whether the call succeeded.
pub(crate) trait Answer {
    /// RocketMQ's code as a number, and the server's words.
    fn outcome(&self) -> (i32, &str);
}

macro_rules! answers_with_status {
    ($($response:ty),* $(,)?) => {$(
        impl Answer for $response {
            fn outcome(&self) -> (i32, &str) {
                self.status.as_ref().map_or((0, "the answer has no status"), |status| (status.code, &status.message))
            }
        }
    )*};
}
answers_with_status!(
    v2::QueryRouteResponse,
    v2::HeartbeatResponse,
    v2::UpdateOffsetResponse,
    v2::GetOffsetResponse,
    v2::QueryOffsetResponse,
    v2::NotifyClientTerminationResponse,
);

impl Answer for v2::SendMessageResponse {
    /// Results for single messages say more than their common code.
    fn outcome(&self) -> (i32, &str) {
        match &self.status {
            _ if !self.entries.is_empty() => (Code::Ok as i32, ""),
            Some(status) => (status.code, &status.message),
            None => (0, "the answer has neither status nor results"),
        }
    }
}

macro_rules! answers_with_code {
    ($($response:ty),* $(,)?) => {$(
        impl Answer for $response {
            fn outcome(&self) -> (i32, &str) {
                (self.code, &self.message)
            }
        }
    )*};
}
answers_with_code!(
    cluster::AdminResponse,
    cluster::ListTopicsResponse,
    cluster::ListGroupsResponse,
    cluster::ListMembersResponse,
    cluster::DescribeDeliveryResponse,
    cluster::DescribeGroupResponse,
    cluster::ReadMessagesResponse,
    redelivery::RedeliveryResponse,
    redelivery::PullRetriesResponse,
);

macro_rules! answers_are_successes {
    ($($response:ty),* $(,)?) => {$(
        impl Answer for $response {
            fn outcome(&self) -> (i32, &str) {
                (Code::Ok as i32, "")
            }
        }
    )*};
}
answers_are_successes!(cluster::BrokerStatusResponse, cluster::QueryTableResponse);

/// What one attempt came to.
#[derive(Debug)]
pub(crate) enum Attempt<R> {
    /// The answer is yes (or, for several messages at once, one for each of them).
    Answered(R),
    /// The answer is no.
    Refused(Refusal),
    /// No answer that could be understood.
    Lost {
        reason: String,
        /// False if the request certainly never left this process.
        sent: bool,
    },
}

/// A no.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) reason: String,
}

/// How long a refusal is worth asking again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Patience {
    /// It will not change.
    None,
    /// It may be a mistake of this server or this moment: a few more times.
    Few,
    /// It will pass: until the deadline.
    UntilDeadline,
}

impl Refusal {
    pub(crate) fn new(code: i32, reason: &str) -> Refusal {
        let known = Code::try_from(code).unwrap_or(Code::Unspecified);
        let reason = match known {
            Code::Unspecified => format!("code {code}: {reason}"),
            _ => reason.to_owned(),
        };
        Refusal {
            code: known,
            reason,
        }
    }

    pub(crate) fn patience(&self) -> Patience {
        if code_is_transient(self.code) {
            Patience::UntilDeadline
        } else if code_is_retriable(self.code)
            // A server of another kind or version: the next one may know the call. Or one that has not heard of a topic yet.
            || matches!(
                self.code,
                Code::Unspecified | Code::NotImplemented | Code::TopicNotFound
            )
        {
            Patience::Few
        } else {
            Patience::None
        }
    }

    /// Whether the thing asked for may have been done, or may yet be.
    pub(crate) fn leaves_outcome_unknown(&self) -> bool {
        code_leaves_outcome_unknown(self.code)
    }
}

/// Reads an answer that arrived.
pub(crate) fn read_answer<R: Answer>(answer: R) -> Attempt<R> {
    let (code, reason) = answer.outcome();
    if code == Code::Ok as i32 {
        return Attempt::Answered(answer);
    }
    Attempt::Refused(Refusal::new(code, reason))
}

/// Reads a gRPC error.
pub(crate) fn read_status<R>(status: &tonic::Status) -> Attempt<R> {
    let refused = |code| {
        let reason = format!("{:?}: {}", status.code(), status.message());
        Attempt::Refused(Refusal { code, reason })
    };
    match status.code() {
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange => refused(Code::BadRequest),
        tonic::Code::Unimplemented => refused(Code::NotImplemented),
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => refused(Code::Unauthorized),
        // The server says that it was not read. Without that word it may be the transport's, of a call under way.
        tonic::Code::ResourceExhausted if header(status.metadata(), UNREAD).is_some() => {
            refused(Code::TooManyRequests)
        }
        code => Attempt::Lost {
            reason: format!("{code:?}: {}", status.message()),
            sent: !never_left(status),
        },
    }
}

/// Of an attempt that was given up because another broker leads by now.
pub(crate) fn overtaken<R>() -> Attempt<R> {
    Attempt::Lost {
        reason: "no answer, and another broker leads".to_owned(),
        sent: true,
    }
}

/// Whether the connection could not be made. Made here and not by a server: a server's status has metadata.
fn never_left(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::Unavailable
        && status.metadata().is_empty()
        && (status.message().contains("tcp connect error")
            || status.message().contains("dns error"))
}

/// What the last answer to a call said beside its message.
#[derive(Debug, Default)]
pub(crate) struct Said(Mutex<MetadataMap>);

impl Said {
    /// Passes an answer on.
    pub(crate) fn hear<R>(
        &self,
        answered: Result<Response<R>, tonic::Status>,
    ) -> Result<Response<R>, tonic::Status> {
        if let Ok(response) = &answered {
            *self.lock() = response.metadata().clone();
        }
        answered
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        header(&self.lock(), name).map(str::to_owned)
    }

    fn lock(&self) -> MutexGuard<'_, MetadataMap> {
        self.0.lock().expect("nothing panics while it is locked")
    }
}

/// What a header of an answer says.
pub(crate) fn header<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name)?.to_str().ok()
}

/// The leader that an answer names.
pub(crate) fn leader_hint(metadata: &MetadataMap) -> Option<&str> {
    header(metadata, LEADER_HEADER).filter(|address| !address.is_empty())
}

/// The ids of this send are all made here: of each, the upper half is its sender, the lower one counts.
pub(crate) fn mark_sequenced(metadata: &mut MetadataMap) {
    metadata.insert(SEQUENCED_HEADER, MetadataValue::from_static("all"));
}

/// The queues in which the messages of a send are, in order; those beyond the end are where they were sent to. Runs:
/// `3*2,0*1` says that two are in queue 3 and one is in queue 0.
pub(crate) fn queues(metadata: &MetadataMap) -> Vec<u32> {
    let mut queues = Vec::new();
    let text = metadata.get(QUEUES_HEADER);
    let text = text.and_then(|text| text.to_str().ok()).unwrap_or("");
    for run in text.split(',') {
        let numbers = run.split_once('*');
        let numbers = numbers.and_then(|(queue, count)| {
            let (queue, count) = (queue.parse::<u32>().ok()?, count.parse::<usize>().ok()?);
            Some((queue, count))
        });
        match numbers {
            Some((queue, count)) if count <= QUEUES_MAX - queues.len() => {
                queues.extend(std::iter::repeat_n(queue, count));
            }
            _ => break,
        }
    }
    queues
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: Code) -> Refusal {
        Refusal::new(code as i32, "why")
    }

    /// Catches a loop on what cannot change, and a surrender to what passes.
    #[test]
    fn patience_follows_the_code() {
        assert_eq!(
            refusal(Code::HaNotAvailable).patience(),
            Patience::UntilDeadline
        );
        assert_eq!(
            refusal(Code::TooManyRequests).patience(),
            Patience::UntilDeadline
        );
        assert_eq!(refusal(Code::TopicNotFound).patience(), Patience::Few);
        assert_eq!(refusal(Code::InternalServerError).patience(), Patience::Few);
        assert_eq!(Refusal::new(12345, "new").patience(), Patience::Few);
        assert_eq!(
            refusal(Code::MessageBodyTooLarge).patience(),
            Patience::None
        );
    }

    /// Catches a lost answer that is reported as 'certainly not done'.
    #[test]
    fn only_a_connection_that_was_never_made_is_certain() {
        let sent = |status: tonic::Status| match read_status::<()>(&status) {
            Attempt::Lost { sent, .. } => sent,
            other => panic!("{other:?}"),
        };
        assert!(!sent(tonic::Status::unavailable(
            "tcp connect error: refused"
        )));
        assert!(sent(tonic::Status::unavailable("connection reset")));
        assert!(sent(tonic::Status::deadline_exceeded("late")));
        let mut forwarded = tonic::Status::unavailable("tcp connect error: refused");
        forwarded
            .metadata_mut()
            .insert("date", "now".parse().expect("ascii"));
        assert!(
            sent(forwarded),
            "a server that could not reach another server said this"
        );
    }

    /// Catches a send that was surely not stored and is told as lost, and one that may be stored and is told as surely not.
    #[test]
    fn what_was_not_read_was_not_done() {
        let full = || tonic::Status::resource_exhausted("too many bytes");
        let mut unread = full();
        unread
            .metadata_mut()
            .insert(UNREAD, MetadataValue::from_static("1"));
        match read_status::<()>(&unread) {
            Attempt::Refused(refusal) => {
                assert!(!refusal.leaves_outcome_unknown());
                assert_eq!(refusal.patience(), Patience::UntilDeadline);
            }
            other => panic!("{other:?}"),
        }
        let lost = read_status::<()>(&full());
        assert!(matches!(lost, Attempt::Lost { sent: true, .. }), "{lost:?}");
    }

    /// Catches a receipt that names the wrong queue, and a header that makes a client hold whatever it says.
    #[test]
    fn queues_are_read_as_runs() {
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(QUEUES_HEADER, MetadataValue::from_static(text));
            queues(&metadata)
        };
        assert_eq!(read("3*2,0*1"), [3, 3, 0]);
        assert_eq!(read("7*1"), [7]);
        assert_eq!(
            read("7*1,x*9,1*1"),
            [7],
            "what is behind nonsense is not believed"
        );
        for nonsense in [
            "",
            "*",
            "1*",
            "-1*1",
            "1*18446744073709551615",
            "1*99999999",
        ] {
            assert!(read(nonsense).is_empty(), "{nonsense}");
        }
        assert!(queues(&MetadataMap::new()).is_empty());
    }
}
