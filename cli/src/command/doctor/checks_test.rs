//! Each row of the table from facts that were made up: found when it is true, and only then.

use proto::cluster::{self, BrokerStatusResponse};
use raftmq_client::{
    BrokerAddress, GroupMember, GroupRoute, NameServerTable, QueueOwner, TopicDescription,
    TopicQueue,
};

use super::*;
use crate::command::route::Answer;
use crate::survey::Replica;

const NOW_MS: u64 = 1_700_000_000_000;

fn wire(broker_id: u64) -> BrokerStatusResponse {
    let replica = |broker_id| cluster::Replica {
        broker_id,
        client_address: format!("b{broker_id}:1"),
        peer_address: format!("b{broker_id}:2"),
    };
    BrokerStatusResponse {
        group: "g".to_owned(),
        broker_id,
        state: if broker_id == 1 { "leader" } else { "follower" }.to_owned(),
        serving: broker_id == 1,
        committed: 100_000,
        appended: 100_000,
        applied: 100_000,
        voters: vec![1, 2, 3],
        replicas: (1..=3).map(replica).collect(),
        now_ms: NOW_MS,
        disk_free_bytes: Some(100),
        disk_needed_bytes: 10,
        sync_p99_us: 2_048,
        name_servers: vec!["n1:1".to_owned()],
        ..Default::default()
    }
}

fn replica(status: BrokerStatusResponse) -> Replica {
    Replica {
        address: BrokerAddress {
            group: "g".to_owned(),
            broker_id: status.broker_id,
            client_address: format!("b{}:1", status.broker_id),
            peer_address: format!("b{}:2", status.broker_id),
        },
        status: Ok(status.into()),
        took_ms: 4,
        local_ms: NOW_MS,
    }
}

fn table(address: &str) -> Answer {
    let address_of = |broker_id| BrokerAddress {
        group: "g".to_owned(),
        broker_id,
        client_address: String::new(),
        peer_address: String::new(),
    };
    let route = GroupRoute {
        group: "g".to_owned(),
        epoch: 3,
        version: 1,
        leader: 1,
        replicas: (1..=3).map(address_of).collect(),
        topics: vec![("orders".to_owned(), 2)],
    };
    let table = NameServerTable {
        address: address.to_owned(),
        groups: vec![route],
        name_servers: vec![address.to_owned()],
    };
    (address.to_owned(), Ok(table))
}

fn orders() -> TopicDescription {
    cluster::TopicInfo {
        name: "orders".to_owned(),
        queue_count: 2,
        ..Default::default()
    }
    .into()
}

fn consumer_group(
    members: &[&str],
    owner: Option<&str>,
    committed: u64,
    pulled: u64,
) -> GroupState {
    let owner = owner.map(|client_id| QueueOwner {
        client_id: client_id.to_owned(),
        seen_ms_ago: 10,
        pulled_offset: pulled,
    });
    let description = cluster::GroupInfo {
        name: "billing".to_owned(),
        ..Default::default()
    };
    GroupState {
        description: description.into(),
        members: members
            .iter()
            .map(|client_id| GroupMember {
                client_id: (*client_id).to_owned(),
                seen_ms_ago: 10,
                disputed_ms_ago: None,
            })
            .collect(),
        queues: vec![GroupQueue {
            queue: TopicQueue::new("orders", 0),
            min_offset: 0,
            max_offset: 100,
            committed: Some(committed),
            unread: 100 - committed,
            retries: 0,
            lag_ms: 5,
            owner,
        }],
    }
}

fn watched(before: GroupState, after: GroupState) -> Vec<Watched> {
    vec![Watched { before, after }]
}

/// A cluster that is well, but for what `change` does to it; the rows that are found.
fn found(change: impl FnOnce(&mut Facts)) -> Vec<Cause> {
    let reading = || consumer_group(&["a"], Some("a"), 100, 100);
    let mut facts = Facts {
        topic: Some("orders".to_owned()),
        groups: vec![GroupSurvey {
            name: "g".to_owned(),
            expired: false,
            replicas: (1..=3).map(|id| replica(wire(id))).collect(),
        }],
        proofs: [("g".to_owned(), Ok(3))].into(),
        name_servers: vec![table("n1:1"), table("n2:1")],
        topics: [("g".to_owned(), vec![orders()])].into(),
        consumer_groups: watched(reading(), reading()),
        stored_twice: Vec::new(),
    };
    change(&mut facts);
    findings(&facts)
        .iter()
        .map(|finding| finding.cause)
        .collect()
}

fn with_broker(facts: &mut Facts, change: impl FnOnce(&mut BrokerStatusResponse)) {
    let mut status = wire(2);
    change(&mut status);
    facts.groups[0].replicas[1] = replica(status);
}

/// Catches a doctor that finds something wrong with a cluster that is well.
#[test]
fn a_cluster_that_is_well_has_no_symptom() {
    assert_eq!(found(|_| {}), []);
}

