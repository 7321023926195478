//! Writes once more what retries and dead letters point at, before the entries that hold it are dropped.
//!
//! In commands of bounded size, lowest entry first, so that every one of them lets the floor rise. Never
//! drops anything.

use proto::command::{self, Source, command::Body};
use store::Room;

use crate::grpc::status::CallError;
use crate::machine::Location;
use crate::service::Service;

/// Messages of one command.
const MESSAGES_MAX: usize = 256;

/// Commands in one go: other things are looked at in between, and small messages are many.
const COMMANDS_AT_ONCE: usize = 16;

/// Why not everything was kept that must be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    /// The message cannot be read.
    #[error("message {position} of command {command} of entry {log_index}: {reason}")]
    Unreadable {
        log_index: u64,
        command: u32,
        position: u32,
        reason: String,
    },
    /// Writing it would take the space that is left for letting go of it.
    #[error("the disk has no room to write {0} messages once more: free some")]
    NoRoom(usize),
    /// The command was not agreed on.
    #[error("not agreed on: {0:?}")]
    Proposal(CallError),
}

/// Moves what is pointed at in the entries before `first_index`, until `bytes_max` bytes or as many commands
/// as go at once were written; how many bytes were.
pub(crate) async fn before(
    service: &Service,
    first_index: u64,
    bytes_max: u64,
) -> Result<u64, KeepError> {
    let mut bytes = 0;
    for _ in 0..COMMANDS_AT_ONCE {
        let locations = service.view.referenced_below(first_index, MESSAGES_MAX);
        if locations.is_empty() || bytes >= bytes_max {
            break;
        }
        if service.group.room() > Room::Keeping {
            return Err(KeepError::NoRoom(locations.len()));
        }
        let (keep, size) = gather(service, &locations).await?;
        let proposed = service.propose_upkeep(Body::Keep(keep)).await;
        proposed.map_err(KeepError::Proposal)?;
        bytes += size;
    }
    Ok(bytes)
}

/// A command with the first of these messages, at least one, and their size.
async fn gather(
    service: &Service,
    locations: &[Location],
) -> Result<(command::Keep, u64), KeepError> {
    // An entry of its own must not be most of a segment.
    let target = service
        .config
        .entry_bytes_target
        .min(service.config.segment_bytes / 4);
    let mut keep = command::Keep::default();
    let mut messages = Vec::new();
    for location in locations {
        let Location {
            log_index,
            command,
            position,
        } = *location;
        let unreadable = |reason: String| KeepError::Unreadable {
            log_index,
            command,
            position,
            reason,
        };
        let read = service.message_at(*location).await;
        let message = read
            .map_err(|error| unreadable(error.to_string()))?
            .ok_or_else(|| unreadable("there is none".to_owned()))?;
        keep.sizes_bytes.push(message.len() as u32);
        keep.from.push(Source {
            log_index,
            command,
            position,
        });
        messages.extend_from_slice(&message);
        if messages.len() as u64 >= target {
            break;
        }
    }
    let bytes = messages.len() as u64;
    keep.messages = messages.into();
    Ok((keep, bytes))
}
