//! The only word that nodes and the client exchange besides the blocks: how far a node has synced.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a node may take to listen after it was started.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_INTERVAL: Duration = Duration::from_millis(5);

/// Says that everything below `position` of the stream is synced.
pub(super) fn send_position(mut stream: &TcpStream, position: u64) -> io::Result<()> {
    stream.write_all(&position.to_be_bytes())
}

/// The next such word.
pub(super) fn receive_position(mut stream: &TcpStream) -> io::Result<u64> {
    let mut bytes = [0; size_of::<u64>()];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

/// Connects to a node that may not listen yet.
pub(super) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let started = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) if started.elapsed() > CONNECT_PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(CONNECT_INTERVAL),
        }
    }
}
