//! One answer, two readers: text for people, JSON for programs.
//!
//! Results go to standard output, everything else to standard error, so that `--json | jq` always
//! reads JSON and nothing else.

use std::fmt::Display;

use clap::Args;
use serde_json::Value;

use crate::terminal::{note, say};

/// The flag of every command that prints something.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Output {
    /// Print JSON in place of text: one document, or one a line where there may be many
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Output {
    /// What people want to see and programs do not: goes to standard error beside JSON.
    pub(crate) fn tell(self, line: impl Display) {
        if self.json {
            note(line);
        } else {
            say(line);
        }
    }

    /// Prints the document, or the text that says the same.
    pub(crate) fn show<T: Display>(
        self,
        document: impl FnOnce() -> Value,
        text: impl FnOnce() -> T,
    ) {
        if self.json {
            say(document());
        } else {
            say(text());
        }
    }
}
