//! What a command of an entry is given beside the state, and what it answers.
//!
//! Must never name a command: all of them stand on this.

use proto::command::CommandReply;
use proto::command::command_reply::Refusal;

/// What the time between two entries counts for at most, in milliseconds. A leader that has nothing to write says
/// far more often than this how much has passed; only one whose monotonic clock is broken, or a group that was without a
/// leader for long, would make a longer step.
pub(crate) const STEP_MS_MAX: u64 = 300_000;

/// Which command is being carried out, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) log_index: u64,
    /// Its place in the entry, from 0.
    pub(super) command: u32,
    /// What time it was. Decides nothing: it may go back.
    pub(super) time_ms: u64,
    /// How much time has passed along the log: never decreases, whatever clocks are set to.
    pub(super) passed_ms: u64,
}

/// What a command answers: its success, or why it changed nothing.
pub(super) type Outcome = Result<CommandReply, CommandReply>;

/// A refusal: nothing was changed.
pub(super) fn refused(refusal: Refusal, detail: impl Into<String>) -> CommandReply {
    CommandReply {
        refusal: refusal.into(),
        detail: detail.into(),
        ..CommandReply::default()
    }
}

/// A success that answers with a number.
pub(super) fn done(value: u64) -> CommandReply {
    CommandReply {
        value,
        ..CommandReply::default()
    }
}
