//! Free TCP ports on the loopback address.
//!
//! Below the range from which the system takes ports for outgoing connections, so that a broker that
//! is started again finds its port still free.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

/// Ports handed out by this process so far; parallel tests must not get the same one.
static HANDED_OUT: AtomicU16 = AtomicU16::new(0);

/// `count` ports on which nobody listens now.
///
/// # Errors
///
/// `AddrInUse` if there are not so many.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let mut found = Vec::with_capacity(count);
    for _ in FIRST..LAST {
        if found.len() == count {
            return Ok(found);
        }
        let port = next_candidate();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            found.push(port);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        "no free ports between 10000 and 32000",
    ))
}

/// Processes start at different places, so that two of them at one time seldom meet.
fn next_candidate() -> u16 {
    let span = u32::from(LAST - FIRST);
    let start = std::process::id().wrapping_mul(7919) % span;
    let step = u32::from(HANDED_OUT.fetch_add(1, Ordering::Relaxed));
    let place = u16::try_from((start + step) % span).expect("the span fits into 16 bits");
    FIRST + place
}

#[cfg(test)]
mod tests {
    use super::free_ports;

    /// Catches two groups of one process being given the same port.
    #[test]
    fn ports_are_not_handed_out_twice() {
        let mut ports = free_ports(40).expect("there are free ports");
        ports.extend(free_ports(40).expect("there are free ports"));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 80);
    }
}
