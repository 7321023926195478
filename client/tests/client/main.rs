//! The client against brokers that redirect, refuse, fall silent and lose answers.

#![cfg(not(madsim))]

mod administration;
mod choosing;
mod consuming;
mod fake;
mod fake_admin;
mod fake_redelivery;
#[cfg(feature = "metrics")]
mod measuring;
mod producing;
mod pushing;
#[cfg(feature = "tls")]
mod securing;

use std::time::Duration;

use raftmq_client::{Administration, Client};

use fake::FakeCluster;

/// A client with short waits, so that a lost answer costs a test little.
async fn client(cluster: &FakeCluster, client_id: &str) -> Client {
    Client::builder()
        .seeds(cluster.seeds())
        .client_id(client_id)
        .administration(
            Administration::new(host::testing::cluster_secret()).endpoints(cluster.seeds()),
        )
        .attempt_timeout(Duration::from_millis(300))
        .request_timeout(Duration::from_secs(5))
        .build()
        .await
        .expect("a seed answers")
}
