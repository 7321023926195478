//! Where a consumer group starts in a queue in which it has committed nothing: the one rule, for every consumer.
//!
//! A function of the group, the queue and what retention left, and so the same whenever it is asked: nothing that is stored
//! after the group was made is passed by, also in queues that are added later.

use proto::command::put_group::ConsumeFrom;
use proto::place::StartAt;
use proto::{QueueId, QueueOffset, TimestampMs};

use super::{Group, ReadError, Topic, View};

impl Group {
    /// Where it starts.
    pub(crate) fn start(&self) -> StartAt {
        match ConsumeFrom::try_from(self.consume_from) {
            Ok(ConsumeFrom::Latest) => StartAt::Latest {
                since_ms: Some(self.since.time_ms),
            },
            Ok(ConsumeFrom::Timestamp) => StartAt::TimeMs(self.consume_from_ms),
            Ok(ConsumeFrom::Earliest) | Err(_) => StartAt::Earliest,
        }
    }
}

impl View {
    /// See the module's text. `member_since_ms`: of a member that gets every message by itself and exists since then.
    pub(crate) async fn start_of(
        &self,
        group: &Group,
        topic: &Topic,
        queue: QueueId,
        member_since_ms: Option<TimestampMs>,
    ) -> Result<QueueOffset, ReadError> {
        let latest_since = match group.start() {
            StartAt::Earliest => {
                let bounds = self.queue(topic.id, queue);
                return Ok(bounds.ok_or(ReadError::NotFound)?.min_offset);
            }
            StartAt::TimeMs(time_ms) => return self.offset_at_time(topic.id, queue, time_ms).await,
            StartAt::Latest { .. } => group.since,
        };
        // Dead letters do not stand in the order of the entries that hold them.
        if latest_since.elsewhere || topic.dead_letters || member_since_ms.is_some() {
            let since_ms = member_since_ms.unwrap_or(latest_since.time_ms);
            return self.offset_at_time(topic.id, queue, since_ms).await;
        }
        let made = (latest_since.log_index, latest_since.command);
        self.first_not(topic.id, queue, |row| (row.log_index, row.command) < made)
    }
}
