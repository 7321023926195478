//! Disk faults for tests on real processes. Only `testing::host_with_disk_faults` reads a plan, and only a program
//! that is built for tests (`raftmq-with-faults`) asks for it.
//!
//! `RAFTMQ_TEST_DISK_FAULTS` names a file that is read again before each operation, so that a test
//! can switch faults on and off while the process runs. One fault a line; lines that do not parse
//! are ignored:
//!
//! ```text
//! <create|write|sync|read|free>  <part of the path, or *>  <eio|enospc|delay_ms=N>
//! free                           <part of the path, or *>  bytes=N
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const VARIABLE: &str = "RAFTMQ_TEST_DISK_FAULTS";

/// What is about to be done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Write,
    Sync,
    Read,
    Free,
}

impl Operation {
    fn parse(text: &str) -> Option<Operation> {
        Some(match text {
            "create" => Operation::Create,
            "write" => Operation::Write,
            "sync" => Operation::Sync,
            "read" => Operation::Read,
            "free" => Operation::Free,
            _ => return None,
        })
    }
}

/// Where the faults stand written.
#[derive(Debug)]
pub(crate) struct FaultPlan {
    path: PathBuf,
}

impl FaultPlan {
    /// The plan that the environment names, if it names one.
    pub(crate) fn from_environment() -> Option<FaultPlan> {
        let path = PathBuf::from(std::env::var_os(VARIABLE)?);
        tracing::warn!(path = %path.display(), "{VARIABLE} is set: disk faults will be injected");
        Some(FaultPlan { path })
    }

    /// The free space to report for `path` instead of `free_bytes`, if the plan names less.
    pub(crate) fn free_bytes(&self, path: &Path, free_bytes: u64) -> u64 {
        let Ok(plan) = fs::read_to_string(&self.path) else {
            return free_bytes;
        };
        effects(&plan, Operation::Free, path)
            .filter_map(|effect| effect.strip_prefix("bytes=")?.parse().ok())
            .fold(free_bytes, u64::min)
    }

    /// The error to report instead of doing `operation`, if the plan asks for one. May wait, if the
    /// plan asks for that.
    pub(crate) fn check(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let Ok(plan) = fs::read_to_string(&self.path) else {
            return Ok(());
        };
        effects(&plan, operation, path).try_for_each(apply)
    }
}

/// What the plan wants for this operation on this path, line by line.
fn effects<'a>(plan: &'a str, operation: Operation, path: &Path) -> impl Iterator<Item = &'a str> {
    let path = path.to_string_lossy().into_owned();
    plan.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        let (verb, part, effect) = (words.next()?, words.next()?, words.next()?);
        let hits =
            Operation::parse(verb) == Some(operation) && (part == "*" || path.contains(part));
        hits.then_some(effect)
    })
}

fn apply(effect: &str) -> io::Result<()> {
    match effect {
        "eio" => Err(rustix::io::Errno::IO.into()),
        "enospc" => Err(rustix::io::Errno::NOSPC.into()),
        _ => {
            if let Some(delay) = effect
                .strip_prefix("delay_ms=")
                .and_then(|text| text.parse().ok())
            {
                std::thread::sleep(Duration::from_millis(delay));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a plan that hits other files or operations than it names, or that cannot be switched
    /// off again.
    #[test]
    fn a_plan_hits_what_it_names_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let plan = FaultPlan {
            path: dir.path().join("plan"),
        };
        assert!(
            plan.check(Operation::Sync, Path::new("/data/log-1/1.seg"))
                .is_ok()
        );

        fs::write(&plan.path, "nonsense\nsync .seg eio\nwrite * enospc\n").unwrap();
        let kind = |operation, path: &str| {
            plan.check(operation, Path::new(path))
                .map_err(|error| error.kind())
        };
        assert!(kind(Operation::Sync, "/data/log-1/1.seg").is_err());
        assert!(kind(Operation::Sync, "/data/superblock").is_ok());
        assert!(kind(Operation::Read, "/data/log-1/1.seg").is_ok());
        assert_eq!(
            kind(Operation::Write, "/x"),
            Err(io::ErrorKind::StorageFull)
        );

        fs::write(&plan.path, "free * bytes=7\n").unwrap();
        assert!(plan.check(Operation::Free, Path::new("/data")).is_ok());
        assert_eq!(plan.free_bytes(Path::new("/data"), 100), 7);

        fs::remove_file(&plan.path).unwrap();
        assert_eq!(plan.free_bytes(Path::new("/data"), 100), 100);
        assert!(kind(Operation::Sync, "/data/log-1/1.seg").is_ok());
    }
}
