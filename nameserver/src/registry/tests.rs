use proptest::prelude::*;
use proto::cluster::{Replica, TopicRoute};

use super::*;

const LEASE_MS: u64 = 1_000;

fn limits() -> RegistryLimits {
    RegistryLimits {
        cluster_id: String::new(),
        groups_max: 100,
        lease_ms_min: 1,
        lease_ms_max: 1_000_000,
    }
}

fn registration(group: &str, epoch: u64, version: u64, leader: u64) -> Registration {
    let replica = |broker_id: u64| Replica {
        broker_id,
        client_address: format!("10.0.0.{broker_id}:8081"),
        peer_address: String::new(),
    };
    Registration {
        group: group.into(),
        epoch,
        version,
        leader,
        replicas: (1..=3).map(replica).collect(),
        topics: vec![TopicRoute {
            name: "t".into(),
            queue_count: 4,
            message_type: 0,
            first_queue: 0,
        }],
        cluster_id: "c".into(),
    }
}

fn entry(group: &str, epoch: u64, version: u64, renewal: u64, leader: u64) -> GossipEntry {
    let registration = Some(registration(group, epoch, version, leader));
    GossipEntry {
        registration,
        renewal,
        lease_ms: LEASE_MS,
    }
}

fn any_entry() -> impl Strategy<Value = GossipEntry> {
    ("[abc]", 0..3_u64, 0..3_u64, 0..3_u64, 1..=3_u64).prop_map(
        |(group, epoch, version, renewal, leader)| entry(&group, epoch, version, renewal, leader),
    )
}

fn any_entries() -> impl Strategy<Value = Vec<GossipEntry>> {
    prop::collection::vec(any_entry(), 0..12)
}

fn merge_all(registry: &mut Registry, entries: Vec<GossipEntry>, now: MonotonicMs) {
    for entry in entries {
        registry.merge(entry, now).unwrap();
    }
}

fn of(entries: Vec<GossipEntry>) -> Registry {
    let mut registry = Registry::new(limits());
    merge_all(&mut registry, entries, 0);
    registry
}

fn everything(registry: &Registry) -> Vec<GossipEntry> {
    registry.newer_than(&[], usize::MAX)
}

fn joined(mut one: Registry, other: &Registry) -> Registry {
    merge_all(&mut one, everything(other), 0);
    one
}

fn visible(registry: &Registry) -> Vec<Registration> {
    registry
        .visible()
        .map(|registration| Registration::clone(registration))
        .collect()
}

/// One round as gossip.rs runs it: digests out, what the caller lacks back, what the other wants out.
fn exchange(caller: &mut Registry, other: &mut Registry, bytes_max: usize, now: MonotonicMs) {
    let digests = caller.digests();
    let (lacking, wanted) = (
        other.newer_than(&digests, bytes_max),
        other.wanted(&digests),
    );
    merge_all(caller, lacking, now);
    let mut rest = wanted.as_slice();
    while !rest.is_empty() {
        let (entries, done) = caller.entries(rest, bytes_max);
        assert!(done > 0, "no progress");
        merge_all(other, entries, now);
        rest = &rest[done..];
    }
}

