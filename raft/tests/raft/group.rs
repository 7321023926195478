//! Election, proposing, failover, restart, leadership transfer and membership, on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::{Cluster, PATIENCE, Replica, eventually, is_not_leader, member};
use host::Host;
use raftmq_raft::{ChangeError, Member, Phase, ProposeError, RaftConfig, RaftError};

/// Catches a group that loses an acknowledged entry when its leader dies, or a replica whose tables
/// differ after it was away.
async fn survives_the_loss_of_its_leader(mut cluster: Cluster) {
    cluster.start_all().await;
    cluster.fill(20, 100).await;
    let first = cluster.leader().await;
    cluster.stop(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    cluster.fill(20, 100).await;
    cluster.start(first).await;
    let last = cluster.fill(1, 100).await;
    cluster.settle(last).await;
    for replica in cluster.running.values() {
        let log = replica.group.log();
        for index in 1..=last {
            let entry = log.entry(index).await.unwrap();
            if entry.kind == store::EntryKind::Normal {
                let row = crate::common::Rows::of(&replica.rows, index).unwrap();
                assert_eq!(row.len(), 12, "row of {index}");
            }
        }
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_the_loss_of_its_leader_in_memory() {
    survives_the_loss_of_its_leader(Cluster::new(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_the_loss_of_its_leader_on_the_default_engine() {
    let engine = store::default_engine(&Host::real(), &[]);
    survives_the_loss_of_its_leader(Cluster::with_engine(3, engine)).await;
}

/// Catches a group that forgets what it acknowledged when everybody restarts.
#[tokio::test(flavor = "multi_thread")]
async fn survives_the_restart_of_everybody() {
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(30, 2_000).await;
    let before = cluster.running[&1].group.log().entry(last).await.unwrap();
    cluster.stop_all().await;
    cluster.start_all().await;
    let next = cluster.propose("after").await;
    assert!(next.log_id.index > last);
    assert_eq!(
        cluster.running[&1].group.log().entry(last).await.unwrap(),
        before
    );
    cluster.settle(next.log_id.index).await;
}

/// Catches a replica that does not end its segment where the others do, and an application that is given an entry which says
/// nothing to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_ends_the_segment_of_every_replica() {
    let mut cluster = Cluster::three().await;
    let before = cluster.propose("before").await;
    let leader = cluster.leader().await;
    let rolled = cluster.group(leader).roll().await.unwrap().log_id.index;
    let after = cluster.propose("after").await;
    let count = |reply: &[u8]| std::str::from_utf8(reply).unwrap().parse::<u64>().unwrap();
    assert_eq!(count(&after.reply), count(&before.reply) + 1);
    cluster.settle(after.log_id.index).await;
    cluster.stop_all().await;
    cluster.start_all().await;
    cluster.settle(after.log_id.index).await;
    for replica in cluster.running.values() {
        let log = replica.group.log();
        assert_eq!(log.tail_begin(), Some(rolled));
        let kind = log.entry(rolled).await.unwrap().kind;
        assert_eq!(kind, store::EntryKind::Roll);
    }
}

/// Catches a group of one that waits for peers.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_alone_serves_at_once() {
    let mut cluster = Cluster::new(1);
    cluster.start(1).await;
    let first = cluster.propose("one").await;
    cluster.group(1).read_barrier(PATIENCE).await.unwrap();
    cluster.stop(1).await;
    cluster.start(1).await;
    assert!(cluster.propose("two").await.log_id > first.log_id);
}

/// Catches followers that take proposals, and a minority that acknowledges any.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_leader_with_a_majority_takes_proposals() {
    let mut cluster = Cluster::three().await;
    cluster.propose("first").await;
    let follower = cluster.follower().await;
    let error = cluster
        .group(follower)
        .propose("x".into())
        .await
        .unwrap_err();
    let leader = cluster.leader().await;
    let named = Some(cluster.member(leader).clone());
    assert_eq!(error, ProposeError::NotLeader { leader: named });
    assert!(cluster.group(leader).read_barrier(PATIENCE).await.is_ok());
    let barrier = cluster.group(follower).read_barrier(PATIENCE).await;
    assert!(is_not_leader(&barrier.unwrap_err()));
    for id in [1, 2, 3].into_iter().filter(|id| *id != leader) {
        cluster.stop(id).await;
    }
    let group = cluster.group(leader);
    eventually("the leader stops serving", || {
        (!group.leadership().borrow().serving).then_some(())
    })
    .await;
    assert_eq!(
        group.propose("lost".into()).await.unwrap_err(),
        ProposeError::NoQuorum
    );
    assert!(group.read_barrier(PATIENCE).await.is_err());
}

/// Catches a replica that hands over to one that is dead, or that has nothing to hand over and does all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_hands_over_to_one_that_lives() {
    let mut cluster = Cluster::three().await;
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    let follower = cluster.follower().await;
    let nothing = cluster.group(follower).hand_over(PATIENCE).await;
    assert_eq!(nothing, Ok(None));
    for dead in 1..=3 {
        let leader = cluster.leader().await;
        if dead == leader {
            continue;
        }
        // It has come as far as the other.
        cluster.stop(dead).await;
        let other = 6 - leader - dead;
        let to = cluster.group(leader).hand_over(PATIENCE).await;
        assert_eq!(to, Ok(Some(other)));
        assert_eq!(cluster.leader().await, other);
        cluster.start(dead).await;
        let last = cluster.fill(1, 100).await;
        cluster.settle(last).await;
    }
}

/// Catches a transfer that only waits for the lease to end, or to somebody who does not vote.
#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_transferred_on_request() {
    let cluster = Cluster::three().await;
    cluster.fill(5, 100).await;
    let from = cluster.leader().await;
    let to = cluster.follower().await;
    cluster
        .group(from)
        .transfer_leader(to, PATIENCE)
        .await
        .unwrap();
    assert_eq!(cluster.leader().await, to);
    cluster.propose("after").await;
    let error = cluster
        .group(to)
        .transfer_leader(99, PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, ChangeError::Refused { .. }), "{error}");
    let error = cluster
        .group(from)
        .transfer_leader(from, PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, ChangeError::NotLeader { .. }), "{error}");
}

