//! Addresses as the contract has them.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::v2::{Address, AddressScheme, Endpoints};

/// `host:port`, an IPv6 address in brackets, as clients take it: of one scheme. None if it is no address.
pub fn endpoints(address: &str) -> Option<Endpoints> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let scheme = if host.parse::<Ipv4Addr>().is_ok() {
        AddressScheme::IPv4
    } else if host.parse::<Ipv6Addr>().is_ok() {
        AddressScheme::IPv6
    } else {
        AddressScheme::DomainName
    };
    Some(Endpoints {
        scheme: scheme.into(),
        addresses: vec![Address {
            host: host.to_owned(),
            port: port.into(),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an address that a client would parse into something else.
    #[test]
    fn endpoints_say_what_kind_of_address_they_hold() {
        for (address, scheme, host) in [
            ("10.0.0.1:8081", AddressScheme::IPv4, "10.0.0.1"),
            ("[::1]:8081", AddressScheme::IPv6, "::1"),
            (
                "broker-1.local:8081",
                AddressScheme::DomainName,
                "broker-1.local",
            ),
        ] {
            let endpoints = endpoints(address).unwrap();
            assert_eq!(endpoints.scheme, i32::from(scheme), "{address}");
            assert_eq!(endpoints.addresses.len(), 1);
            let said = &endpoints.addresses[0];
            assert_eq!((&*said.host, said.port), (host, 8081));
        }
        for none in ["", "host", "host:", "host:70000", "host:http"] {
            assert_eq!(endpoints(none), None, "{none:?}");
        }
    }
}
