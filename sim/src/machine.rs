//! The machines of a world, their names and addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// Port on which brokers serve clients.
pub const CLIENT_PORT: u16 = 8081;
/// Port on which brokers serve their peers.
pub const PEER_PORT: u16 = 9081;
/// Port on which brokers serve operators.
pub const ADMIN_PORT: u16 = 7081;
/// Port of name servers.
pub const NAME_SERVER_PORT: u16 = 9876;

/// One machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Machine {
    /// A broker, by its id in the group.
    Broker(u8),
    /// A name server.
    NameServer(u8),
    /// A machine with producers and consumers.
    Client(u8),
    /// Where an operator sits.
    Operator,
}

impl Machine {
    /// Its address.
    pub fn ip(self) -> IpAddr {
        let (network, number) = match self {
            Machine::Broker(number) => (1, number),
            Machine::NameServer(number) => (2, number),
            Machine::Client(number) => (3, number),
            Machine::Operator => (4, 1),
        };
        IpAddr::V4(Ipv4Addr::new(10, 0, network, number))
    }

    /// The machine at an address.
    pub fn at(ip: IpAddr) -> Option<Machine> {
        let IpAddr::V4(ip) = ip else {
            return None;
        };
        match ip.octets() {
            [10, 0, 1, number] => Some(Machine::Broker(number)),
            [10, 0, 2, number] => Some(Machine::NameServer(number)),
            [10, 0, 3, number] => Some(Machine::Client(number)),
            [10, 0, 4, 1] => Some(Machine::Operator),
            _ => None,
        }
    }

    /// `host:port` of a port of its.
    pub fn address(self, port: u16) -> String {
        format!("{}:{port}", self.ip())
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Machine::Broker(number) => write!(formatter, "broker-{number}"),
            Machine::NameServer(number) => write!(formatter, "name-server-{number}"),
            Machine::Client(number) => write!(formatter, "client-{number}"),
            Machine::Operator => formatter.write_str("operator"),
        }
    }
}

impl From<Machine> for String {
    fn from(machine: Machine) -> String {
        machine.to_string()
    }
}

impl TryFrom<String> for Machine {
    type Error = String;

    fn try_from(text: String) -> Result<Machine, String> {
        if text == "operator" {
            return Ok(Machine::Operator);
        }
        let unknown = || format!("{text:?} is no machine");
        let (kind, number) = text.rsplit_once('-').ok_or_else(unknown)?;
        let number = number.parse().map_err(|_| unknown())?;
        match kind {
            "broker" => Ok(Machine::Broker(number)),
            "name-server" => Ok(Machine::NameServer(number)),
            "client" => Ok(Machine::Client(number)),
            _ => Err(unknown()),
        }
    }
}
