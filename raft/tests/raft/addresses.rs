//! Replicas whose addresses change: the others find them, and the group's log says where they are.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use crate::common::{Cluster, PATIENCE, eventually, free_addresses, member};
use raftmq_raft::{ChangeError, RaftConfig};

/// Peer addresses by broker id.
type Places = BTreeMap<u64, String>;

/// A new address for each of these.
fn elsewhere(broker_ids: impl IntoIterator<Item = u64>) -> Places {
    let ids: Vec<u64> = broker_ids.into_iter().collect();
    let addresses = free_addresses(ids.len());
    ids.into_iter().zip(addresses).collect()
}

/// The configuration of a replica that knows its own new address and nobody else's.
fn moved(cluster: &Cluster, broker_id: u64, address: &str) -> RaftConfig {
    let mut config = cluster.config(broker_id);
    config.peer_listen = address.to_owned();
    let mut own = config
        .members
        .iter_mut()
        .filter(|one| one.broker_id == broker_id);
    let own = own.next().unwrap();
    *own = member(broker_id, address.to_owned());
    // Somebody accepts connections there.
    own.client_address = address.to_owned();
    config
}

async fn start_moved(cluster: &mut Cluster, broker_id: u64, address: &str) {
    let config = moved(cluster, broker_id, address);
    let replica = cluster.try_start(config).await.unwrap();
    cluster.running.insert(broker_id, replica);
}

/// Waits until all running replicas have these places in their membership, for clients too.
async fn logged(cluster: &Cluster, places: &Places) {
    for (id, replica) in &cluster.running {
        eventually(&format!("replica {id} has {places:?} in its log"), || {
            let members = replica.group.status().members;
            let there = members.iter().all(|one| {
                let member = &one.member;
                let place = places.get(&member.broker_id);
                place.is_none_or(|place| {
                    member.peer_address == *place && member.client_address == *place
                })
            });
            (there && members.len() == 3).then_some(())
        })
        .await;
    }
}

/// Catches a replica that is dialled for ever where it was: followers and leader, one after the other, with nobody else's
/// configuration changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_moved_is_found_and_the_log_says_where() {
    let mut cluster = Cluster::three().await;
    cluster.propose("before").await;
    let mut places = Places::new();
    for round in 0..3 {
        // The leader too, at the end.
        let unmoved = cluster.running.keys().copied();
        let leader = cluster.leader().await;
        let unmoved: Vec<u64> = unmoved.filter(|id| !places.contains_key(id)).collect();
        let one = *unmoved
            .iter()
            .find(|id| (**id == leader) == (round == 2))
            .unwrap_or(&unmoved[0]);
        cluster.stop(one).await;
        let to = elsewhere([one]);
        start_moved(&mut cluster, one, &to[&one]).await;
        places.extend(to);
        logged(&cluster, &places).await;
        assert_eq!(cluster.voters(one).len(), 3, "all still vote");
    }
    // It is needed where it is: with another one down there is a majority with it only.
    let down = cluster.follower().await;
    cluster.stop(down).await;
    let after = cluster.propose("after").await;
    cluster.settle(after.log_id.index).await;
}

/// Catches a group whose replicas all moved, know where the others are, and look for them where they were.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_all_moved_find_each_other_by_their_configuration() {
    let mut cluster = Cluster::three().await;
    cluster.propose("before").await;
    cluster.stop_all().await;
    let places = elsewhere(1..=3);
    for one in &mut cluster.members {
        one.peer_address = places[&one.broker_id].clone();
        one.client_address = one.peer_address.clone();
    }
    cluster.start_all().await;
    let after = cluster.propose("after").await;
    cluster.settle(after.log_id.index).await;
    logged(&cluster, &places).await;
}

/// Catches a group whose replicas all moved and do not know where the others are, for which there is no help; and an
/// operator's word that is gone after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn one_replica_that_is_told_brings_all_together() {
    let mut cluster = Cluster::three().await;
    let before = cluster.propose("before").await;
    // The one that will be told has heard of the group.
    cluster.settle(before.log_id.index).await;
    cluster.stop_all().await;
    let places = elsewhere(1..=3);
    start_moved(&mut cluster, 1, &places[&1]).await;
    for other in 2..=3 {
        let told = cluster.group(1).set_address(other, &places[&other]).await;
        told.unwrap();
    }
    cluster.stop(1).await;
    for (broker_id, address) in &places {
        start_moved(&mut cluster, *broker_id, address).await;
    }
    let after = cluster.propose("after").await;
    cluster.settle(after.log_id.index).await;
    logged(&cluster, &places).await;
}