/// Catches a replacement that does not get the entries, or a removed replica that goes on voting.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_replaced_by_another() {
    let mut cluster = Cluster::three().await;
    cluster.fill(10, 1_000).await;
    let address = crate::common::free_addresses(1).remove(0);
    let newcomer = member(4, address);
    let founders = cluster.members.clone();
    cluster.members.push(newcomer.clone());
    let mut config = cluster.config(4);
    config.members = founders;
    let replica = cluster.try_start(config).await.unwrap();
    replica.wait_phase(Phase::Running).await;
    cluster.running.insert(4, replica);
    let leader = cluster.leader().await;
    let gone = cluster.follower().await;
    let group = cluster.group(leader).clone();
    group.add_learner(newcomer.clone(), PATIENCE).await.unwrap();
    group.add_learner(newcomer, PATIENCE).await.unwrap();
    let last = cluster.fill(1, 100).await;
    cluster.settle(last).await;
    let voters: BTreeSet<u64> = [1, 2, 3, 4].into_iter().filter(|id| *id != gone).collect();
    group.change_voters(voters.clone(), PATIENCE).await.unwrap();
    assert_eq!(cluster.voters(leader), voters);
    cluster.stop(gone).await;
    let last = cluster.fill(5, 100).await;
    cluster.settle(last).await;
    // Only a replica that does not vote can be taken out without a vote.
    let leader = cluster.leader().await;
    let group = cluster.group(leader).clone();
    for wrong in [gone, leader] {
        let error = group.remove_learner(wrong, PATIENCE).await.unwrap_err();
        assert!(matches!(error, ChangeError::Refused { .. }), "{error}");
    }
    // The id stays with the data directory that had it.
    let reused = member(4, crate::common::free_addresses(1).remove(0));
    let error = group.add_learner(reused, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ChangeError::Refused { .. }), "{error}");
}

/// Catches a newcomer that has made a group of its own, whose first entries then pass for those of this group: what they
/// held here would be missing there, and gone once it leads.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_a_group_of_its_own_cannot_join() {
    let mut cluster = Cluster::three().await;
    cluster.fill(10, 100).await;
    let newcomer = member(4, crate::common::free_addresses(1).remove(0));
    cluster.members.push(newcomer.clone());
    let mut config = cluster.config(4);
    config.members = vec![newcomer.clone()];
    let alone = cluster.try_start(config).await.unwrap();
    eventually("a group of one", || {
        let leadership = alone.group.leadership();
        let serving = leadership.borrow().serving;
        serving.then_some(())
    })
    .await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader).clone();
    let error = group.add_learner(newcomer, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ChangeError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("belongs to another group"),
        "{error}"
    );
    alone.stop().await;
}

/// Catches a broker that lost its disk and votes for one that was taken out: the two would be a majority of the group as it
/// once was, beside the one that there is, and what they acknowledged would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_taken_out_is_not_elected_by_one_that_lost_its_disk() {
    let mut cluster = Cluster::three().await;
    cluster.fill(5, 100).await;
    let founders = cluster.members.clone();

    let removed = cluster.follower().await;
    cluster.stop(removed).await;
    let address = crate::common::free_addresses(1).remove(0);
    replace(&mut cluster, removed, member(4, address), &founders).await;
    let leader = cluster.leader().await;
    let mut founding = founders.iter().map(|member| member.broker_id);
    let wiped = founding.find(|id| ![removed, leader].contains(id)).unwrap();
    cluster.stop(wiped).await;
    let address = crate::common::free_addresses(1).remove(0);
    replace(&mut cluster, wiped, member(5, address), &founders).await;

    let disk = Host::real().disk;
    disk.remove_dir_all(&cluster.data_dir(wiped)).unwrap();
    let mut config = cluster.config(wiped);
    config.members = founders.clone();
    // It hears of the group, and not from the other one that it was a member: whoever asks it must say so.
    let unheard = config
        .members
        .iter_mut()
        .find(|one| one.broker_id == removed);
    unheard.unwrap().peer_address = crate::common::free_addresses(1).remove(0);
    let empty = start_in_place_of(&cluster, config).await;
    empty.wait_phase(Phase::Running).await;

    cluster.stop_all().await;
    let mut config = cluster.config(removed);
    config.members = founders;
    let stale = cluster.try_start(config).await.unwrap();
    let mut leadership = stale.group.leadership();
    let leads = leadership.wait_for(|leadership| leadership.is_leader);
    tokio::select! {
        led = leads => panic!("elected: {led:?}"),
        refused = empty.group.failed() => {
            assert!(refused.to_string().contains("is not the one it joined"), "{refused}");
        }
        () = tokio::time::sleep(PATIENCE) => panic!("the empty one goes on"),
    }
}

