//! Where a consumer's progress is kept: by the servers, for its group; or by itself, when each member reads everything.

use std::sync::Arc;

use crate::consumer::delivery::TopicQueue;
use crate::consumer::holdings::Due;
use crate::consumer::progress_file::ProgressFile;
use crate::consumer::shared::Shared;
use crate::error::Error;
use crate::offsets;

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
        shared: &Shared,
        queue: &TopicQueue,
    ) -> Result<Option<u64>, Error> {
        match self {
            Progress::OfGroup => {
                let group = shared.group.as_str();
                offsets::committed(&shared.core, &shared.identity, group, queue).await
            }
            Progress::Own(file) => Ok(file.offset(queue)),
        }
    }

    /// Commits one queue's offset; for good when the next `save` returned.
    pub(super) async fn commit(&self, shared: &Shared, due: &Due) -> Result<(), Error> {
        match self {
            Progress::OfGroup => {
                let Shared {
                    core,
                    identity,
                    group,
                    ..
                } = shared;
                offsets::commit(core, identity, group.as_str(), &due.queue, due.offset).await
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
