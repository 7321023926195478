//! How many files and connections this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the bound to what the system allows at most: the usual one, 1024, is less than a broker's
/// own bound of connections.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, the bound stays as it was, and connections beyond it wait.
    let _ = setrlimit(Resource::Nofile, limit);
}