/// Catches a topic or a broker that clients cannot find and the doctor does not miss.
#[test]
fn routes() {
    assert_eq!(
        found(|facts| facts.topic = Some("nothing".to_owned())),
        [Cause::TopicMissing]
    );
    let without_topic = |facts: &mut Facts| {
        let table = facts.name_servers[1].1.as_mut().unwrap();
        table.groups[0].topics.clear();
    };
    assert_eq!(
        found(without_topic),
        [Cause::TopicUnknown, Cause::NameServersDiffer]
    );
    let without_group =
        |facts: &mut Facts| facts.name_servers[1].1.as_mut().unwrap().groups.clear();
    assert_eq!(
        found(without_group),
        [Cause::NotRegistered, Cause::NameServersDiffer]
    );
    let without_any = |facts: &mut Facts| {
        facts.topic = None;
        facts.groups.clear();
        facts.topics.clear();
    };
    assert_eq!(found(without_any), [Cause::NotRegistered]);
    let without_broker = |facts: &mut Facts| {
        for (_, table) in &mut facts.name_servers {
            table.as_mut().unwrap().groups[0].replicas.pop();
        }
    };
    assert_eq!(
        found(without_broker),
        [Cause::NotRegistered, Cause::NotRegistered]
    );
    let silent = |facts: &mut Facts| facts.name_servers[0].1 = Err("refused".to_owned());
    assert_eq!(found(silent), [Cause::NameServerSilent]);
}

/// Catches brokers that are hurt and called well.
#[test]
fn brokers() {
    let slow = |facts: &mut Facts| with_broker(facts, |status| status.sync_p99_us = 1 << 18);
    assert_eq!(found(slow), [Cause::SlowDisk]);
    for free in [0, 9] {
        let full = |facts: &mut Facts| {
            with_broker(facts, |status| status.disk_free_bytes = Some(free));
        };
        assert_eq!(found(full), [Cause::DiskNearlyFull]);
    }
    let unmeasured = |facts: &mut Facts| with_broker(facts, |status| status.disk_free_bytes = None);
    assert_eq!(found(unmeasured), []);
    let late = |facts: &mut Facts| with_broker(facts, |status| status.applied = 1);
    assert_eq!(found(late), [Cause::ReplicaBehind]);
    let damaged = |facts: &mut Facts| with_broker(facts, |status| status.damage_found = 1);
    assert_eq!(found(damaged), [Cause::ReplicaDamaged]);
    let dead = |facts: &mut Facts| facts.groups[0].replicas[2].status = Err("refused".to_owned());
    assert_eq!(found(dead), [Cause::ReplicaSilent]);
    let alone = |facts: &mut Facts| {
        with_broker(facts, |status| status.state = "candidate".to_owned());
        for place in [0, 2] {
            facts.groups[0].replicas[place].status = Err("refused".to_owned());
        }
        facts.proofs = [("g".to_owned(), Err("no leader".to_owned()))].into();
        facts.topics.clear();
        facts.consumer_groups.clear();
    };
    assert_eq!(
        found(alone),
        [
            Cause::NoMajority,
            Cause::ReplicaSilent,
            Cause::ReplicaSilent
        ]
    );
    let unproven = |facts: &mut Facts| facts.proofs = [("g".to_owned(), Ok(2_000))].into();
    assert_eq!(found(unproven), [Cause::NoProof]);
}

/// Catches a clock that is wrong and not told, and one that only seems wrong because the answer was slow.
#[test]
fn clocks_are_compared_as_well_as_they_can_be() {
    let wrong = |facts: &mut Facts| with_broker(facts, |status| status.now_ms += 1_000);
    assert_eq!(found(wrong), [Cause::ClocksDiffer]);
    let slow = |facts: &mut Facts| {
        with_broker(facts, |status| status.now_ms += 1_000);
        facts.groups[0].replicas[1].took_ms = 3_000;
    };
    assert_eq!(found(slow), []);
}

/// Catches a clock that the group knows to be wrong, and that nobody is told of.
#[test]
fn a_clock_that_a_majority_disagrees_with_is_told() {
    for (apart_ms, text) in [(263_000_000, "3 d 1 h ahead of"), (-6_000, "6.0 s behind")] {
        let wrong =
            |facts: &mut Facts| with_broker(facts, |status| status.clock_apart_ms = apart_ms);
        assert_eq!(found(wrong), [Cause::ClockWrong]);
        assert!(
            wrong_clock(apart_ms).contains(text),
            "{}",
            wrong_clock(apart_ms)
        );
    }
}

/// Catches a backlog whose cause is told wrongly, or not at all.
#[test]
fn consumer_groups() {
    let dead = || consumer_group(&[], None, 40, 0);
    assert_eq!(
        found(|facts| facts.consumer_groups = watched(dead(), dead())),
        [Cause::NoConsumer]
    );
    let gone = || consumer_group(&["a"], Some("b"), 40, 40);
    assert_eq!(
        found(|facts| facts.consumer_groups = watched(gone(), gone())),
        [Cause::QueueWithoutOwner]
    );
    let slow = |facts: &mut Facts| {
        let mut after = consumer_group(&["a"], Some("a"), 60, 60);
        (after.queues[0].max_offset, after.queues[0].unread) = (1_000, 940);
        facts.consumer_groups = watched(consumer_group(&["a"], Some("a"), 50, 50), after);
    };
    assert_eq!(found(slow), [Cause::SlowConsumers]);
    let holding = || consumer_group(&["a"], Some("a"), 40, 90);
    assert_eq!(
        found(|facts| facts.consumer_groups = watched(holding(), holding())),
        [Cause::NotCommitted]
    );
    let moving = |facts: &mut Facts| {
        facts.consumer_groups = watched(holding(), consumer_group(&["a"], Some("a"), 80, 100));
    };
    assert_eq!(found(moving), [], "it commits");
    let twice = |facts: &mut Facts| {
        let places = vec![
            "orders/0 offset 1".to_owned(),
            "orders/1 offset 7".to_owned(),
        ];
        facts.stored_twice = vec![("orders".to_owned(), "01AB".to_owned(), places)];
    };
    assert_eq!(found(twice), [Cause::SentAgain]);
}
