//! What one call of `apply` changes: the batch for the tables, and whom to tell afterwards.

use std::collections::{BTreeMap, BTreeSet};

use proto::QueueId;
use store::Batch;
use store::table::consume_queue::Row;
use store::table::{GroupQueue, clock, consume_queue, queue_bounds};

use super::state::State;

/// Collected over all entries of the call.
#[derive(Default)]
pub(crate) struct Changes {
    pub(super) batch: Batch,
    /// Rows that are in the batch and not in the tables yet.
    rows: BTreeMap<(u64, QueueId), Vec<Row>>,
    /// Queues whose bounds changed: each row is written once per call, however many entries moved it.
    touched: BTreeSet<(u64, QueueId)>,
    removed_topics: Vec<u64>,
    /// Queues of groups whose retries changed.
    touched_retries: BTreeSet<GroupQueue>,
    config_changed: bool,
    payload_bytes: u64,
}

impl Changes {
    /// A row was added to a queue.
    pub(super) fn add_row(&mut self, topic_id: u64, queue: QueueId, row: Row) {
        consume_queue::put(&mut self.batch, topic_id, queue, &row);
        self.rows.entry((topic_id, queue)).or_default().push(row);
    }

    /// The rows that this call added to a queue, in order.
    pub(super) fn rows_of(&self, topic_id: u64, queue: QueueId) -> impl Iterator<Item = &Row> {
        self.rows.get(&(topic_id, queue)).into_iter().flatten()
    }

    /// A queue's bounds changed.
    pub(super) fn touch(&mut self, topic_id: u64, queue: QueueId) {
        self.touched.insert((topic_id, queue));
    }

    /// A group's retries in a queue changed.
    pub(super) fn touch_retries(&mut self, queue: GroupQueue) {
        self.touched_retries.insert(queue);
    }

    pub(super) fn add_payload(&mut self, bytes: usize) {
        self.payload_bytes += bytes as u64;
    }

    /// Topics or groups changed.
    pub(super) fn change_config(&mut self) {
        self.config_changed = true;
    }

    pub(super) fn remove_topic(&mut self, topic_id: u64) {
        self.removed_topics.push(topic_id);
        self.config_changed = true;
    }

    /// Adds the rows that are written once per call.
    pub(super) fn settle(&mut self, state: &State) {
        for (topic_id, queue) in &self.touched {
            // None: the topic was deleted by a later entry of this call.
            if let Some(bounds) = state.queue(*topic_id, *queue) {
                queue_bounds::put(&mut self.batch, *topic_id, *queue, bounds);
            }
        }
        clock::put(&mut self.batch, state.clock);
    }

    pub(super) fn take_batch(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    pub(super) fn touched_queues(&self) -> &BTreeSet<(u64, QueueId)> {
        &self.touched
    }

    pub(super) fn touched_retries(&self) -> &BTreeSet<GroupQueue> {
        &self.touched_retries
    }

    pub(super) fn removed_topics(&self) -> &[u64] {
        &self.removed_topics
    }

    pub(super) fn config_changed(&self) -> bool {
        self.config_changed
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }
}