proptest! {
    /// Catches tables that depend on the order in which news arrived.
    #[test]
    fn merge_is_commutative(one in any_entries(), other in any_entries()) {
        let (one, other) = (of(one), of(other));
        let (left, right) = (joined(one.clone(), &other), joined(other, &one));
        prop_assert_eq!(everything(&left), everything(&right));
        prop_assert_eq!(left.digests(), right.digests());
    }

    /// Catches tables that depend on who heard it from whom.
    #[test]
    fn merge_is_associative(one in any_entries(), two in any_entries(), three in any_entries()) {
        let (one, two, three) = (of(one), of(two), of(three));
        let left = joined(joined(one.clone(), &two), &three);
        let right = joined(one, &joined(two, &three));
        prop_assert_eq!(everything(&left), everything(&right));
    }

    /// Catches a change that is seen where there is none, which would wake every watcher at each round.
    #[test]
    fn merge_is_idempotent(entries in any_entries()) {
        let once = of(entries);
        let twice = joined(once.clone(), &once);
        prop_assert_eq!(everything(&once), everything(&twice));
        prop_assert_eq!(once.version(), twice.version());
        prop_assert_eq!(once.next_expiry(), twice.next_expiry());
    }

    /// Catches anything but the highest being held, whatever the order of arrival.
    #[test]
    fn the_highest_wins(entries in any_entries(), order in any::<prop::sample::Index>()) {
        let mut turned = entries.clone();
        if !turned.is_empty() {
            let middle = order.index(turned.len());
            turned.rotate_left(middle);
        }
        prop_assert_eq!(everything(&of(entries.clone())), everything(&of(turned)));
        for held in everything(&of(entries.clone())) {
            let pair = |entry: &GossipEntry| {
                let registration = entry.registration.as_ref().unwrap();
                (registration.epoch, registration.version, entry.renewal)
            };
            let group = &held.registration.as_ref().unwrap().group;
            let highest = entries
                .iter()
                .filter(|entry| entry.registration.as_ref().unwrap().group == *group)
                .map(pair)
                .max();
            prop_assert_eq!(Some(pair(&held)), highest);
        }
    }

    /// Catches a change that clients are not told of, and a version that grows for nothing.
    #[test]
    fn the_version_grows_with_each_visible_change_and_only_then(entries in any_entries()) {
        let mut registry = Registry::new(limits());
        for (now, entry) in entries.into_iter().enumerate() {
            let (before, version) = (visible(&registry), registry.version());
            registry.merge(entry, now as u64).unwrap();
            prop_assert_eq!(before != visible(&registry), version < registry.version());
        }
        let version = registry.version();
        let count = registry.visible().count() as u64;
        registry.expire(u64::MAX);
        prop_assert_eq!(registry.version(), version + count);
    }

    /// Catches an exchange that stops before both sides know everything, for any bound on the size of messages.
    #[test]
    fn an_exchange_makes_both_sides_equal(
        one in any_entries(),
        other in any_entries(),
        bytes_max in 1..2_000_usize,
    ) {
        let (mut one, mut other) = (of(one), of(other));
        let both = joined(one.clone(), &other);
        for _ in 0..4 {
            exchange(&mut one, &mut other, bytes_max, 0);
        }
        // Contents of one pair that differ are beyond digests: they say (epoch, version, renewal) only.
        prop_assert_eq!(one.digests(), both.digests());
        prop_assert_eq!(other.digests(), both.digests());
    }

    /// Catches peers that keep a dead group alive by telling each other of it.
    #[test]
    fn nobody_revives_what_expired(meetings in prop::collection::vec((0..3_usize, 0..3_usize, 0..400_u64), 1..60)) {
        let mut servers = vec![Registry::new(limits()); 3];
        let lease_ends = 3 * LEASE_MS;
        servers[0].register(registration("g", 1, 1, 1), LEASE_MS, 7, 0).unwrap();
        let mut now = 0;
        for (one, other, step) in meetings {
            now += step;
            for server in &mut servers {
                server.expire(now);
            }
            if one != other {
                let mut caller = servers[one].clone();
                exchange(&mut caller, &mut servers[other], usize::MAX, now);
                servers[one] = caller;
            }
            let alive = servers.iter().any(|server| server.visible().count() > 0);
            prop_assert!(!alive || now < lease_ends, "still visible at {now}");
        }
    }
}

/// Catches the deposed leader that overwrites its successor's route (the broker that comes back and calls itself master).
#[test]
fn an_older_epoch_is_refused_with_the_newer_pair() {
    let mut registry = Registry::new(limits());
    assert_eq!(
        registry.register(registration("g", 7, 3, 2), LEASE_MS, 0, 0),
        Ok(Registered::Accepted)
    );
    let refused = Ok(Registered::Older {
        epoch: 7,
        version: 3,
    });
    assert_eq!(
        registry.register(registration("g", 6, 99, 1), LEASE_MS, 0, 0),
        refused
    );
    assert_eq!(
        registry.register(registration("g", 7, 2, 1), LEASE_MS, 0, 0),
        refused
    );
    assert_eq!(visible(&registry), [registration("g", 7, 3, 2)]);
}

/// Catches a deposed leader that gets its way as soon as its successor is late with one renewal.
#[test]
fn an_older_epoch_is_refused_even_after_the_newer_one_expired() {
    let mut registry = Registry::new(limits());
    registry
        .register(registration("g", 7, 0, 2), LEASE_MS, 0, 0)
        .unwrap();
    registry.expire(LEASE_MS);
    assert_eq!(visible(&registry), []);
    assert_eq!(
        registry.register(registration("g", 6, 0, 1), LEASE_MS, 0, LEASE_MS),
        Ok(Registered::Older {
            epoch: 7,
            version: 0
        })
    );
    registry
        .register(registration("g", 7, 0, 2), LEASE_MS, 0, LEASE_MS)
        .unwrap();
    assert_eq!(
        visible(&registry).len(),
        1,
        "the rightful leader comes back by renewing"
    );
}

