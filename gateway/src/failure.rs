//! One clear meaning for each way in which forwarding can fail.
//!
//! The transport reports the same broken connection under half a dozen codes. After this file there are two:
//! `Unavailable` (the owner could not be reached, or the connection broke) and `DeadlineExceeded` (no answer in time).
//! Both can be tried again; in both the outcome is unknown, since the owner may have done what it was asked before the
//! connection broke. Every other status is the owner's own answer and passes unchanged.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};

use crate::metadata::strip;

/// Whether forwarding failed, as opposed to a refusal by the owner. The outcome of the call is unknown.
pub fn is_unreachable(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
}

/// The status that the caller of a forwarded call sees for `status`, which a call to `address` ended with.
pub(crate) fn explain(address: &str, mut status: Status) -> Status {
    strip(status.metadata_mut());
    let code = match status.code() {
        // tonic reports its own timer, here and at the other end, as a cancellation.
        Code::Cancelled | Code::DeadlineExceeded => Code::DeadlineExceeded,
        Code::Unavailable | Code::Unknown => Code::Unavailable,
        _ if status.source().is_some() => Code::Unavailable,
        _ => return status,
    };
    let message = match code {
        Code::DeadlineExceeded => format!("{address} did not answer in time: {}", status.message()),
        _ => format!("{address} cannot be reached: {}", status.message()),
    };
    Status::with_metadata(code, message, status.metadata().clone())
}

/// No answer from `address` within `waited`.
pub(crate) fn late(address: &str, waited: Duration) -> Status {
    Status::deadline_exceeded(format!(
        "{address} did not answer within {} ms",
        waited.as_millis()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a broken connection that is passed on as the owner's verdict.
    #[test]
    fn transport_failures_can_be_told_from_refusals() {
        for status in [
            Status::unknown("error reading a body from connection: broken pipe"),
            Status::unavailable("connection refused"),
            Status::cancelled("Timeout expired"),
            Status::from_error("h2 protocol error".into()),
        ] {
            let explained = explain("127.0.0.1:1", status);
            assert!(is_unreachable(&explained), "{explained:?}");
            assert!(explained.message().contains("127.0.0.1:1"), "{explained:?}");
        }
        let refusal = explain("127.0.0.1:1", Status::invalid_argument("no such thing"));
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert_eq!(refusal.message(), "no such thing");
    }

    /// Catches the hint where the leader is being lost on the way back.
    #[test]
    fn a_failure_keeps_the_leader_hint() {
        let mut status = Status::unavailable("not the leader");
        crate::set_leader(status.metadata_mut(), "10.0.0.1:8081");
        status
            .metadata_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        let explained = explain("10.0.0.2:8081", status);
        assert_eq!(
            explained.metadata().get(crate::LEADER).unwrap(),
            "10.0.0.1:8081"
        );
        assert!(explained.metadata().get("content-type").is_none());
    }
}
