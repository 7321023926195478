//! What the demo shows while it runs: bars on a terminal, a line each second elsewhere.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::terminal::note;

const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Two bars: acknowledged and received.
pub(crate) struct Progress {
    bars: MultiProgress,
    acked: ProgressBar,
    received: ProgressBar,
    total: usize,
    on_terminal: bool,
    said: Cell<Instant>,
}

impl Progress {
    /// Nothing of `total` is done.
    pub(crate) fn new(total: usize) -> Progress {
        let bars = MultiProgress::new();
        let bar = |name: &'static str| {
            let style =
                ProgressStyle::with_template("{prefix:>10} {wide_bar} {pos}/{len} {per_sec}")
                    .expect("the template is a constant and valid");
            let bar = ProgressBar::new(total as u64)
                .with_style(style)
                .with_prefix(name);
            bars.add(bar)
        };
        let (acked, received) = (bar("stored"), bar("received"));
        Progress {
            acked,
            received,
            bars,
            total,
            on_terminal: std::io::stderr().is_terminal(),
            said: Cell::new(Instant::now()),
        }
    }

    /// Shows how many were sent, acknowledged and received.
    pub(crate) fn show(&self, (sent, acked, received): (usize, usize, usize)) {
        if self.on_terminal {
            self.acked.set_position(acked as u64);
            self.received.set_position(received as u64);
        } else if self.said.get().elapsed() >= LINE_INTERVAL {
            self.said.set(Instant::now());
            let total = self.total;
            note(format_args!(
                "of {total}: {sent} sent, {acked} stored, {received} received"
            ));
        }
    }

    /// Says what happens, without tearing the bars.
    pub(crate) fn say(&self, line: String) {
        self.bars.suspend(|| note(line));
    }

    /// Leaves the bars as they are.
    pub(crate) fn finish(&self) {
        self.acked.abandon();
        self.received.abandon();
    }
}
