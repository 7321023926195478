//! What the metadata of a forwarded call means, and which of it goes on.
//!
//! Everything a client sent reaches the owner unchanged, except the hop count and what belongs to one connection only: the
//! transport sets that anew. The deadline is among the latter, since it counts from when a call is sent.

use proto::place::BROKER_GROUP;
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

/// Names the client; every call of the messaging service must carry it.
pub const CLIENT_ID: &str = "x-mq-client-id";

/// In a consumer's call: a number that was drawn when its client was made, which tells two processes apart that claim one
/// client id. Clients that do not say it are told apart by their ids alone.
pub const INCARNATION: &str = "x-raftmq-incarnation";

/// In a consumer's call beside [`INCARNATION`]: how often it sends heartbeats, in milliseconds.
pub const BEAT_INTERVAL_MS: &str = "x-raftmq-beat-interval-ms";

/// How often a call has been forwarded. Absent on a client's own call.
pub const HOPS: &str = "x-raftmq-hops";

/// In an answer: the `host:port` of the leader, as far as the answering process knows.
pub const LEADER: &str = "x-raftmq-leader";

/// In an operator's call: the broker that it is for, by the address at which clients or other replicas reach it. Absent: the
/// one whose listener it came to.
pub const BROKER: &str = "x-raftmq-broker";

/// In a client's call: [`ROUTE_LEADER`] asks for routes that name the leaders' own addresses. Clients that do not ask are
/// sent to the access point that they called, where every call is forwarded: the official ones refresh their routes
/// every 30 seconds or never, which is too seldom to follow a leader.
pub const ROUTE: &str = "x-raftmq-route";

/// See [`ROUTE`].
pub const ROUTE_LEADER: &str = "leader";

/// In a client's send, with the value [`SEQUENCED_ALL`]: of each message's id, the upper half is its sender, the lower
/// one counts; and of what a sender sends to one queue, nothing was sent before everything before it was settled, or
/// given up.
pub const SEQUENCED: &str = "x-raftmq-sequenced";

/// See [`SEQUENCED`].
pub const SEQUENCED_ALL: &str = "all";

/// In an answer to a send, if messages are in other queues than those they were sent to: the queues of all messages, in
/// order, as runs: `3*2,0*1` says that two are in queue 3 and one is in queue 0.
pub const QUEUES: &str = "x-raftmq-queues";

/// A call is forwarded at most this often: name server to follower, follower to leader. More would be a circle.
pub const HOPS_MAX: u32 = 2;

/// Set by the transport of each connection for itself; never copied.
const TRANSPORT_OWN: [&str; 13] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-status-details-bin",
    "grpc-timeout",
    "te",
    "transfer-encoding",
    "user-agent",
];

/// Names the leader in the metadata of an answer. An address that cannot stand in a header is left out.
pub fn set_leader(metadata: &mut MetadataMap, address: &str) {
    if let Ok(value) = address.parse() {
        metadata.insert(LEADER, value);
    }
}

/// Whether the ids of a send are sequences. See [`SEQUENCED`].
pub fn is_sequenced(metadata: &MetadataMap) -> bool {
    metadata
        .get(SEQUENCED)
        .is_some_and(|which| which == SEQUENCED_ALL)
}

/// The broker group that must answer, if the caller says so. See [`BROKER_GROUP`].
pub fn meant_group(metadata: &MetadataMap) -> Option<&str> {
    let group = metadata.get(BROKER_GROUP)?;
    // Nobody is called what cannot be read.
    Some(group.to_str().unwrap_or_default())
}

/// Whether the caller follows leaders by itself. See [`ROUTE`].
pub fn follows_leader(metadata: &MetadataMap) -> bool {
    metadata.get(ROUTE).is_some_and(|wish| wish == ROUTE_LEADER)
}

/// How long the caller is willing to wait, if it said so in a form that gRPC knows.
pub fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// The same message as a new call, one hop further.
///
/// # Errors
///
/// `Unavailable` if the call was forwarded [`HOPS_MAX`] times already, `InvalidArgument` if its hop count is no number.
pub(crate) fn onward<M>(request: Request<M>) -> Result<Request<M>, Status> {
    let (mut metadata, _, message) = request.into_parts();
    let hops = hops(&metadata)?;
    if hops >= HOPS_MAX {
        return Err(Status::unavailable(format!(
            "the call was forwarded {hops} times and met no leader; the routes are changing"
        )));
    }
    strip(&mut metadata);
    metadata.insert(HOPS, (hops + 1).into());
    let mut request = Request::new(message);
    *request.metadata_mut() = metadata;
    Ok(request)
}

/// Removes what belongs to the connection a call or an answer came by.
pub(crate) fn strip(metadata: &mut MetadataMap) {
    for name in TRANSPORT_OWN {
        if name.ends_with("-bin") {
            metadata.remove_bin(name);
        } else {
            metadata.remove(name);
        }
    }
}

fn hops(metadata: &MetadataMap) -> Result<u32, Status> {
    let Some(value) = metadata.get(HOPS) else {
        return Ok(0);
    };
    (value.to_str().ok())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Status::invalid_argument(format!("{HOPS} is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    /// Catches calls that circle between two processes which each believe that the other one leads.
    #[test]
    fn the_third_hop_is_refused() {
        let first = onward(request(&[])).unwrap();
        assert_eq!(first.metadata().get(HOPS).unwrap(), "1");
        let second = onward(first).unwrap();
        assert_eq!(second.metadata().get(HOPS).unwrap(), "2");
        assert_eq!(onward(second).unwrap_err().code(), tonic::Code::Unavailable);
    }

    /// Catches a hop count that is trusted because it does not parse.
    #[test]
    fn a_hop_count_that_is_no_number_is_refused() {
        for text in ["", "-1", "two", "99999999999"] {
            let code = onward(request(&[(HOPS, text)])).unwrap_err().code();
            assert_eq!(code, tonic::Code::InvalidArgument, "{text:?}");
        }
    }

    /// Catches a forwarded call that lost the client's identity, or that claims another connection's properties.
    #[test]
    fn metadata_goes_on_but_the_connection_s_own_does_not() {
        let headers = [
            (CLIENT_ID, "client"),
            ("authorization", "MQv2"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", "1S"),
            ("grpc-accept-encoding", "gzip"),
        ];
        let onward = onward(request(&headers)).unwrap();
        let mut names: Vec<String> = onward
            .metadata()
            .as_ref()
            .keys()
            .map(|k| k.to_string())
            .collect();
        names.sort();
        assert_eq!(names, ["authorization", CLIENT_ID, HOPS]);
    }

    /// Catches a deadline read with the wrong unit, and one that a hostile client makes panic.
    #[test]
    fn deadlines_are_read_in_every_unit() {
        let read = |text: &str| deadline(request(&[("grpc-timeout", text)]).metadata());
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("4S"), Some(Duration::from_secs(4)));
        assert_eq!(read("5m"), Some(Duration::from_millis(5)));
        assert_eq!(read("6u"), Some(Duration::from_micros(6)));
        assert_eq!(read("7n"), Some(Duration::from_nanos(7)));
        assert!(read("99999999H").is_some());
        for text in ["", "S", "5", "5x", "-5S", "+5S", "999999999S", "1.5S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
