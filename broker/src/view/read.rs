//! Reads messages of a queue: rows from the tables, bodies from the log.

use std::sync::Arc;

use bytes::Bytes;
use proto::{QueueId, QueueOffset, TimestampMs};
use store::StoreError;
use store::table::consume_queue::{self, Row};
use store::table::queue_bounds::QueueBounds;

use super::entry_cache::DecodedEntry;
use super::{ReadError, View};
use crate::machine::Storage;

/// Rows fetched at once after the first one.
const ROWS_PER_SCAN: usize = 16;

/// How often a read begins anew because what it was about to read was moved or dropped.
const MOVES_MAX: u32 = 2;

/// A message as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the queue.
    pub offset: QueueOffset,
    /// When it was stored, milliseconds since the Unix epoch.
    pub time_ms: TimestampMs,
    /// The encoded `apache.rocketmq.v2.Message`, as the client sent it.
    pub message: Bytes,
}

/// One queue as it was when the read began.
struct Queue {
    topic_id: u64,
    queue: QueueId,
    bounds: QueueBounds,
    storage: Storage,
}

impl View {
    /// Messages of a queue from `offset` on: at most `max_messages`, and no more than `max_bytes`
    /// unless the first alone is larger. Empty where `offset` is the next one to be stored.
    pub async fn read(
        &self,
        topic_id: u64,
        queue: QueueId,
        offset: QueueOffset,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        let mut moves = 0;
        loop {
            let of_queue = self.open(topic_id, queue)?;
            of_queue.check(offset)?;
            let mut found = Found::new(offset, max_messages, max_bytes);
            let outcome = self.fill(&of_queue, &mut found).await;
            if let Err(error) = outcome {
                // Retention may have taken the rows or the segments away in the meantime, or moved what a
                // dead letter points at.
                self.open(topic_id, queue)?.check(offset)?;
                if found.messages.is_empty() && moves < MOVES_MAX {
                    moves += 1;
                    continue;
                }
                if found.messages.is_empty() {
                    return Err(error);
                }
            }
            return Ok(found.messages);
        }
    }

    /// The first offset of a queue whose message was stored at or after `time_ms`; the next offset of
    /// the queue if there is none. Where clocks were ahead for a while and messages say so, an earlier one.
    pub async fn offset_at_time(
        &self,
        topic_id: u64,
        queue: QueueId,
        time_ms: TimestampMs,
    ) -> Result<QueueOffset, ReadError> {
        self.first_not(topic_id, queue, |row| row.time_ms < time_ms)
    }

    /// The first offset behind the rows that come `before`, of a queue along which none does that follows one that does
    /// not.
    pub(super) fn first_not(
        &self,
        topic_id: u64,
        queue: QueueId,
        before: impl Fn(&Row) -> bool,
    ) -> Result<QueueOffset, ReadError> {
        let of_queue = self.open(topic_id, queue)?;
        match of_queue.search(&before) {
            Ok(offset) => Ok(offset),
            // Rows went away while searching: what is left begins at the new first offset.
            Err(ReadError::Corrupt { .. })
                if self.open(topic_id, queue)?.bounds.min_offset > of_queue.bounds.min_offset =>
            {
                self.open(topic_id, queue)?.search(&before)
            }
            Err(error) => Err(error),
        }
    }

