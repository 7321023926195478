//! A cluster's secret that everybody may know, and a file with it.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::network::ClusterSecret;

/// Of every test.
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A secret that everybody may know.
pub fn cluster_secret() -> ClusterSecret {
    ClusterSecret::from_text(SECRET).unwrap()
}

/// A file with [`cluster_secret`], the same one for the whole process.
#[allow(
    clippy::disallowed_methods,
    reason = "a secret is configuration, not data of a replica"
)]
pub fn secret_file() -> PathBuf {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    static FILE: OnceLock<PathBuf> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let name = format!("raftmq-test-secret-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut options = std::fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = opened.open(&path).unwrap();
        file.write_all(SECRET.as_bytes()).unwrap();
        path
    });
    file.clone()
}
