//! What a process has used so far, from /proc: processor time, memory, bytes sent to the disk.
//!
//! Linux only; elsewhere every figure is zero and the benchmark's columns say so.

use std::path::PathBuf;
use std::time::Duration;

use crate::files;

/// Figures of one process since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time, user and system, of all its threads.
    pub processor: Duration,
    /// Memory resident now, bytes.
    pub resident_bytes: u64,
    /// The most memory that was resident since the start or the last `reset_peak`, bytes.
    pub resident_peak_bytes: u64,
    /// Bytes that it caused to be written to storage.
    pub written_bytes: u64,
}

impl Usage {
    /// Reads the figures of process `pid`; zeros if it is gone.
    pub fn of(pid: u32) -> Usage {
        let status = files::read_text(&path(pid, "status")).unwrap_or_default();
        let io = files::read_text(&path(pid, "io")).unwrap_or_default();
        Usage {
            processor: files::read_text(&path(pid, "stat"))
                .map_or(Duration::ZERO, |text| processor(&text)),
            resident_bytes: field(&status, "VmRSS:") * 1024,
            resident_peak_bytes: field(&status, "VmHWM:") * 1024,
            written_bytes: field(&io, "write_bytes:"),
        }
    }

    /// What was used between `earlier` and this; the peak is this one's.
    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            processor: self.processor.saturating_sub(earlier.processor),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            ..*self
        }
    }
}

/// Starts counting the peak of resident memory anew.
pub fn reset_peak(pid: u32) {
    // Refused where the kernel lacks the switch: then the peak is that of the whole life.
    let _ = files::write_text(&path(pid, "clear_refs"), "5");
}

fn path(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

fn field(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Fields 14 and 15, counted after the command's name, which is in brackets and may hold blanks.
fn processor(stat: &str) -> Duration {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|number| number.parse::<u64>().ok())
        .sum();
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(ticks * 1000 / ticks_per_second)
}

#[cfg(test)]
mod tests {
    use super::{Usage, processor};

    /// Catches counting fields from the wrong side of a name with blanks and brackets.
    #[test]
    fn the_commands_name_does_not_shift_the_fields() {
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 100 50 0 0";
        let expected = 150 * 1000 / rustix::param::clock_ticks_per_second();
        assert_eq!(processor(stat).as_millis(), u128::from(expected));
    }

    /// Catches a changed name of a field: this process surely uses memory.
    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_memory() {
        assert!(Usage::of(std::process::id()).resident_bytes > 0);
    }
}