/// Catches a replica that does not start because others are where its peers were: which data directory answers decides who
/// is a member, not the address.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_swap_their_addresses_find_each_other() {
    let mut cluster = Cluster::three().await;
    cluster.propose("before").await;
    cluster.stop_all().await;
    let mut places: Places = (cluster.members.iter())
        .map(|one| (one.broker_id, one.peer_address.clone()))
        .collect();
    let (second, third) = (places[&2].clone(), places[&3].clone());
    places.extend([(2, third), (3, second)]);
    // The first one's configuration is of before.
    cluster.start(1).await;
    for one in &mut cluster.members {
        one.peer_address = places[&one.broker_id].clone();
    }
    cluster.start(2).await;
    cluster.start(3).await;
    let after = cluster.propose("after").await;
    cluster.settle(after.log_id.index).await;
    for replica in cluster.running.values() {
        eventually("the log has them where they are", || {
            let members = replica.group.status().members;
            let there = members
                .iter()
                .all(|one| one.member.peer_address == places[&one.member.broker_id]);
            there.then_some(())
        })
        .await;
    }
}

/// Catches a clients' address that becomes the group's although nobody is there: clients would be sent there.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_for_clients_at_which_nobody_is_stays_out_of_the_log() {
    let mut cluster = Cluster::three().await;
    let one = cluster.follower().await;
    let before = cluster.member(one).client_address.clone();
    cluster.stop(one).await;
    let place = elsewhere([one]).remove(&one).unwrap();
    let mut config = moved(&cluster, one, &place);
    let own = (config.members.iter_mut()).find(|member| member.broker_id == one);
    own.unwrap().client_address = free_addresses(1).remove(0);
    let replica = cluster.try_start(config).await.unwrap();
    cluster.running.insert(one, replica);
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    let logged = eventually("its address for peers is in the log", || {
        let members = group.status().members;
        let member = members.into_iter().map(|member| member.member);
        member
            .filter(|member| member.broker_id == one)
            .find(|member| member.peer_address == place)
    });
    assert_eq!(logged.await.client_address, before);
}

/// Catches a replica that is lost to a word which is no address, in its own configuration: it is a guess of where another
/// member may be, no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_guess_that_is_no_address_does_no_harm() {
    let mut cluster = Cluster::three().await;
    // It knows by the log who its peers are: only then the configuration is a guess.
    let before = cluster.propose("before").await;
    cluster.settle(before.log_id.index).await;
    let one = cluster.follower().await;
    cluster.stop(one).await;
    let mut config = cluster.config(one);
    for other in config
        .members
        .iter_mut()
        .filter(|other| other.broker_id != one)
    {
        other.peer_address = "no address".to_owned();
    }
    let replica = cluster.try_start(config).await.unwrap();
    cluster.running.insert(one, replica);
    let after = cluster.propose("after").await;
    cluster.settle(after.log_id.index).await;
}

/// Catches a replica that takes another broker for the one that it was told is there, or that is lost to a wrong word.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_word_about_an_address_does_no_harm() {
    let mut cluster = Cluster::three().await;
    let away = cluster.follower().await;
    let leader = cluster.leader().await;
    cluster.stop(away).await;
    let third = *cluster.running.keys().find(|id| **id != leader).unwrap();
    let wrong = cluster.member(third).peer_address.clone();
    cluster
        .group(leader)
        .set_address(away, &wrong)
        .await
        .unwrap();
    for (id, reason) in [(leader, "announces"), (9, "not in the group")] {
        let refused = cluster.group(leader).set_address(id, &wrong).await;
        let Err(ChangeError::Refused { reason: said }) = refused else {
            panic!("{refused:?}");
        };
        assert!(said.contains(reason), "{said}");
    }
    let refused = cluster.group(leader).set_address(away, "no address").await;
    assert!(
        matches!(refused, Err(ChangeError::Refused { .. })),
        "{refused:?}"
    );
    let long = format!("{}:1", "a".repeat(600));
    let refused = cluster.group(leader).set_address(away, &long).await;
    assert!(
        matches!(refused, Err(ChangeError::Refused { .. })),
        "{refused:?}"
    );
    // It can be taken back, also what was said of nobody.
    for id in [away, 9] {
        cluster.group(leader).set_address(id, "").await.unwrap();
    }
    cluster.propose("while it is away").await;
    cluster.start(away).await;
    let after = cluster.propose("after").await;
    tokio::time::timeout(PATIENCE, cluster.settle(after.log_id.index))
        .await
        .unwrap();
    assert_eq!(cluster.member(away).peer_address, {
        let members = cluster.group(leader).status().members;
        let one = members.into_iter().find(|one| one.member.broker_id == away);
        one.unwrap().member.peer_address
    });
}
