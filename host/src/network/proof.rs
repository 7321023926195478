//! How two processes prove to each other that they hold the same secret, when a connection opens.
//!
//! ```text
//! who connects                                             who accepts
//!   MAGIC (8 bytes), a nonce (32)                  ─────►
//!                                                  ◄─────  a nonce (32), MAC(secret, "accepts", both nonces) (32)
//!   MAC(secret, "connects", both nonces) (32)      ─────►
//! ```
//!
//! Whatever was to be said follows at once, HTTP/2 as everywhere; under TLS all of it runs inside TLS. The MAC is
//! HMAC-SHA-256. The secret is never sent; both nonces are drawn anew, so what was overheard is of no use later; the
//! role is in the MAC, so that nobody's own answer can be handed back to it. Who cannot prove is told nothing: the
//! connection ends. It proves who opened the connection, not each byte of it: who can change packets on their way is
//! kept out by TLS only.
//!
//! Must never read beyond the proof, and never compare in a time that depends on what is compared.

use std::io;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::ClusterSecret;

/// What a proof begins with. Its first byte is none with which TLS (0x16) or HTTP/2 ('P') begins; the last one counts
/// versions.
const MAGIC: [u8; 8] = *b"\xf0RaftMQ\x01";

/// The byte by which a proof is told from everything else.
#[cfg(any(feature = "server", test))]
pub(super) const FIRST_BYTE: u8 = MAGIC[0];

/// Bytes of a nonce.
const NONCE_BYTES: usize = 32;

/// Bytes of a MAC.
const MAC_BYTES: usize = 32;

type Nonce = [u8; NONCE_BYTES];

/// Who makes a MAC.
#[derive(Clone, Copy, Debug)]
enum Role {
    Accepts,
    Connects,
}

impl Role {
    /// Of one length, so that what follows can never be taken for a part of it.
    fn label(self) -> &'static [u8; 24] {
        match self {
            Role::Accepts => b"raftmq proof 1: accepts ",
            Role::Connects => b"raftmq proof 1: connects",
        }
    }
}

/// Proves to whoever accepted `stream` that we hold the secret, after it has proved the same.
///
/// # Errors
/// It does not hold the secret, does not speak so, or the connection failed. The caller bounds the time.
pub(super) async fn connect<S>(stream: &mut S, secret: &ClusterSecret) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let own: Nonce = rand::random();
    let mut hello = [0; MAGIC.len() + NONCE_BYTES];
    hello[..MAGIC.len()].copy_from_slice(&MAGIC);
    hello[MAGIC.len()..].copy_from_slice(&own);
    stream.write_all(&hello).await?;
    stream.flush().await?;
    let (mut theirs, mut proof) = ([0; NONCE_BYTES], [0; MAC_BYTES]);
    stream.read_exact(&mut theirs).await.map_err(silent)?;
    stream.read_exact(&mut proof).await.map_err(silent)?;
    let nonces = [&own, &theirs];
    let Some(key) = secret
        .keys()
        .find(|key| holds(key, Role::Accepts, nonces, &proof))
    else {
        return Err(not_proved());
    };
    stream
        .write_all(&mac(key, Role::Connects, nonces).finalize().into_bytes())
        .await?;
    stream.flush().await
}

/// Has whoever connected prove that it holds the secret. The first byte of its proof was read already.
///
/// # Errors
/// It does not hold the secret, does not speak so, or the connection failed. The caller bounds the time.
#[cfg(any(feature = "server", test))]
pub(super) async fn accept<S>(stream: &mut S, secret: &ClusterSecret) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut hello = [0; MAGIC.len() - 1 + NONCE_BYTES];
    stream.read_exact(&mut hello).await?;
    let (magic, theirs) = hello.split_at(MAGIC.len() - 1);
    if magic != &MAGIC[1..] {
        return Err(not_proved());
    }
    let theirs: Nonce = theirs.try_into().map_err(|_| not_proved())?;
    let own: Nonce = rand::random();
    let nonces = [&theirs, &own];
    let key = secret.keys().next().ok_or_else(not_proved)?;
    let mut answer = [0; NONCE_BYTES + MAC_BYTES];
    answer[..NONCE_BYTES].copy_from_slice(&own);
    let proof = mac(key, Role::Accepts, nonces).finalize().into_bytes();
    answer[NONCE_BYTES..].copy_from_slice(&proof);
    stream.write_all(&answer).await?;
    stream.flush().await?;
    let mut proof = [0; MAC_BYTES];
    stream.read_exact(&mut proof).await?;
    let mut keys = secret.keys();
    match keys.any(|key| holds(key, Role::Connects, nonces, &proof)) {
        true => Ok(()),
        false => Err(not_proved()),
    }
}

/// Over the role and both nonces, that of who connects first.
fn mac(key: &[u8], role: Role, nonces: [&Nonce; 2]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(role.label());
    mac.update(nonces[0]);
    mac.update(nonces[1]);
    mac
}

/// In a time that depends on nothing secret.
fn holds(key: &[u8], role: Role, nonces: [&Nonce; 2], proof: &[u8; MAC_BYTES]) -> bool {
    mac(key, role, nonces).verify_slice(proof).is_ok()
}

fn not_proved() -> io::Error {
    let said = "it did not prove that it holds the secret of our cluster";
    io::Error::new(io::ErrorKind::PermissionDenied, said)
}

