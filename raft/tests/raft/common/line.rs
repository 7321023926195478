//! A line between replicas that breaks: connections through it end once they have carried so many bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 16 << 10;

/// Passes on whatever is said to one address, and what is answered.
pub struct Line {
    counts: Arc<Counts>,
    work: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    carried: AtomicU64,
    breaks_after: AtomicU64,
    breaks_left: AtomicU32,
}

impl Line {
    /// From `address` to `target`; does not break yet.
    pub async fn new(address: &str, target: &str) -> Line {
        #[allow(
            clippy::disallowed_methods,
            reason = "what breaks is the network itself: nothing of the product listens here"
        )]
        let listener = TcpListener::bind(address).await.unwrap();
        let counts = Arc::<Counts>::default();
        let work = tokio::spawn(pass_on(listener, target.to_owned(), counts.clone()));
        Line { counts, work }
    }

    /// The next `times` connections that carry so many bytes end then.
    pub fn break_after(&self, bytes: u64, times: u32) {
        self.counts.breaks_after.store(bytes, Ordering::SeqCst);
        self.counts.breaks_left.store(times, Ordering::SeqCst);
    }

    /// How many more connections will end.
    pub fn breaks_left(&self) -> u32 {
        self.counts.breaks_left.load(Ordering::SeqCst)
    }

    /// Bytes that went through, in both directions.
    pub fn carried(&self) -> u64 {
        self.counts.carried.load(Ordering::SeqCst)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Counts {
    /// Counts bytes of a connection that has carried `so_far`; whether it ends here.
    fn carries(&self, bytes: u64, so_far: &AtomicU64) -> bool {
        self.carried.fetch_add(bytes, Ordering::SeqCst);
        let so_far = so_far.fetch_add(bytes, Ordering::SeqCst) + bytes;
        so_far >= self.breaks_after.load(Ordering::SeqCst)
            && self
                .breaks_left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .is_ok()
    }
}

async fn pass_on(listener: TcpListener, target: String, counts: Arc<Counts>) {
    while let Ok((caller, _)) = listener.accept().await {
        let (target, counts) = (target.clone(), counts.clone());
        tokio::spawn(async move {
            // Nobody is there: the caller is told by the connection's end.
            let Ok(callee) = TcpStream::connect(&target).await else {
                return;
            };
            let (from_caller, to_caller) = caller.into_split();
            let (from_callee, to_callee) = callee.into_split();
            let so_far = AtomicU64::new(0);
            tokio::select! {
                () = copy(from_caller, to_callee, &counts, &so_far) => {}
                () = copy(from_callee, to_caller, &counts, &so_far) => {}
            }
        });
    }
}

/// Until either side ends, or the line breaks.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    counts: &Counts,
    so_far: &AtomicU64,
) {
    let mut bytes = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if to.write_all(&bytes[..read]).await.is_err() || counts.carries(read as u64, so_far) {
            return;
        }
    }
}