/// Starts a replica under the id of one that ended, as soon as its peers hold that one for dead.
async fn start_in_place_of(cluster: &Cluster, config: RaftConfig) -> Replica {
    loop {
        match cluster.try_start(config.clone()).await {
            Ok(replica) => return replica,
            Err(RaftError::DuplicateBroker { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Takes `gone` out and `newcomer`, who is configured with `known`, in.
async fn replace(cluster: &mut Cluster, gone: u64, newcomer: Member, known: &[Member]) {
    let id = newcomer.broker_id;
    cluster.members.push(newcomer.clone());
    let mut config = cluster.config(id);
    config.members = known.to_vec();
    let replica = cluster.try_start(config).await.unwrap();
    replica.wait_phase(Phase::Running).await;
    cluster.running.insert(id, replica);
    let leader = cluster.leader().await;
    let group = cluster.group(leader).clone();
    group.add_learner(newcomer, PATIENCE).await.unwrap();
    let last = cluster.fill(1, 100).await;
    cluster.settle(last).await;
    let mut voters = cluster.voters(leader);
    voters.remove(&gone);
    voters.insert(id);
    group.change_voters(voters, PATIENCE).await.unwrap();
}

/// Catches a whole replica that does not start any more because its configuration still names one that was replaced, at
/// whose address its successor runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_successor_at_the_address_of_the_one_before_it_is_no_stranger() {
    let mut cluster = Cluster::three().await;
    let founders = cluster.members.clone();
    let gone = cluster.follower().await;
    let address = cluster.member(gone).peer_address.clone();
    cluster.stop(gone).await;
    let mut known = founders.clone();
    known.retain(|member| member.broker_id != gone);
    replace(&mut cluster, gone, member(4, address), &known).await;

    let old = known[0].broker_id;
    cluster.stop(old).await;
    let mut config = cluster.config(old);
    config.members = founders;
    let replica = cluster.try_start(config).await.unwrap();
    cluster.running.insert(old, replica);
    let last = cluster.fill(1, 100).await;
    cluster.settle(last).await;
}

/// Catches a newcomer that confirms entries in the place of a dead voter whose address it was given: the voter's disk may
/// come back, without them.
#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_at_a_dead_voters_address_is_not_taken_for_it() {
    let mut cluster = Cluster::three().await;
    let leader = cluster.leader().await;
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    // It was not told of the one before it: a newcomer that was sees for itself that something is wrong.
    let mut known = cluster.members.clone();
    known.retain(|member| member.broker_id != followers[0]);
    let address = cluster.member(followers[0]).peer_address.clone();
    cluster.stop(followers[0]).await;
    cluster.members.push(member(4, address));
    let mut config = cluster.config(4);
    config.members = known;
    let newcomer = cluster.try_start(config).await.unwrap();
    newcomer.wait_phase(Phase::Running).await;
    cluster.stop(followers[1]).await;
    let proposed = cluster.group(leader).propose("one has it".into()).await;
    assert!(proposed.is_err(), "one of three is no majority");
    assert_eq!(newcomer.group.status().appended, None);
}

/// Catches concurrent proposals that get each other's replies.
#[tokio::test(flavor = "multi_thread")]
async fn every_proposer_gets_its_own_reply() {
    let cluster = Cluster::three().await;
    let leader = cluster.leader().await;
    let group = Arc::new(cluster.group(leader).clone());
    let calls = (0..200).map(|number| {
        let group = group.clone();
        tokio::spawn(async move {
            group
                .propose(format!("body {number}").into())
                .await
                .unwrap()
        })
    });
    let mut replies = BTreeSet::new();
    for call in calls.collect::<Vec<_>>() {
        let proposed = call.await.unwrap();
        let reply: u64 = std::str::from_utf8(&proposed.reply)
            .unwrap()
            .parse()
            .unwrap();
        replies.insert((proposed.log_id.index, reply));
    }
    assert_eq!(replies.len(), 200);
    // Replies count the entries, so they grow with the index.
    let counts: Vec<u64> = replies.iter().map(|(_, count)| *count).collect();
    assert!(counts.is_sorted_by(|before, after| before < after));
}
