//! Makes clients: tries until there is one, or clients are told to stop.

use std::time::Duration;

use host::Host;
use raftmq_client::{Administration, Client, ClusterSecret};

use super::{Clients, Phase};
use crate::machine::{ADMIN_PORT, CLIENT_PORT, Machine};
use crate::world::World;

/// Pause before a client that could not be made is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Brokers that schedules name, about.
const SCHEDULED_BROKERS: u8 = 10;

/// Brokers that an operator takes by himself, about.
const SPARE_BROKERS: u8 = 6;

/// When most clients give a call up.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// When hasty ones do: sooner than many faults end, so that they do not learn the outcome.
pub const LITTLE_PATIENCE: Duration = Duration::from_secs(2);

/// Over any broker that there is or may be: those that a world begins with may all be replaced.
fn administration(world: &World) -> Administration {
    let secret = ClusterSecret::load("simulated".as_ref()).expect("the simulator has one");
    let brokers = world.groups().flat_map(|group| {
        let (first, spare) = (group.base() + 1, group.first_spare());
        (first..first + SCHEDULED_BROKERS).chain(spare..=spare + SPARE_BROKERS)
    });
    let brokers = brokers.map(Machine::Broker);
    Administration::new(secret).endpoints(brokers.map(|broker| broker.address(ADMIN_PORT)))
}

/// A client, as soon as it can be made; none if clients are told to stop before.
pub async fn connect(
    clients: &Clients,
    host: &Host,
    id: String,
    name_servers: bool,
    patience: Duration,
) -> Option<Client> {
    let brokers = clients.world.all_brokers();
    let seeds = match name_servers {
        true => clients.world.name_server_addresses(),
        false => brokers
            .iter()
            .map(|broker| broker.machine.address(CLIENT_PORT))
            .collect(),
    };
    while clients.phase() < Phase::Stop {
        let building = Client::builder()
            .seeds(seeds.clone())
            .client_id(id.clone())
            .administration(administration(&clients.world))
            .attempt_timeout(Duration::from_millis(clients.plan.attempt_ms))
            .request_timeout(patience)
            .start_timeout(Duration::from_secs(3))
            .host(host)
            .build();
        match building.await {
            Ok(client) => return Some(client),
            Err(error) => tracing::debug!(%error, "no client yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
    None
}
