//! Where a consumer's progress is kept: by the servers, for its group; or by itself, when each member reads everything.

use std::sync::Arc;

use proto::place::StartOf;

use crate::connection::Identity;
use crate::consumer::delivery::TopicQueue;
use crate::consumer::holdings::Due;
use crate::consumer::progress_file::ProgressFile;
use crate::core::Core;
use crate::error::Error;
use crate::measure;
use crate::offsets::{self, Start};

/// A member of a group, as it speaks to the servers.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) identity: &'a Identity,
    pub(super) group: &'a str,
}

/// See the module's text.
pub(crate) enum Progress {
    /// By the servers.
    OfGroup,
    /// By the consumer.
    Own(Arc<ProgressFile>),
}

impl Progress {
    /// What is committed in a queue, if anything.
    pub(super) async fn committed(
        &self,
        whose: Whose<'_>,
        queue: &TopicQueue,
    ) -> Result<Option<u64>, Error> {
        match self {
            Progress::OfGroup => {
                offsets::committed(whose.core, whose.identity, whose.group, queue).await
            }
            Progress::Own(file) => Ok(file.offset(queue)),
        }
    }

    /// Where to start in a queue.
    pub(super) async fn start(&self, whose: Whose<'_>, queue: &TopicQueue) -> Result<Start, Error> {
        let of = match self {
            Progress::OfGroup => StartOf::Group,
            Progress::Own(file) => StartOf::Member {
                since_ms: file.since_ms().unwrap_or(0),
            },
        };
        let start = offsets::start(whose.core, whose.identity, whose.group, queue, of).await?;
        match self {
            Progress::OfGroup => Ok(start),
            Progress::Own(file) => Ok(own_start(whose.group, file, queue, start)),
        }
    }

    /// Forgets the progress in a queue, if it is the consumer's own. False: it is not.
    pub(super) fn forget(&self, queue: &TopicQueue) -> bool {
        match self {
            Progress::OfGroup => false,
            Progress::Own(file) => {
                file.forget(queue);
                true
            }
        }
    }

    pub(super) fn is_young(&self) -> bool {
        match self {
            Progress::OfGroup => false,
            Progress::Own(file) => file.since_ms().is_none(),
        }
    }

    pub(super) fn born(&self, since_ms: u64) {
        if let Progress::Own(file) = self {
            file.born(since_ms);
        }
    }

    /// Commits one queue's offset; for good when the next `save` returned.
    pub(super) async fn commit(&self, whose: Whose<'_>, due: &Due) -> Result<(), Error> {
        match self {
            Progress::OfGroup => {
                let (queue, offset) = (&due.queue, due.offset);
                offsets::commit(whose.core, whose.identity, whose.group, queue, offset).await
            }
            Progress::Own(file) => {
                file.set(due);
                Ok(())
            }
        }
    }

    /// Whether what was committed is for good only after a `save`.
    pub(super) fn needs_save(&self) -> bool {
        match self {
            Progress::OfGroup => false,
            Progress::Own(_) => true,
        }
    }

    /// Makes what was committed last.
    pub(super) async fn save(&self) -> Result<(), Error> {
        match self {
            Progress::OfGroup => Ok(()),
            Progress::Own(file) => file.save().await,
        }
    }

    /// Commits no more.
    pub(super) fn close(&self) {
        if let Progress::Own(file) = self {
            file.close();
        }
    }
}

/// Own progress, if it is of the topic as it is now; else where the group starts.
fn own_start(group: &str, file: &ProgressFile, queue: &TopicQueue, start: Start) -> Start {
    let Some((offset, life)) = file.place(queue) else {
        return start;
    };
    if life == start.life {
        return Start {
            offset,
            committed: true,
            life,
        };
    }
    tracing::warn!(group, %queue, offset, start = start.offset, "own progress is of a topic that was made again or restored: it is read from where its group starts");
    measure::started_again(group, &queue.topic);
    start
}