/// Catches a lease that is measured from the wrong moment, or that a repeated digest renews.
#[test]
fn a_lease_counts_from_when_its_newest_renewal_was_first_seen() {
    let mut registry = of(vec![entry("g", 1, 1, 5, 1)]);
    registry.merge(entry("g", 1, 1, 5, 1), 600).unwrap();
    assert_eq!(registry.next_expiry(), Some(LEASE_MS));
    registry.merge(entry("g", 1, 1, 6, 1), 600).unwrap();
    assert_eq!(registry.next_expiry(), Some(600 + LEASE_MS));
    let version = registry.version();
    registry.expire(600 + LEASE_MS - 1);
    assert_eq!(registry.version(), version);
    registry.expire(600 + LEASE_MS);
    assert_eq!(registry.visible().count(), 0);
}

/// Catches renewals that two name servers accept one after the other and that do not order.
#[test]
fn the_later_renewal_wins_wherever_it_was_accepted() {
    let (mut one, mut other) = (of(vec![]), of(vec![]));
    one.register(registration("g", 1, 1, 1), LEASE_MS, 50_000, 0)
        .unwrap();
    other
        .register(registration("g", 1, 1, 1), LEASE_MS, 50_400, 400)
        .unwrap();
    exchange(&mut one, &mut other, usize::MAX, 500);
    assert_eq!(one.next_expiry(), Some(500 + LEASE_MS));
    assert_eq!(other.next_expiry(), Some(400 + LEASE_MS));
}

/// Catches a registry that remembers every group it ever saw.
#[test]
fn expired_groups_are_forgotten_and_their_room_is_used_again() {
    let mut registry = Registry::new(RegistryLimits {
        groups_max: 1,
        ..limits()
    });
    registry
        .register(registration("g", 1, 1, 1), LEASE_MS, 0, 0)
        .unwrap();
    let full = registry.register(registration("h", 1, 1, 1), LEASE_MS, 0, 0);
    assert!(matches!(
        full,
        Err(RegistrationError::GroupsFull { max: 1, .. })
    ));
    assert_eq!(registry.expired().count(), 0);
    registry.expire(LEASE_MS);
    assert_eq!(visible(&registry), []);
    let remembered: Vec<Registration> = registry.expired().map(|held| (**held).clone()).collect();
    assert_eq!(remembered, [registration("g", 1, 1, 1)]);
    let forgotten_at = registry.next_expiry().unwrap();
    registry.expire(forgotten_at);
    assert_eq!(registry.expired().count(), 0);
    assert_eq!(registry.next_expiry(), None);
    registry
        .register(registration("h", 1, 1, 1), LEASE_MS, 0, forgotten_at)
        .unwrap();
}

/// Catches leases so short that a group flickers, or so long that a dead one stays.
#[test]
fn leases_are_kept_within_bounds() {
    let bounds = RegistryLimits {
        lease_ms_min: 100,
        lease_ms_max: 200,
        ..limits()
    };
    for (asked, granted) in [(0, 100), (150, 150), (u64::MAX, 200)] {
        let mut registry = Registry::new(bounds.clone());
        registry
            .register(registration("g", 1, 1, 1), asked, 0, 0)
            .unwrap();
        assert_eq!(registry.next_expiry(), Some(granted));
    }
}

/// Catches two clusters whose groups have the same names getting into each other's routes.
#[test]
fn another_cluster_s_groups_are_refused() {
    let mut registry = Registry::new(RegistryLimits {
        cluster_id: "ours".into(),
        ..limits()
    });
    let error = registry.merge(entry("g", 1, 1, 1, 1), 0).unwrap_err();
    assert!(
        matches!(error, RegistrationError::Cluster { .. }),
        "{error}"
    );
}

/// Catches a registration that nobody can ever overrule.
#[test]
fn epochs_and_versions_go_on_in_steps() {
    let mut registry = of(vec![entry("a", 7, 3, 1, 1)]);
    for (group, epoch, version) in [
        ("a", u64::MAX, 1),
        ("a", 7, u64::MAX),
        ("a", 8 + LEAP_MAX, 1),
        ("new", LEAP_MAX + 1, 1),
    ] {
        let leap = registration(group, epoch, version, 2);
        let refused = registry.register(leap, LEASE_MS, 1, 0);
        assert!(matches!(refused, Err(RegistrationError::Leap { .. })));
        let refused = registry.merge(entry(group, epoch, version, 9, 2), 0);
        assert!(matches!(refused, Err(RegistrationError::Leap { .. })));
    }
    // A restored copy skips a million terms.
    for (group, epoch) in [("a", 1_000_007), ("new", LEAP_MAX)] {
        let accepted = registry.register(registration(group, epoch, 1, 2), LEASE_MS, 1, 0);
        assert_eq!(accepted, Ok(Registered::Accepted));
    }
}
