//! `SendMessage`: checks each message, chooses its queue, and has it stored.
//!
//! Messages stay as the client encoded them. Answers only after they are on the disks of a majority.
//! A send that is repeated with the same message id, by the client or by a change of leader, is stored
//! once.

mod message;
mod queue_choice;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use futures::future::join_all;
use gateway::Answer;
use proto::QueueId;
use proto::opaque::SendMessageRequest;
use proto::v2::{self, Code, SendMessageResponse, SendResultEntry};
use tonic::{Request, Response, Status};

use self::message::{Accepted, Limits};
use super::resource::check_topic;
use super::status::{CallError, Refusal, ok};
use crate::call::{Context, Effect, LeaderCall};
use crate::proposer::{Placed, QueueSend};
use crate::service::Service;
use crate::view::Topic;

impl LeaderCall for SendMessageRequest {
    type Answer = SendMessageResponse;

    const EFFECT: Effect = Effect::Repeatable;

    async fn serve(
        &self,
        service: &Arc<Service>,
        _: &Context,
    ) -> Result<SendMessageResponse, CallError> {
        send(service, &self.messages).await
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<SendMessageResponse>, Status> {
        service.forwarder.send_message(address, request).await
    }

    fn refused(refusal: Refusal) -> SendMessageResponse {
        SendMessageResponse::refused(refusal.code, refusal.reason)
    }

    fn denies(answer: &SendMessageResponse) -> bool {
        let code = answer.status.as_ref().map(v2::Status::code);
        matches!(code, Some(Code::TooManyRequests | Code::HaNotAvailable))
    }
}

async fn send(service: &Service, messages: &[Bytes]) -> Result<SendMessageResponse, CallError> {
    let bytes = check_request(service, messages)?;
    let limits = Limits {
        body_bytes_max: service.config.message_bytes_max,
        now_ms: service.host.clock.now_ms(),
    };
    let (topic_name, accepted) = message::read_all(messages, &limits)?;
    let topic = match topic_name {
        Some(name) => {
            check_topic(&name)?;
            Some(service.topic_or_create(&name).await?)
        }
        None => None,
    };
    let mut plan = Plan::new(messages.len());
    for (position, accepted) in accepted.into_iter().enumerate() {
        plan.add(position, accepted, topic.as_deref(), &service.queue_turn);
    }
    if let Some(topic) = topic {
        plan.store(service, &topic, messages, bytes).await?;
    }
    Ok(plan.into_response())
}

/// Checks the request as a whole; the sum of its messages' sizes.
fn check_request(service: &Service, messages: &[Bytes]) -> Result<usize, Refusal> {
    if messages.is_empty() {
        return Err(Refusal::new(
            Code::MessageCorrupted,
            "the request has no message",
        ));
    }
    let bytes = messages.iter().map(Bytes::len).sum::<usize>();
    if bytes as u64 > service.config.request_bytes_max {
        return Err(Refusal::new(
            Code::PayloadTooLarge,
            format!(
                "the messages of the request have {bytes} bytes, more than {}",
                service.config.request_bytes_max
            ),
        ));
    }
    service.disk_space.check()?;
    Ok(bytes)
}

/// What becomes of each message of one request.
struct Plan {
    entries: Vec<SendResultEntry>,
    /// Positions and id numbers of the messages for each queue, in order.
    queues: BTreeMap<QueueId, (Vec<usize>, Vec<u128>)>,
}

impl Plan {
    fn new(count: usize) -> Plan {
        Plan {
            entries: Vec::with_capacity(count),
            queues: BTreeMap::new(),
        }
    }

    fn add(
        &mut self,
        position: usize,
        accepted: Result<Accepted, (String, Refusal)>,
        topic: Option<&Topic>,
        turn: &AtomicU32,
    ) {
        let checked = accepted.and_then(|accepted| match topic {
            Some(topic) => match accepted.kind.check_storable(topic) {
                Ok(()) => Ok((queue_choice::choose(&accepted.queue, topic, turn), accepted)),
                Err(refusal) => Err((accepted.message_id, refusal)),
            },
            None => unreachable!("a message is accepted only with the name of its topic"),
        });
        match checked {
            Ok((queue, accepted)) => {
                let (positions, ids) = self.queues.entry(queue).or_default();
                positions.push(position);
                ids.push(accepted.id);
                self.entries.push(SendResultEntry {
                    status: Some(ok()),
                    transaction_id: accepted.message_id.clone(),
                    message_id: accepted.message_id,
                    ..Default::default()
                });
            }
            Err((message_id, refusal)) => self.entries.push(SendResultEntry {
                status: Some(refusal.into_status()),
                message_id,
                ..Default::default()
            }),
        }
    }

    /// Stores what was accepted and enters the offsets.
    async fn store(
        &mut self,
        service: &Service,
        topic: &Topic,
        messages: &[Bytes],
        bytes: usize,
    ) -> Result<(), CallError> {
        let mut queues = std::mem::take(&mut self.queues).into_iter();
        let sends = queues.by_ref().map(|(queue, (positions, ids))| {
            let whole = positions.len() == messages.len();
            let messages: Vec<Bytes> = positions
                .iter()
                .map(|&position| messages[position].clone())
                .collect();
            let bytes = if whole {
                bytes
            } else {
                messages.iter().map(Bytes::len).sum()
            };
            let send = QueueSend {
                topic_id: topic.id,
                queue,
                messages,
                ids,
                bytes,
            };
            async move { (service.proposer.send(send).await, positions) }
        });
        for (outcome, positions) in join_all(sends).await {
            match outcome.map_err(CallError::from) {
                Ok(placed) => self.enter_offsets(&positions, &placed),
                Err(CallError::Refused(refusal)) => self.enter_refusal(&positions, &refusal),
                // All of it is tried again; what was stored is found by its ids.
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn enter_offsets(&mut self, positions: &[usize], placed: &[Placed]) {
        let offsets = placed
            .iter()
            .flat_map(|run| (0..u64::from(run.count)).map(|place| run.first_offset + place));
        for (&position, offset) in positions.iter().zip(offsets) {
            self.entries[position].offset = offset as i64;
        }
    }

    fn enter_refusal(&mut self, positions: &[usize], refusal: &Refusal) {
        for &position in positions {
            let entry = &mut self.entries[position];
            entry.status = Some(refusal.clone().into_status());
            entry.transaction_id.clear();
        }
    }

    /// The common status, or `MULTIPLE_RESULTS`.
    fn into_response(self) -> SendMessageResponse {
        let mut statuses = self
            .entries
            .iter()
            .filter_map(|entry| entry.status.as_ref());
        let first = statuses.next().cloned().unwrap_or_default();
        let status = if statuses.all(|status| status.code == first.code) {
            first
        } else {
            v2::Status {
                code: Code::MultipleResults.into(),
                message: "the messages have different results".to_owned(),
            }
        };
        SendMessageResponse {
            status: Some(status),
            entries: self.entries,
        }
    }
}
