//! Which ports `raftmq dev` uses: the usual ones, or ten in a row that are remembered with the data.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::failure::Failure;
use crate::files;
use crate::process::BrokerPorts;

/// The name server's usual port.
pub(crate) const NAME_SERVER: u16 = 9876;
const FIRST_CLIENT: u16 = 8081;
const FIRST_PEER: u16 = 9081;
const FIRST_ADMIN: u16 = 7081;
const BROKERS: u16 = 3;

/// The name server's port and the brokers'.
///
/// # Errors
///
/// If one of them is taken, or `base_port` leaves no room.
pub(crate) fn choose(
    directory: &Path,
    base_port: Option<u16>,
) -> Result<(u16, BTreeMap<u64, BrokerPorts>), Failure> {
    let remembered = directory.join("base-port");
    let base_port = base_port.or_else(|| files::read_text(&remembered).ok()?.trim().parse().ok());
    let (name_server, first_client, first_peer, first_admin) = match base_port {
        Some(base) if base > u16::MAX - 3 * BROKERS => {
            return Err(Failure::Configuration(format!(
                "--base-port {base} leaves no room above"
            )));
        }
        Some(base) => (base, base + 1, base + 1 + BROKERS, base + 1 + 2 * BROKERS),
        None => (NAME_SERVER, FIRST_CLIENT, FIRST_PEER, FIRST_ADMIN),
    };
    let brokers: BTreeMap<u64, BrokerPorts> = (0..BROKERS)
        .map(|place| {
            let ports = BrokerPorts {
                client: first_client + place,
                peer: first_peer + place,
                admin: first_admin + place,
            };
            (u64::from(place) + 1, ports)
        })
        .collect();
    let all = brokers
        .values()
        .flat_map(|ports| [ports.client, ports.peer, ports.admin])
        .chain([name_server]);
    for port in all {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
            let hint = "choose others with --base-port";
            Failure::Operation(format!("port {port} cannot be used ({error}); {hint}"))
        })?;
    }
    if let Some(base) = base_port {
        files::write_text(&remembered, &base.to_string())
            .map_err(|error| Failure::during(format!("writing {}", remembered.display()), error))?;
    }
    Ok((name_server, brokers))
}
