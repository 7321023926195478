//! The secret of a cluster: what its servers and its operators know, and nobody else.
//!
//! A file that only its owner can read, as RabbitMQ's cookie. It is never sent: who holds it proves so when a
//! connection opens (see `proof`). Must never be shown, logged, or made of less than a machine's own randomness.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::NetworkError;

/// Fewest characters of a secret: 32 random bytes in base64.
const LENGTH_MIN: usize = 43;

/// Most characters of a secret.
const LENGTH_MAX: usize = 1_024;

/// Fewest different characters: what people type as a placeholder has less.
const DIFFERENT_MIN: usize = 8;

/// Most secrets in one file: the one that is in use, and the one that is to follow or to go.
const SECRETS_MAX: usize = 2;

/// Random bytes of a secret that is made here.
#[cfg(not(madsim))]
const RANDOM_BYTES: usize = 32;

/// What to do when there is none.
const REMEDY: &str = "every server of a cluster has the same secret: `raftmq secret new FILE` makes one; copy it to the \
    other machines, readable by its owner only, and set secret_file to it";

/// The secret, or while it is exchanged for another one, both.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret {
    /// The first is the one to prove with; each is accepted.
    texts: Arc<[String]>,
}

impl ClusterSecret {
    /// Reads a secret's file: one secret, or two, a line each. Blocks.
    ///
    /// The first is proved with and all are accepted, so that a secret is exchanged without an outage: first every
    /// server gets the new one as its second line, then as its first, then as its only one.
    ///
    /// # Errors
    /// [`NetworkError::Secret`]: no file is named, it cannot be read, others than its owner could read it (its group
    /// may if it is root's), or it holds no secret.
    #[cfg(not(madsim))]
    pub fn load(path: &Path) -> Result<ClusterSecret, NetworkError> {
        let refused = |reason: String| NetworkError::Secret {
            path: path.to_owned(),
            reason,
        };
        if path.as_os_str().is_empty() {
            return Err(refused(format!("none is configured; {REMEDY}")));
        }
        let text = read_private(path).map_err(refused)?;
        ClusterSecret::from_text(&text).map_err(refused)
    }

    /// In the simulator connections are no bytes, and all of them count as proven.
    ///
    /// # Errors
    /// Never.
    #[cfg(madsim)]
    pub fn load(_path: &Path) -> Result<ClusterSecret, NetworkError> {
        Ok(ClusterSecret {
            texts: Arc::new([]),
        })
    }

    /// The secrets that a text holds, one a line; what follows a `#` at a line's begin is left out.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_text(text: &str) -> Result<ClusterSecret, String> {
        let lines = text.lines().map(str::trim);
        let texts: Vec<String> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect();
        if texts.is_empty() {
            return Err(format!("it holds none; {REMEDY}"));
        }
        if texts.len() > SECRETS_MAX {
            let count = texts.len();
            return Err(format!("it holds {count}, more than {SECRETS_MAX}"));
        }
        for text in &texts {
            check(text)?;
        }
        Ok(ClusterSecret {
            texts: texts.into(),
        })
    }

    /// Makes a secret and its file, which only its owner can read. Blocks. False if there is a file already: that one
    /// stays.
    ///
    /// # Errors
    /// [`NetworkError::Secret`]: it could not be written, or the machine gave no random bytes.
    #[cfg(not(madsim))]
    pub fn create(path: &Path) -> Result<bool, NetworkError> {
        write_new(path).map_err(|error| NetworkError::Secret {
            path: path.to_owned(),
            reason: format!("cannot write it: {error}"),
        })
    }

    /// Each secret's bytes, the one to prove with first.
    #[cfg(not(madsim))]
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.texts.iter().map(String::as_bytes)
    }
}

impl fmt::Debug for ClusterSecret {
    /// How many there are, never what they are.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClusterSecret({})", self.texts.len())
    }
}

fn check(text: &str) -> Result<(), String> {
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&text.len()) {
        let length = text.len();
        return Err(format!(
            "a secret has {LENGTH_MIN} to {LENGTH_MAX} characters, this one has {length}; {REMEDY}"
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a secret is printable ASCII without blanks".to_owned());
    }
    let different: std::collections::BTreeSet<u8> = text.bytes().collect();
    if different.len() < DIFFERENT_MIN {
        return Err(format!("it is not random; {REMEDY}"));
    }
    Ok(())
}

#[cfg(not(madsim))]
#[allow(
    clippy::disallowed_methods,
    reason = "a secret is configuration, not data of a replica"
)]
fn read_private(path: &Path) -> Result<String, String> {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no such file; {REMEDY}"),
        _ => error.to_string(),
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    // What belongs to root is given to a service by its group.
    let others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    let mode = metadata.mode() & 0o7777;
    if metadata.is_file() && mode & others != 0 {
        return Err(format!(
            "others can read it (mode {mode:o}): they could have read it already, so make another one; \
             if they surely did not, `chmod 600` it"
        ));
    }
    let mut text = String::new();
    let most = (SECRETS_MAX * 2 * LENGTH_MAX) as u64;
    file.take(most)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    Ok(text)
}

#[cfg(not(madsim))]
#[allow(
    clippy::disallowed_methods,
    reason = "a secret is configuration, not data of a replica"
)]
fn write_new(path: &Path) -> std::io::Result<bool> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let random: [u8; RANDOM_BYTES] = rand::random();
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    };
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    Ok(true)
}

#[cfg(all(test, not(madsim)))]
#[allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and writes files of its own"
)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn reason(path: &Path) -> String {
        ClusterSecret::load(path).unwrap_err().to_string()
    }

    /// Catches a secret that others can read, one that replaces another, and two that are alike.
    #[test]
    fn a_new_secret_is_private_random_and_replaces_none() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        assert!(ClusterSecret::create(&one).unwrap());
        assert!(ClusterSecret::create(&two).unwrap());
        let first = ClusterSecret::load(&one).unwrap();
        assert!(first != ClusterSecret::load(&two).unwrap());
        assert!(!ClusterSecret::create(&one).unwrap(), "there is one");
        assert!(first == ClusterSecret::load(&one).unwrap(), "it stays");
        assert_eq!(one.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let shown = format!("{first:?}");
        assert_eq!(shown, "ClusterSecret(1)");
    }

    /// Catches a server that starts without a secret, or with one that everybody knows, and an error that leaves the
    /// operator alone.
    #[test]
    fn what_is_no_secret_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let none = reason(Path::new(""));
        assert!(none.contains("raftmq secret new"), "{none}");
        assert!(reason(&path).contains("no such file"));
        let put = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let good = "0123456789abcdef".repeat(4);
        put(&good, 0o600);
        ClusterSecret::load(&path).unwrap();
        put(&good, 0o400);
        ClusterSecret::load(&path).unwrap();
        for mode in [0o644, 0o604, 0o620, 0o606] {
            put(&good, mode);
            assert!(reason(&path).contains("others can read it"), "{mode:o}");
        }
        for (text, why) in [
            ("", "holds none"),
            ("# nothing\n", "holds none"),
            ("changeme", "characters"),
            (&"x".repeat(64), "not random"),
            (&format!("{good} {good}"), "without blanks"),
            (&format!("{good}\n{good}\n{good}"), "more than 2"),
        ] {
            put(text, 0o600);
            let said = reason(&path);
            assert!(said.contains(why), "{text}: {said}");
            assert!(!said.contains(&good), "it is shown: {said}");
        }
    }
}
