//! A certificate of one's own making, for servers on this machine.

use std::path::{Path, PathBuf};

use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::failure::Failure;
use crate::files;

/// Names under which clients on this machine reach its servers.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate and its private key, in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// The one in `<directory>/tls`, made if it is not there: for this machine's own names, signed by itself. A client
    /// that verifies must be told to trust it.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn for_this_machine(directory: &Path) -> Result<Certificate, Failure> {
        let directory = std::path::absolute(directory.join("tls"))
            .map_err(|error| Failure::during("finding the data directory", error))?;
        let made = Certificate {
            certificate: directory.join("certificate.pem"),
            key: directory.join("key.pem"),
        };
        let failed = |error| Failure::during(format!("writing {}", directory.display()), error);
        files::create_directories(&directory).map_err(failed)?;
        if made.certificate.exists() {
            return Ok(made);
        }
        let names = NAMES.map(str::to_owned);
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names)
            .map_err(|error| Failure::during("making a certificate", error))?;
        // The key first, and each file as a whole: where there is a certificate there are both. A key alone was left
        // by an interrupted start.
        let key = signing_key.serialize_pem();
        files::replace_private_text(&made.key, &key).map_err(failed)?;
        files::replace_private_text(&made.certificate, &cert.pem()).map_err(failed)?;
        Ok(made)
    }

    /// File of the certificate, PEM.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// File of the private key, PEM.
    pub fn key(&self) -> &Path {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a certificate that is another one at each start, so that nobody could trust it.
    #[test]
    fn a_second_start_finds_the_first_ones() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Certificate::for_this_machine(directory.path()).expect("made");
        let read = || files::read_text(first.certificate()).expect("there");
        let before = read();
        assert_eq!(
            Certificate::for_this_machine(directory.path()).expect("found"),
            first
        );
        assert_eq!(read(), before);
        host::network::ServerTls::load(first.certificate(), first.key()).expect("usable");
    }
}
