//! Judging groups from answers that were made up.

use proto::cluster::{self, BrokerStatusResponse};

use super::*;

fn address(broker_id: u64) -> BrokerAddress {
    BrokerAddress {
        group: "g".to_owned(),
        broker_id,
        client_address: format!("b{broker_id}:1"),
        peer_address: format!("b{broker_id}:2"),
    }
}

fn answer(broker_id: u64, state: &str, applied: u64) -> Replica {
    let replica = |broker_id| cluster::Replica {
        broker_id,
        client_address: format!("b{broker_id}:1"),
        peer_address: format!("b{broker_id}:2"),
    };
    let status = BrokerStatusResponse {
        group: "g".to_owned(),
        broker_id,
        term: 3,
        state: state.to_owned(),
        serving: state == "leader",
        committed: 100,
        appended: applied,
        applied,
        voters: vec![1, 2, 3],
        replicas: (1..=3).map(replica).collect(),
        ..Default::default()
    };
    Replica {
        address: address(broker_id),
        status: Ok(status.into()),
        took_ms: 1,
        local_ms: 0,
    }
}

fn silent(broker_id: u64) -> Replica {
    Replica {
        address: address(broker_id),
        status: Err("refused".to_owned()),
        took_ms: 1,
        local_ms: 0,
    }
}

fn troubles(replicas: Vec<Replica>) -> Vec<Trouble> {
    let group = GroupSurvey {
        name: "g".to_owned(),
        expired: false,
        replicas,
    };
    group.troubles(10)
}

/// Catches an alarm without a cause.
#[test]
fn a_group_that_is_well_has_no_trouble() {
    let well = vec![
        answer(1, "leader", 100),
        answer(2, "follower", 95),
        answer(3, "follower", 100),
    ];
    assert_eq!(troubles(well), []);
}

/// Catches a probe that passes while nobody can write, or that cannot tell a hurt group from a dead one.
#[test]
fn a_group_without_a_leader_does_not_serve() {
    let found = troubles(vec![answer(1, "candidate", 100), silent(2), silent(3)]);
    assert!(found.iter().all(|trouble| !trouble.serves));
    assert!(
        found[0].text.contains("1 of 3 voters answer, 2 are needed"),
        "{}",
        found[0].text
    );
    let found = troubles(vec![
        answer(1, "leader", 100),
        answer(2, "follower", 100),
        silent(3),
    ]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].serves && found[0].text.contains("broker 3"),
        "{}",
        found[0].text
    );
}

/// Catches a cluster called well that takes no messages because disks are full, to the last byte even.
#[test]
fn a_full_disk_is_a_trouble() {
    let full = |broker_id: u64, state: &str| {
        let mut replica = answer(broker_id, state, 100);
        if let Ok(status) = &mut replica.status {
            (status.disk_free_bytes, status.disk_needed_bytes) = (Some(0), 10);
        }
        replica
    };
    let found = troubles(vec![
        answer(1, "leader", 100),
        full(2, "follower"),
        answer(3, "follower", 100),
    ]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].serves && found[0].text.contains("broker 2") && found[0].text.contains("full"),
        "{}",
        found[0].text
    );
    let found = troubles(vec![
        full(1, "leader"),
        full(2, "follower"),
        full(3, "follower"),
    ]);
    assert!(found.iter().any(|trouble| !trouble.serves));
}

/// Catches a system called well because a group that is down as a whole is not looked at, or not named.
#[test]
fn a_group_of_which_nobody_answers_is_a_trouble() {
    let found = troubles(vec![silent(1), silent(2), silent(3)]);
    assert_eq!(
        found[0].text,
        "group g has no leader: none of its 3 replicas answers"
    );
    assert!(found.iter().all(|trouble| !trouble.serves));
}

/// Catches a group called well to which no client finds its way.
#[test]
fn a_group_that_is_led_and_not_registered_is_a_trouble() {
    let group = GroupSurvey {
        name: "g".to_owned(),
        expired: true,
        replicas: (1..=3)
            .map(|id| answer(id, if id == 1 { "leader" } else { "follower" }, 100))
            .collect(),
    };
    let found = group.troubles(10);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(!found[0].serves && found[0].text.contains("not registered"));
}

/// Catches the answer of a newcomer taken for that of the broker whose machine it has now.
#[test]
fn only_the_broker_that_was_asked_answers_for_itself() {
    let status = answer(4, "learner", 100).status.unwrap();
    let error = of(&address(2), status.clone()).unwrap_err();
    assert_eq!(error, "broker 4 of group g is at b2:1 now");
    assert!(of(&address(4), status).is_ok());
}

/// Catches a replica that is far behind, or repairing, and counts as well.
#[test]
fn a_replica_that_could_not_take_over_is_a_trouble() {
    let lagging = answer(2, "follower", 20);
    let found = troubles(vec![
        answer(1, "leader", 100),
        lagging,
        answer(3, "repairing", 100),
    ]);
    assert!(
        found[0].text.contains("lacks 80 entries"),
        "{}",
        found[0].text
    );
    assert!(
        found[1].text.contains("repairs damage"),
        "{}",
        found[1].text
    );
}

/// Catches a replica that was taken out of the group and is called dead for ever.
#[test]
fn a_removed_replica_is_no_trouble() {
    let all = vec![
        answer(1, "leader", 100),
        answer(2, "follower", 100),
        answer(3, "follower", 100),
        silent(4),
    ];
    assert_eq!(troubles(all), []);
}