    /// When the message at an offset was stored, milliseconds since the Unix epoch; none for the next one
    /// to be stored.
    pub async fn time_of(
        &self,
        topic_id: u64,
        queue: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<TimestampMs>, ReadError> {
        let of_queue = self.open(topic_id, queue)?;
        of_queue.check(offset)?;
        match of_queue.rows_from(offset) {
            Ok(rows) => Ok(rows.first().map(|row| row.time_ms)),
            // Retention may have taken the row away in the meantime.
            Err(error) => {
                self.open(topic_id, queue)?.check(offset)?;
                Err(error)
            }
        }
    }

    fn open(&self, topic_id: u64, queue: QueueId) -> Result<Queue, ReadError> {
        self.look(|state| {
            let bounds = state.queue(topic_id, queue).ok_or(ReadError::NotFound)?;
            let storage = state.storage.clone().ok_or(ReadError::NotFound)?;
            Ok(Queue {
                topic_id,
                queue,
                bounds,
                storage,
            })
        })
    }

    async fn fill(&self, queue: &Queue, found: &mut Found) -> Result<(), ReadError> {
        let mut rows = queue.rows_from(found.offset)?.into_iter();
        while found.wants_more(queue.bounds.next_offset) {
            let row = match rows.next() {
                Some(row) => row,
                None => {
                    rows = queue.scan(found.offset)?.into_iter();
                    rows.next()
                        .ok_or_else(|| queue.corrupt(found.offset, "no row"))?
                }
            };
            let entry = self.entry(queue, &row).await?;
            if !found.take(&row, &entry, queue)? {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn entry(&self, queue: &Queue, row: &Row) -> Result<Arc<DecodedEntry>, ReadError> {
        let decoded = self.decoded(&queue.storage, row.log_index).await?;
        decoded.ok_or_else(|| queue.corrupt(row.first_offset, "its entry does not decode"))
    }

    /// An entry's messages; none if it does not decode.
    pub(super) async fn decoded(
        &self,
        storage: &Storage,
        log_index: u64,
    ) -> Result<Option<Arc<DecodedEntry>>, StoreError> {
        if let Some(entry) = self.shared.entries.get(log_index) {
            return Ok(Some(entry));
        }
        let body = storage.log.entry(log_index).await?.body;
        let Some(decoded) = DecodedEntry::decode(body) else {
            return Ok(None);
        };
        let decoded = Arc::new(decoded);
        self.shared.entries.put(log_index, decoded.clone());
        Ok(Some(decoded))
    }
}

impl Queue {
    fn check(&self, offset: QueueOffset) -> Result<(), ReadError> {
        let QueueBounds {
            min_offset,
            next_offset,
        } = self.bounds;
        if offset < min_offset {
            return Err(ReadError::OffsetTooSmall { min: min_offset });
        }
        if offset > next_offset {
            return Err(ReadError::OffsetTooLarge { max: next_offset });
        }
        Ok(())
    }

    /// The row that holds `offset`, if it is there already.
    fn rows_from(&self, offset: QueueOffset) -> Result<Vec<Row>, ReadError> {
        if offset >= self.bounds.next_offset {
            return Ok(Vec::new());
        }
        Ok(vec![self.row_at(offset)?])
    }

    fn row_at(&self, offset: QueueOffset) -> Result<Row, ReadError> {
        let kv = &*self.storage.kv;
        let row = consume_queue::last_at_or_before(kv, self.topic_id, self.queue, offset)?;
        row.filter(|row| row.end_offset() > offset)
            .ok_or_else(|| self.corrupt(offset, "no row"))
    }

    fn scan(&self, from_offset: QueueOffset) -> Result<Vec<Row>, ReadError> {
        let kv = &*self.storage.kv;
        Ok(consume_queue::scan(
            kv,
            self.topic_id,
            self.queue,
            from_offset,
            ROWS_PER_SCAN,
        )?)
    }

    /// Times decrease along a queue only where the clocks of a majority had been ahead and were set right. The offset
    /// that is found follows one whose time is earlier, or is the first: what was stored later is not passed over.
    fn search(&self, before: impl Fn(&Row) -> bool) -> Result<QueueOffset, ReadError> {
        let (mut low, mut high) = (self.bounds.min_offset, self.bounds.next_offset);
        while low < high {
            let row = self.row_at(low + (high - low) / 2)?;
            if before(&row) {
                low = row.end_offset();
            } else {
                // The row of the first offset may begin before it only if retention cut in between.
                high = row.first_offset.max(low);
            }
        }
        Ok(low)
    }

    fn corrupt(&self, offset: QueueOffset, detail: &str) -> ReadError {
        let (topic_id, queue) = (self.topic_id, self.queue);
        ReadError::Corrupt {
            topic_id,
            queue,
            offset,
            detail: detail.to_owned(),
        }
    }
}

/// What a read has gathered.
struct Found {
    messages: Vec<Stored>,
    /// The next offset to read.
    offset: QueueOffset,
    messages_max: usize,
    bytes_left: usize,
}

impl Found {
    fn new(offset: QueueOffset, messages_max: usize, bytes_max: usize) -> Found {
        Found {
            messages: Vec::new(),
            offset,
            messages_max,
            bytes_left: bytes_max,
        }
    }

    fn wants_more(&self, next_offset: QueueOffset) -> bool {
        self.offset < next_offset && self.messages.len() < self.messages_max
    }

    /// Takes the row's messages from the next offset on; false when no more fit.
    fn take(&mut self, row: &Row, entry: &DecodedEntry, queue: &Queue) -> Result<bool, ReadError> {
        if !(row.first_offset..row.end_offset()).contains(&self.offset) {
            return Err(queue.corrupt(self.offset, "rows leave a gap"));
        }
        while self.offset < row.end_offset() {
            if self.messages.len() >= self.messages_max {
                return Ok(false);
            }
            let place = (self.offset - row.first_offset) as u32;
            let message = row
                .first
                .checked_add(place)
                .and_then(|position| entry.message(row.command, position))
                .ok_or_else(|| queue.corrupt(self.offset, "its entry does not hold it"))?;
            if message.len() > self.bytes_left && !self.messages.is_empty() {
                return Ok(false);
            }
            self.bytes_left = self.bytes_left.saturating_sub(message.len());
            let (offset, time_ms) = (self.offset, row.time_ms);
            self.messages.push(Stored {
                offset,
                time_ms,
                message,
            });
            self.offset += 1;
        }
        Ok(true)
    }
}
