//! Asks one broker about itself, with a deadline.

use std::time::Duration;

use host::network::{self, ChannelOptions, ClusterSecret};
use proto::cluster::broker_admin_client::BrokerAdminClient;
use proto::cluster::{BrokerStatusRequest, BrokerStatusResponse};
use tonic::transport::Channel;

use crate::failure::Failure;

/// Longest wait for one broker's answer.
const STATUS_PATIENCE: Duration = Duration::from_millis(500);

/// A client of the administration of the broker whose listener for operators is at `address` (`host:port`); connects
/// when first used.
///
/// # Errors
///
/// If the address is no address.
pub fn with_admin(
    address: &str,
    secret: &ClusterSecret,
) -> Result<BrokerAdminClient<Channel>, Failure> {
    let options = ChannelOptions {
        secret: Some(secret.clone()),
        ..ChannelOptions::default()
    };
    let channel = network::channel(address, &options)
        .map_err(|error| Failure::during(format!("broker {address}"), error))?;
    Ok(BrokerAdminClient::new(channel))
}

/// What the broker at `address` says of itself; None if it does not answer soon.
pub async fn status(address: &str, secret: &ClusterSecret) -> Option<BrokerStatusResponse> {
    let mut admin = with_admin(address, secret).ok()?;
    let answer = admin.status(BrokerStatusRequest {});
    let answer = tokio::time::timeout(STATUS_PATIENCE, answer)
        .await
        .ok()?
        .ok()?;
    Some(answer.into_inner())
}
