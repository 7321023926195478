//! One of the three processes. The first forwards, all three append and sync.
//!
//! Bytes that arrived while the last sync ran share the next one, as they do in the broker.

#![expect(
    clippy::disallowed_methods,
    reason = "a measure of bare threads and sockets; it never runs in the simulator"
)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::{Bytes, BytesMut};
use clap::Args;

use super::file::{BlockFile, Writing};
use super::wire::{connect, receive_position, send_position};

/// Most bytes that one read takes from the socket.
const READ_BYTES: usize = 1 << 20;
/// A fresh buffer is taken when the old one has less room than this.
const READ_ROOM_BYTES: usize = 64 << 10;
/// Chunks that may wait for the disk or for a follower.
const WAITING_CHUNKS_MAX: usize = 4096;
/// Most bytes that one sync covers.
const SYNC_BYTES_MAX: usize = 8 << 20;
/// Nodes of the chain, and the place of a majority among their positions in ascending order.
const NODES: usize = 3;
const MAJORITY_PLACE: usize = 1;

/// How a node is started.
#[derive(Args, Clone, Debug)]
pub struct NodeArguments {
    /// Where it takes the stream.
    #[arg(long)]
    pub listen: SocketAddr,
    /// The file it writes.
    #[arg(long)]
    pub file: PathBuf,
    /// How long that file may grow, bytes, before it is emptied.
    #[arg(long)]
    pub file_bytes: u64,
    /// Nodes that get everything too; only the first node has them.
    #[arg(long)]
    pub forward: Vec<SocketAddr>,
}

/// How far each node has synced, and what the client was told.
struct Positions {
    synced: [u64; NODES],
    told: u64,
}

/// Where a node tells how far it has come: its client, or the first node.
struct Upstream {
    stream: TcpStream,
    forwards: bool,
    positions: Mutex<Positions>,
}

impl Upstream {
    /// Node `node` has synced everything below `position`.
    fn synced(&self, node: usize, position: u64) -> io::Result<()> {
        let mut positions = self
            .positions
            .lock()
            .expect("no thread panics while it holds this");
        positions.synced[node] = position;
        let mut ordered = positions.synced;
        ordered.sort_unstable();
        let safe = if self.forwards {
            ordered[MAJORITY_PLACE]
        } else {
            position
        };
        if safe > positions.told {
            positions.told = safe;
            send_position(&self.stream, safe)?;
        }
        Ok(())
    }
}

/// Serves connections one after another until the process is ended.
///
/// # Errors
///
/// If the address or the file cannot be used; a connection's end is none.
pub fn run_node(arguments: &NodeArguments) -> io::Result<()> {
    let listener = TcpListener::bind(arguments.listen)?;
    let file = BlockFile::create(&arguments.file, arguments.file_bytes, Writing::Growing)?;
    let file = Arc::new(Mutex::new(file));
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        // The client closes the connection at the end of each measurement.
        let _ = serve(stream, &arguments.forward, &file);
    }
}

fn serve(
    stream: TcpStream,
    forward: &[SocketAddr],
    file: &Arc<Mutex<BlockFile>>,
) -> io::Result<()> {
    let upstream = Arc::new(Upstream {
        stream: stream.try_clone()?,
        forwards: !forward.is_empty(),
        positions: Mutex::new(Positions {
            synced: [0; NODES],
            told: 0,
        }),
    });
    let mut sinks = vec![start_writer(Arc::clone(file), Arc::clone(&upstream))];
    for (place, address) in forward.iter().enumerate() {
        sinks.push(start_forwarder(place + 1, *address, Arc::clone(&upstream))?);
    }
    read_all(stream, &sinks)
}

fn read_all(mut stream: TcpStream, sinks: &[SyncSender<Bytes>]) -> io::Result<()> {
    let mut room = BytesMut::zeroed(READ_BYTES);
    loop {
        if room.len() < READ_ROOM_BYTES {
            room = BytesMut::zeroed(READ_BYTES);
        }
        let count = stream.read(&mut room)?;
        if count == 0 {
            return Ok(());
        }
        let chunk = room.split_to(count).freeze();
        for sink in sinks {
            sink.send(chunk.clone())
                .map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
    }
}

fn start_writer(file: Arc<Mutex<BlockFile>>, upstream: Arc<Upstream>) -> SyncSender<Bytes> {
    let (sender, receiver) = sync_channel(WAITING_CHUNKS_MAX);
    thread::spawn(move || {
        let mut file = file.lock().expect("one connection at a time writes");
        // An error ends the connection: the reader finds the channel closed.
        let _ = file
            .restart()
            .and_then(|()| write_all(&receiver, &mut file, &upstream));
    });
    sender
}

fn write_all(
    receiver: &Receiver<Bytes>,
    file: &mut BlockFile,
    upstream: &Upstream,
) -> io::Result<()> {
    let mut position = 0;
    while let Ok(first) = receiver.recv() {
        let mut waiting = 0;
        let mut next = Some(first);
        while let Some(chunk) = next {
            file.append(&chunk)?;
            waiting += chunk.len();
            next = if waiting < SYNC_BYTES_MAX {
                receiver.try_recv().ok()
            } else {
                None
            };
        }
        file.sync()?;
        position += waiting as u64;
        upstream.synced(0, position)?;
    }
    Ok(())
}

fn start_forwarder(
    node: usize,
    address: SocketAddr,
    upstream: Arc<Upstream>,
) -> io::Result<SyncSender<Bytes>> {
    let mut stream = connect(address)?;
    let answers = stream.try_clone()?;
    let (sender, receiver) = sync_channel::<Bytes>(WAITING_CHUNKS_MAX);
    thread::spawn(move || {
        while let Ok(chunk) = receiver.recv() {
            if stream.write_all(&chunk).is_err() {
                return;
            }
        }
        // The stream has ended: say so, and let the answers that are under way still arrive.
        let _ = stream.shutdown(std::net::Shutdown::Write);
    });
    thread::spawn(move || {
        while let Ok(position) = receive_position(&answers) {
            if upstream.synced(node, position).is_err() {
                return;
            }
        }
    });
    Ok(sender)
}
