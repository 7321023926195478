//! The fake group's side of failed messages: rows with a time, and faults on request.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proto::redelivery::redelivery_server::Redelivery;
use proto::redelivery::{
    PullRetriesRequest, PullRetriesResponse, RedeliveryResponse, Retry, SendBackRequest,
    SettleRequest,
};
use proto::v2::Code;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::fake::{FakeBroker, delivered};

/// What happens to a message that is handed back, instead of what should.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SendBackFault {
    /// A refusal; nothing is kept.
    Refuse(Code),
    /// Kept, but each answer breaks until the caller gives up.
    LoseAnswer,
}

/// What the group knows of failed messages of its one topic, by queue and offset.
pub(crate) struct RedeliveryBook {
    pub rows: BTreeMap<(u32, u64), Row>,
    /// Dead letters, in the order in which they died.
    pub dead: Vec<(u32, u64)>,
    pub settled: Vec<(u32, u64, u32)>,
    /// Each hand-back that came, refused or not: queue, offset, attempt.
    pub handed_back: Vec<(u32, u64, u32)>,
    pub faults: VecDeque<SendBackFault>,
    pub back_off: Duration,
    pub max_attempts: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub attempt: u32,
    pub due: Instant,
}

impl Default for RedeliveryBook {
    fn default() -> Self {
        RedeliveryBook {
            rows: BTreeMap::new(),
            dead: Vec::new(),
            settled: Vec::new(),
            handed_back: Vec::new(),
            faults: VecDeque::new(),
            back_off: Duration::from_millis(50),
            max_attempts: 3,
        }
    }
}

fn said(code: Code) -> RedeliveryResponse {
    RedeliveryResponse {
        code: code as i32,
        message: "said".to_owned(),
    }
}

impl FakeBroker {
    fn keep(&self, request: &SendBackRequest) {
        let mut world = self.world();
        let book = &mut world.redelivery;
        for failed in &request.failed {
            let place = (request.queue, failed.offset);
            if book.dead.contains(&place) {
                continue;
            }
            if request.dead || failed.attempt >= book.max_attempts {
                book.rows.remove(&place);
                book.dead.push(place);
                continue;
            }
            let delay = match request.delay_ms {
                0 => book.back_off,
                delay_ms => Duration::from_millis(delay_ms),
            };
            let row = Row {
                attempt: failed.attempt,
                due: Instant::now() + delay,
            };
            let known = book.rows.get(&place);
            if known.is_none_or(|known| known.attempt < failed.attempt) {
                book.rows.insert(place, row);
            }
        }
    }

    /// What is due of a queue, and when the next one will be.
    fn due(&self, request: &PullRetriesRequest) -> (Vec<Retry>, Option<Instant>) {
        let (world, now) = (self.world(), Instant::now());
        let mut rows: Vec<(u64, Row)> = world
            .redelivery
            .rows
            .iter()
            .filter(|((queue, offset), _)| {
                *queue == request.queue && !request.held.contains(offset)
            })
            .map(|((_, offset), row)| (*offset, *row))
            .collect();
        rows.sort_by_key(|(_, row)| row.due);
        let next = rows.iter().map(|(_, row)| row.due).find(|due| *due > now);
        let due = rows.iter().filter(|(_, row)| row.due <= now);
        let retries = due
            .take(request.messages_max as usize)
            .map(|(offset, row)| {
                let queue = request.queue as usize;
                let encoded = &world.queues[queue][*offset as usize].encoded;
                Retry {
                    attempt: row.attempt + 1,
                    message: delivered(queue, *offset, row.attempt + 1, encoded),
                }
            });
        (retries.collect(), next)
    }
}

#[tonic::async_trait]
impl Redelivery for FakeBroker {
    async fn send_back(
        &self,
        request: Request<SendBackRequest>,
    ) -> Result<Response<RedeliveryResponse>, Status> {
        if !self.leads().await {
            return Ok(self.answer(said(Code::HaNotAvailable)));
        }
        let request = request.into_inner();
        let fault = {
            let mut world = self.world();
            let book = &mut world.redelivery;
            let came = request.failed.iter();
            book.handed_back
                .extend(came.map(|failed| (request.queue, failed.offset, failed.attempt)));
            book.faults.pop_front()
        };
        if let Some(SendBackFault::Refuse(code)) = fault {
            return Ok(self.answer(said(code)));
        }
        self.keep(&request);
        self.arrivals.notify_waiters();
        match fault {
            Some(SendBackFault::LoseAnswer) => Err(Status::unavailable("connection reset")),
            _ => Ok(self.answer(said(Code::Ok))),
        }
    }

    async fn pull_retries(
        &self,
        request: Request<PullRetriesRequest>,
    ) -> Result<Response<PullRetriesResponse>, Status> {
        let answer = |code: Code, retries| {
            self.answer(PullRetriesResponse {
                code: code as i32,
                message: String::new(),
                retries,
                next_due_ms: 0,
            })
        };
        if !self.leads().await {
            return Ok(answer(Code::HaNotAvailable, vec![]));
        }
        let request = request.into_inner();
        let ends = Instant::now() + Duration::from_millis(request.wait_ms);
        loop {
            let mut arrived = std::pin::pin!(self.arrivals.notified());
            arrived.as_mut().enable();
            let (retries, next) = self.due(&request);
            if !retries.is_empty() || Instant::now() >= ends {
                return Ok(answer(Code::Ok, retries));
            }
            let wake = next.map_or(ends, |next| next.min(ends));
            let _ = tokio::time::timeout_at(wake, arrived).await;
        }
    }

    async fn settle(
        &self,
        request: Request<SettleRequest>,
    ) -> Result<Response<RedeliveryResponse>, Status> {
        if !self.leads().await {
            return Ok(self.answer(said(Code::HaNotAvailable)));
        }
        let request = request.into_inner();
        {
            let mut world = self.world();
            for settled in &request.settled {
                let book = &mut world.redelivery;
                book.rows.remove(&(request.queue, settled.offset));
                book.settled
                    .push((request.queue, settled.offset, settled.attempt));
            }
        }
        Ok(self.answer(said(Code::Ok)))
    }
}
