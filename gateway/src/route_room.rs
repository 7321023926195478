//! What a route takes, so that it is not made before there is room for it.
//!
//! A route repeats the names of its request for each queue: little is asked, and much is answered.

use std::time::Duration;

use host::network::{AnswerBudget, AnswerHold};
use proto::v2::{Endpoints, QueryRouteRequest};

/// Most addresses of an access point, and most bytes of their names.
pub const ACCESS_POINT_ADDRESSES_MAX: usize = 64;
/// See [`ACCESS_POINT_ADDRESSES_MAX`].
pub const ACCESS_POINT_BYTES_MAX: usize = 4 << 10;

/// What a queue takes beside the names in it, and an address.
const QUEUE_BYTES: u64 = 512;
const ADDRESS_BYTES: u64 = 48;

/// Routes up to here are made at once: what their call takes is about as much.
const SMALL_BYTES: u64 = 16 << 10;

/// Longest wait for room.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(3);

/// Whether an access point is one that a client may have, and not a means to have much answered.
pub fn is_access_point(endpoints: &Endpoints) -> bool {
    let names: usize = endpoints.addresses.iter().map(|one| one.host.len()).sum();
    endpoints.addresses.len() <= ACCESS_POINT_ADDRESSES_MAX && names <= ACCESS_POINT_BYTES_MAX
}

/// Waits for room for a route of so many queues; none if there is none in time.
pub async fn route_room(
    request: &QueryRouteRequest,
    budget: &AnswerBudget,
    queues: u64,
) -> Option<AnswerHold> {
    let bytes = route_bytes(request, queues);
    if bytes <= SMALL_BYTES {
        return Some(AnswerHold::default());
    }
    let room = tokio::time::timeout(ROOM_WAIT_MAX, budget.take(bytes));
    room.await.ok()
}

/// Bytes of a route of so many queues.
fn route_bytes(request: &QueryRouteRequest, queues: u64) -> u64 {
    let topic = request.topic.as_ref();
    let topic = topic.map_or(0, |topic| topic.name.len() + topic.resource_namespace.len());
    let addresses = request.endpoints.iter().flat_map(|all| &all.addresses);
    let addresses: u64 = addresses
        .map(|address| ADDRESS_BYTES + address.host.len() as u64)
        .sum();
    queues.saturating_mul(QUEUE_BYTES + topic as u64 + addresses)
}

#[cfg(test)]
mod tests {
    use proto::v2::Address;

    use super::*;

    fn access_point(addresses: usize, name_bytes: usize) -> Endpoints {
        let address = Address {
            host: "h".repeat(name_bytes),
            port: 1,
        };
        Endpoints {
            addresses: vec![address; addresses],
            ..Default::default()
        }
    }

    /// Catches a small request that has a thousand times as much answered as it says.
    #[test]
    fn an_access_point_has_a_bound() {
        assert!(is_access_point(&access_point(64, 64)));
        assert!(!is_access_point(&access_point(65, 1)));
        assert!(!is_access_point(&access_point(
            1,
            ACCESS_POINT_BYTES_MAX + 1
        )));
    }

    /// Catches an estimate that does not grow with what is repeated for each queue.
    #[test]
    fn a_route_repeats_the_names_for_each_queue() {
        let with = |addresses, name_bytes| {
            let request = QueryRouteRequest {
                endpoints: Some(access_point(addresses, name_bytes)),
                ..Default::default()
            };
            route_bytes(&request, 1_024)
        };
        assert!(with(1, 10) > 1_024 * QUEUE_BYTES);
        assert!(with(60, 60) > with(1, 10) + 1_024 * 59 * 60);
    }
}
