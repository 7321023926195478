//! What happens to an accepted connection before HTTP/2: TLS if it begins as TLS does, then a proof if it begins as
//! one does.
//!
//! Where a proof is demanded, nothing else is read, and nobody takes a connection's place who has not proved. Must
//! never tell a stranger anything: a connection that does not prove ends without a byte.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::transport::Transport;
use super::{Proof, ServerTls, proof};

/// Refusals are told at most so often: strangers must not fill a log.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// A connection on which HTTP/2 comes next.
pub(super) struct Opened {
    pub(super) stream: Transport,
    /// What was read already, and belongs to HTTP/2.
    pub(super) first: Option<u8>,
    /// Whether it proved that it holds the cluster's secret.
    pub(super) is_proven: bool,
}

/// Opens accepted connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Opening {
    tls: Option<Arc<ServerTls>>,
    proof: Proof,
    refusals: Arc<Mutex<Refusals>>,
}

/// Connections that did not prove since that was last told.
#[derive(Default)]
struct Refusals {
    count: u64,
    told: Option<Instant>,
}

impl Opening {
    pub(super) fn new(tls: Option<Arc<ServerTls>>, proof: Proof) -> Opening {
        Opening {
            tls,
            proof,
            refusals: Arc::default(),
        }
    }

    /// Whether only who proves is served.
    pub(super) fn demands_proof(&self) -> bool {
        matches!(self.proof, Proof::Demanded(_))
    }

    /// Waits until HTTP/2 may come. The caller bounds the time.
    ///
    /// # Errors
    /// It ended, speaks TLS badly, or did not prove where it had to, or where it began to.
    pub(super) async fn open(self, stream: TcpStream) -> io::Result<Opened> {
        let peer = stream.peer_addr();
        let mut stream = Transport::accept(stream, self.tls.clone()).await?;
        let (secret, demanded) = match &self.proof {
            Proof::None => {
                return Ok(Opened {
                    stream,
                    first: None,
                    is_proven: false,
                });
            }
            Proof::Accepted(secret) => (secret, false),
            Proof::Demanded(secret) => (secret, true),
        };
        let mut first = [0];
        stream.read_exact(&mut first).await?;
        let begins = first == [proof::FIRST_BYTE];
        let outcome = match begins {
            true => proof::accept(&mut stream, secret).await,
            false if demanded => Err(io::ErrorKind::PermissionDenied.into()),
            false => Ok(()),
        };
        if let Err(error) = outcome {
            self.note_refusal(peer.ok());
            return Err(error);
        }
        Ok(Opened {
            stream,
            first: (!begins).then_some(first[0]),
            is_proven: begins,
        })
    }

    /// Tells of it, now and then: it is an attack, or a server with another secret.
    fn note_refusal(&self, peer: Option<std::net::SocketAddr>) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.count += 1;
        let now = Instant::now();
        if refusals.told.is_none_or(|told| now - told >= TOLD_EVERY) {
            tracing::warn!(
                ?peer,
                refused = refusals.count,
                "refused a connection that did not prove that it holds the cluster's secret"
            );
            *refusals = Refusals {
                count: 0,
                told: Some(now),
            };
        }
    }
}
