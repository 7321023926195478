//! Any bytes as what name servers hear: refused, or in one form wherever and in whatever order it arrives.
#![no_main]

use nameserver::membership::{MEMBERS_MAX, Membership};
use nameserver::registration::checked;
use nameserver::registry::{Registry, RegistryLimits};
use nameserver::route_table::{RouteTable, candidates, endpoints, leader, message_queues};
use prost::Message;
use proto::cluster::{GossipEntry, GossipRequest, RegisterRequest, Registration};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(request) = RegisterRequest::decode(data)
        && let Some(registration) = request.registration
    {
        register(registration, request.lease_ms);
    }
    if let Ok(request) = GossipRequest::decode(data) {
        gossip(request);
    }
});

fn register(registration: Registration, lease_ms: u64) {
    let held = checked(registration.clone()).ok();
    let mut registry = registry();
    let registered = registry.register(registration, lease_ms, 1, 1);
    assert_eq!(registered.is_ok(), held.is_some());
    if let Some(held) = held {
        assert_eq!(checked(held.clone()).as_ref(), Ok(&held));
        look(&registry);
    }
}

fn gossip(request: GossipRequest) {
    let (mut forward, mut backward) = (registry(), registry());
    merge(&mut forward, request.entries.iter());
    merge(&mut backward, request.entries.iter().rev());
    if request.entries.len() < 100 {
        assert_eq!(forward.digests(), backward.digests());
        assert!(forward.visible().eq(backward.visible()));
    }
    let _ = (
        forward.newer_than(&request.digests, 1000),
        forward.wanted(&request.digests),
    );
    look(&forward);
    let _ = forward.next_expiry();
    forward.expire(u64::MAX);
    assert_eq!(forward.visible().count(), 0);
    let mut membership = Membership::new("self:1", 1000, &[]);
    membership.called(&request.from, 1);
    membership.learn(&request.members, 1);
    assert!(membership.all().len() <= MEMBERS_MAX);
}

fn registry() -> Registry {
    Registry::new(RegistryLimits {
        cluster_id: String::new(),
        groups_max: 100,
        lease_ms_min: 1_000,
        lease_ms_max: 60_000,
    })
}

fn merge<'a>(registry: &mut Registry, entries: impl Iterator<Item = &'a GossipEntry>) {
    for entry in entries {
        let _ = registry.merge(entry.clone(), 1);
    }
}

/// What clients are told.
fn look(registry: &Registry) {
    let table = RouteTable::new(registry.version(), registry.visible().cloned().collect());
    for registration in table.registrations() {
        assert!(leader(registration).is_some());
        for address in candidates(registration) {
            assert!(
                endpoints(&address).is_some(),
                "{address:?} cannot be told to clients"
            );
        }
        for topic in &registration.topics {
            let shares = table.shares(&topic.name);
            assert!(topic.queue_count == 0 || !shares.is_empty());
            if shares.iter().any(|share| share.queue_count > 1000) {
                continue;
            }
            let queues = message_queues(&proto::v2::Resource::default(), &shares, None);
            let count: u32 = shares.iter().map(|share| share.queue_count).sum();
            assert_eq!(queues.len(), count as usize);
        }
    }
}