/// It hung up where it should have proved, or was told by our first bytes that we are none of its own.
fn silent(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => not_proved(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(seed: &str) -> ClusterSecret {
        let text = format!("{seed}{}", "0123456789abcdef".repeat(4));
        ClusterSecret::from_text(&text).unwrap()
    }

    fn both(first: &str, second: &str) -> ClusterSecret {
        let line = |seed: &str| format!("{seed}{}", "0123456789abcdef".repeat(4));
        ClusterSecret::from_text(&format!("{}\n{}", line(first), line(second))).unwrap()
    }

    /// What both ends came to.
    async fn between(ours: ClusterSecret, theirs: ClusterSecret) -> (bool, bool) {
        let (mut one, mut other) = tokio::io::duplex(256);
        let accepting = tokio::spawn(async move {
            let mut first = [0];
            other.read_exact(&mut first).await.unwrap();
            assert_eq!(first, [FIRST_BYTE]);
            accept(&mut other, &theirs).await.is_ok()
        });
        let connected = connect(&mut one, &ours).await.is_ok();
        drop(one);
        (connected, accepting.await.unwrap())
    }

    /// Catches a secret that is not asked for, on either side.
    #[tokio::test]
    async fn only_who_holds_the_secret_is_proven() {
        assert_eq!(between(secret("a"), secret("a")).await, (true, true));
        assert_eq!(between(secret("a"), secret("b")).await, (false, false));
    }

    /// Catches an exchange of the secret that cuts a cluster in two.
    #[tokio::test]
    async fn a_secret_is_exchanged_step_by_step() {
        let steps = [secret("a"), both("a", "b"), both("b", "a"), secret("b")];
        for pair in steps.windows(2) {
            let (old, new) = (pair[0].clone(), pair[1].clone());
            assert_eq!(between(old.clone(), new.clone()).await, (true, true));
            assert_eq!(between(new, old).await, (true, true));
        }
        assert_eq!(
            between(steps[0].clone(), steps[3].clone()).await,
            (false, false)
        );
    }

    /// Answers that a server gives to `bytes`, sent in one go.
    async fn answers(bytes: &[u8]) -> (Vec<u8>, io::Result<()>) {
        let (mut stranger, mut server) = tokio::io::duplex(256);
        stranger.write_all(bytes).await.unwrap();
        let serving = tokio::spawn(async move {
            let mut first = [0];
            server.read_exact(&mut first).await?;
            accept(&mut server, &secret("a")).await
        });
        stranger.shutdown().await.unwrap();
        let mut answered = Vec::new();
        stranger.read_to_end(&mut answered).await.unwrap();
        (answered, serving.await.unwrap())
    }

    /// Catches a proof that holds twice: all that a client said is said again.
    #[tokio::test]
    async fn what_was_overheard_proves_nothing() {
        let (mut client, mut wire) = tokio::io::duplex(256);
        let (mut onward, mut server) = tokio::io::duplex(256);
        let serving = tokio::spawn(async move {
            let mut first = [0];
            server.read_exact(&mut first).await.unwrap();
            accept(&mut server, &secret("a")).await
        });
        let proving = tokio::spawn(async move { connect(&mut client, &secret("a")).await });
        let mut overheard = vec![0; MAGIC.len() + NONCE_BYTES];
        wire.read_exact(&mut overheard).await.unwrap();
        onward.write_all(&overheard).await.unwrap();
        let mut answer = [0; NONCE_BYTES + MAC_BYTES];
        onward.read_exact(&mut answer).await.unwrap();
        wire.write_all(&answer).await.unwrap();
        let mut proof = [0; MAC_BYTES];
        wire.read_exact(&mut proof).await.unwrap();
        onward.write_all(&proof).await.unwrap();
        proving.await.unwrap().unwrap();
        serving.await.unwrap().unwrap();

        overheard.extend(proof);
        let (answered, outcome) = answers(&overheard).await;
        assert_eq!(answered.len(), NONCE_BYTES + MAC_BYTES);
        assert_ne!(answered, answer, "the nonce is new");
        assert!(outcome.is_err());
    }

    /// Catches a role that is not in the MAC: the server's own answer, handed back to it.
    #[tokio::test]
    async fn a_servers_own_answer_proves_nothing() {
        let (mut stranger, mut server) = tokio::io::duplex(256);
        let serving = tokio::spawn(async move {
            let mut first = [0];
            server.read_exact(&mut first).await.unwrap();
            accept(&mut server, &secret("a")).await
        });
        let mut hello = MAGIC.to_vec();
        hello.extend([7; NONCE_BYTES]);
        stranger.write_all(&hello).await.unwrap();
        let mut answer = [0; NONCE_BYTES + MAC_BYTES];
        stranger.read_exact(&mut answer).await.unwrap();
        stranger.write_all(&answer[NONCE_BYTES..]).await.unwrap();
        assert!(serving.await.unwrap().is_err());
    }

    /// Catches a server that answers whoever does not even begin as a proof does, and one that waits for more.
    #[tokio::test]
    async fn what_is_no_proof_is_not_answered() {
        let mut other_version = MAGIC.to_vec();
        other_version[7] = 9;
        other_version.extend([7; NONCE_BYTES + MAC_BYTES]);
        for bytes in [&MAGIC[..4], &MAGIC[..], &other_version[..]] {
            let (answered, outcome) = answers(bytes).await;
            assert!(answered.is_empty() && outcome.is_err(), "{bytes:?}");
        }
    }
}
