//! A status inside an answer, for every kind of answer the messaging service has.
//!
//! RocketMQ puts results into the answer's own `status` field and keeps the gRPC status OK. Whoever refuses a call on
//! behalf of an owner that cannot be reached needs that for each type; it stands here once.

use proto::opaque;
use proto::v2::{self, Code, Status};

/// An answer that can carry nothing but a status.
pub trait Answer: Sized {
    /// An answer that says only `code`, and why.
    fn refused(code: Code, reason: impl Into<String>) -> Self;

    /// The status it carries, if it carries one. Stream items with a message or an offset carry none.
    fn status(&self) -> Option<&Status>;
}

fn status(code: Code, reason: impl Into<String>) -> Status {
    Status {
        code: code.into(),
        message: reason.into(),
    }
}

macro_rules! answers {
    ($($answer:ty),* $(,)?) => {$(
        impl Answer for $answer {
            #[allow(clippy::needless_update, reason = "some answers have nothing but a status")]
            fn refused(code: Code, reason: impl Into<String>) -> Self {
                Self { status: Some(status(code, reason)), ..Default::default() }
            }

            fn status(&self) -> Option<&Status> {
                self.status.as_ref()
            }
        }
    )*};
}

answers!(
    v2::AckMessageResponse,
    v2::ChangeInvisibleDurationResponse,
    v2::EndTransactionResponse,
    v2::ForwardMessageToDeadLetterQueueResponse,
    v2::GetOffsetResponse,
    v2::HeartbeatResponse,
    v2::NotifyClientTerminationResponse,
    v2::QueryAssignmentResponse,
    v2::QueryOffsetResponse,
    v2::QueryRouteResponse,
    v2::RecallMessageResponse,
    v2::SendMessageResponse,
    v2::SyncLiteSubscriptionResponse,
    v2::TelemetryCommand,
    v2::UpdateOffsetResponse,
);

macro_rules! stream_items {
    ($($item:ty => $content:path),* $(,)?) => {$(
        impl Answer for $item {
            fn refused(code: Code, reason: impl Into<String>) -> Self {
                use $content as Content;
                Self { content: Some(Content::Status(status(code, reason))) }
            }

            fn status(&self) -> Option<&Status> {
                use $content as Content;
                match &self.content {
                    Some(Content::Status(status)) => Some(status),
                    _ => None,
                }
            }
        }
    )*};
}

stream_items!(
    opaque::PullMessageResponse => opaque::pull_message_response::Content,
    opaque::ReceiveMessageResponse => opaque::receive_message_response::Content,
);
