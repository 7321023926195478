//! Starts the three processes and streams blocks to the first, a bounded number under way.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::wire::{connect, receive_position};
use crate::failure::Failure;
use crate::process::{Child, free_ports};
use crate::times::Times;

/// How long each node's file may grow: longer than a measurement of a few seconds needs.
const FILE_BYTES: u64 = 4 << 30;
const BLOCK_BYTE: u8 = 0xa5;
const NODES: usize = 3;

/// The three running processes.
pub struct Ceiling {
    first: SocketAddr,
    // Ended by being dropped.
    _nodes: Vec<Child>,
}

/// What was put through them.
#[derive(Clone, Debug, Serialize)]
pub struct CeilingLoad {
    /// Size of each block, bytes.
    pub block_bytes: usize,
    /// Blocks under way at one time, at most.
    pub in_flight: usize,
    /// Blocks a second that two of three had synced.
    pub blocks_per_second: f64,
    /// Millions of bytes a second.
    pub megabytes_per_second: f64,
    /// Time from sending a block to its second sync, microseconds.
    pub p50_us: u64,
    /// The same, exceeded by one in a hundred.
    pub p99_us: u64,
}

impl Ceiling {
    /// Starts the processes, files below `directory`.
    ///
    /// # Errors
    ///
    /// If there are no free ports or a process cannot be started.
    pub fn start(program: &Path, directory: &Path) -> Result<Ceiling, Failure> {
        let failed = |error: io::Error| Failure::during("starting the ceiling's processes", error);
        let ports = free_ports(NODES).map_err(failed)?;
        let addresses: Vec<SocketAddr> = ports
            .iter()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)))
            .collect();
        let mut nodes = Vec::with_capacity(NODES);
        for (place, address) in addresses.iter().enumerate() {
            let file = directory.join(format!("ceiling-{place}"));
            let forward = if place == 0 { &addresses[1..] } else { &[] };
            let arguments = node_arguments(*address, &file, forward);
            let name = format!("ceiling-{place}");
            let log = directory.join(format!("{name}.log"));
            nodes.push(Child::start(&name, program, &arguments, &[], &log).map_err(failed)?);
        }
        Ok(Ceiling {
            first: addresses[0],
            _nodes: nodes,
        })
    }

    /// Streams blocks of `block_bytes` for `duration`, at most `in_flight` under way.
    ///
    /// # Errors
    ///
    /// If a process went away.
    pub fn measure(
        &self,
        block_bytes: usize,
        in_flight: usize,
        duration: Duration,
    ) -> Result<CeilingLoad, Failure> {
        // The nodes empty their files, which may be long, before the first block of a stream: that is not measured.
        self.stream(block_bytes, 1, Duration::ZERO)
            .and_then(|_| self.stream(block_bytes, in_flight, duration))
            .map_err(|error| Failure::during("streaming blocks to the ceiling's processes", error))
    }

    fn stream(
        &self,
        block_bytes: usize,
        in_flight: usize,
        duration: Duration,
    ) -> io::Result<CeilingLoad> {
        let mut stream = connect(self.first)?;
        let answers = stream.try_clone()?;
        let (permits, permitted) = sync_channel::<Instant>(in_flight);
        let (finished_sender, finished) = sync_channel(1);
        start_receiver(block_bytes, answers, permitted, finished_sender);
        let block = vec![BLOCK_BYTE; block_bytes];
        let started = Instant::now();
        loop {
            let now = Instant::now();
            if now.duration_since(started) > duration {
                break;
            }
            // The channel holds as many as may be under way; a full one is what stops the sender.
            permits.send(now).map_err(|_| io::ErrorKind::BrokenPipe)?;
            stream.write_all(&block)?;
        }
        drop(permits);
        stream.shutdown(std::net::Shutdown::Write)?;
        let (times, elapsed) = finished.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(load(block_bytes, in_flight, &times, elapsed))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a measure of bare threads and sockets; it never runs in the simulator"
)]
fn start_receiver(
    block_bytes: usize,
    answers: std::net::TcpStream,
    permitted: std::sync::mpsc::Receiver<Instant>,
    finished: std::sync::mpsc::SyncSender<(Times, Duration)>,
) {
    std::thread::spawn(move || {
        let mut times = Times::default();
        let mut safe_blocks = 0;
        let mut first = None;
        let mut elapsed = Duration::ZERO;
        while let Ok(position) = receive_position(&answers) {
            let now = Instant::now();
            let blocks = position / block_bytes as u64;
            for _ in safe_blocks..blocks {
                let Ok(at) = permitted.recv() else { break };
                elapsed = now.duration_since(*first.get_or_insert(at));
                times.took(now.duration_since(at));
            }
            safe_blocks = blocks;
        }
        // The sender may have given up; then nobody wants the figures.
        let _ = finished.send((times, elapsed));
    });
}

fn node_arguments(listen: SocketAddr, file: &Path, forward: &[SocketAddr]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["ceiling-node".into()];
    arguments.extend(["--listen".into(), listen.to_string().into()]);
    arguments.extend(["--file".into(), file.into()]);
    arguments.extend(["--file-bytes".into(), FILE_BYTES.to_string().into()]);
    for address in forward {
        arguments.extend(["--forward".into(), address.to_string().into()]);
    }
    arguments
}

fn load(block_bytes: usize, in_flight: usize, times: &Times, elapsed: Duration) -> CeilingLoad {
    let blocks_per_second = times.count() as f64 / elapsed.as_secs_f64().max(f64::EPSILON);
    CeilingLoad {
        block_bytes,
        in_flight,
        blocks_per_second,
        megabytes_per_second: blocks_per_second * block_bytes as f64 / 1e6,
        p50_us: times.quantile_us(0.5),
        p99_us: times.quantile_us(0.99),
    }
}
