//! Administration calls: finding the leader, telling refusals from successes.

use std::time::Duration;

use raftmq_client::{Code, TopicSettings};

use crate::client;
use crate::fake::{FakeCluster, TOPIC};

/// Catches a call that stays with a follower, and a refusal that is taken for a yes.
#[tokio::test]
async fn calls_find_the_leader_and_say_no_when_it_does() {
    let cluster = FakeCluster::start(3, 4).await;
    cluster.world().leader = 2;
    let admin = client(&cluster, "a").await.admin();
    let topics = admin.list_topics().await.expect("an answer");
    assert_eq!(
        (topics.len(), topics[0].name.as_str(), topics[0].queue_count),
        (1, TOPIC, 4)
    );
    assert!(admin.topic("nowhere").await.expect("an answer").is_none());
    let error = admin
        .create_topic(TOPIC, &TopicSettings::default())
        .await
        .expect_err("exists");
    assert_eq!(error.code(), Some(Code::PreconditionFailed), "{error}");
    let settings = TopicSettings {
        if_absent: true,
        ..TopicSettings::default()
    };
    admin
        .create_topic(TOPIC, &settings)
        .await
        .expect("absent or not");
}

/// Catches a list of brokers that depends on which seed answered, and one dead replica that hides the others.
#[tokio::test]
async fn brokers_are_listed_once_each() {
    let cluster = FakeCluster::start(3, 1).await;
    let admin = client(&cluster, "a").await.admin();
    let brokers = admin.brokers().await.expect("an answer");
    assert_eq!(
        brokers
            .iter()
            .map(|broker| broker.broker_id)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    cluster.world().silent.insert(1);
    assert_eq!(admin.brokers().await.expect("the others answer"), brokers);
    let status = admin
        .status(&brokers[2].client_address)
        .await
        .expect("an answer");
    assert_eq!(
        (status.broker_id, status.leader, status.state.as_str()),
        (3, Some(1), "follower")
    );
    assert!(admin.status(&brokers[1].client_address).await.is_err());
}

/// Catches an operator's script that fails because it is started a moment before the cluster answers.
#[tokio::test]
async fn a_cluster_that_is_still_starting_is_waited_for() {
    let cluster = FakeCluster::start(2, 4).await;
    let admin = client(&cluster, "a").await.admin();
    cluster.world().silent.extend([0, 1]);
    let (topics, ()) = tokio::join!(admin.list_topics(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.world().silent.clear();
    });
    assert_eq!(topics.expect("an answer").len(), 1);
    let nobody = admin
        .timeout(Duration::from_millis(100))
        .broker_group("no-such-group");
    let error = nobody.list_topics().await.expect_err("no such group");
    assert!(error.to_string().contains("no-such-group"), "{error}");
}
