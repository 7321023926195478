//! `SendMessage`: checks each message, chooses its queue, and has it stored.
//!
//! Messages stay as the client encoded them. Answers only after they are on the disks of a majority.
//! A message that is sent again, by the client or by a change of leader, is stored once, and the answer says where.

mod message;
mod places;
mod queue_choice;

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use futures::future::join_all;
use gateway::Answer;
use proto::QueueId;
use proto::opaque::SendMessageRequest;
use proto::v2::{self, Code, SendMessageResponse, SendResultEntry};
use siphasher::sip::SipHasher24;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use self::message::{Accepted, Limits, check_storable};
use self::places::Places;
use super::resource::check_topic;
use super::status::{CallError, Refusal, ok};
use crate::call::{Context, Effect, LeaderCall};
use crate::proposer::{Fate, MessageId, Placed, QueueSend, Sender};
use crate::service::Service;
use crate::view::Topic;

impl LeaderCall for SendMessageRequest {
    type Answer = Sent;

    const EFFECT: Effect = Effect::Repeatable;

    async fn serve(&self, service: &Arc<Service>, context: &Context) -> Result<Sent, CallError> {
        send(service, sender(context), &self.messages).await
    }

    async fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> Result<Response<Sent>, Status> {
        let answer = service.forwarder.send_message(address, request).await?;
        Ok(answer.map(Sent::from))
    }

    fn refused(refusal: Refusal) -> Sent {
        SendMessageResponse::refused(refusal.code, refusal.reason).into()
    }

    fn describe(answer: &Sent, metadata: &mut MetadataMap) {
        if let Some(queues) = &answer.queues
            && let Ok(queues) = queues.parse()
        {
            metadata.insert(gateway::QUEUES, queues);
        }
    }

    fn denies(answer: &Sent) -> bool {
        let code = answer.response.status.as_ref().map(v2::Status::code);
        matches!(code, Some(Code::TooManyRequests | Code::HaNotAvailable))
    }
}

/// What a send is answered.
pub(crate) struct Sent {
    pub(crate) response: SendMessageResponse,
    /// Where the messages are, if not where their client sent them ([`gateway::QUEUES`]).
    queues: Option<String>,
}

impl From<SendMessageResponse> for Sent {
    fn from(response: SendMessageResponse) -> Sent {
        Sent {
            response,
            queues: None,
        }
    }
}

/// Who says how the messages of a call follow each other.
fn sender(context: &Context) -> Sender {
    if gateway::is_sequenced(&context.metadata) {
        return Sender::Sequenced;
    }
    // Every call has one; without it, all would be remembered at one expense.
    let mut hasher = SipHasher24::new();
    hasher.write(context.client_id().unwrap_or_default().as_bytes());
    Sender::Client(hasher.finish())
}

async fn send(service: &Service, sender: Sender, messages: &[Bytes]) -> Result<Sent, CallError> {
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
    let mut plan = Plan::new(sender, messages.len());
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
    sender: Sender,
    entries: Vec<SendResultEntry>,
    places: Places,
    /// Positions and ids of the messages for each queue, in order.
    queues: BTreeMap<QueueId, (Vec<usize>, Vec<MessageId>)>,
}

impl Plan {
    fn new(sender: Sender, count: usize) -> Plan {
        Plan {
            sender,
            places: Places::default(),
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
            Some(topic) => match place(&accepted, topic, turn) {
                Ok(queue) => Ok((queue, accepted)),
                Err(refusal) => Err((accepted.message_id, refusal)),
            },
            None => unreachable!("a message is accepted only with the name of its topic"),
        });
        let named = checked.as_ref().map(|(_, accepted)| accepted.named);
        self.places.add(named.unwrap_or(0));
        match checked {
            Ok((queue, accepted)) => {
                let (positions, ids) = self.queues.entry(queue).or_default();
                positions.push(position);
                ids.push(MessageId {
                    number: accepted.id,
                    digest: accepted.digest,
                    sender: self.sender,
                });
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
        let each = placed
            .iter()
            .flat_map(|run| (0..u64::from(run.count)).map(move |place| (run, place)));
        for (&position, (run, place)) in positions.iter().zip(each) {
            if run.fate == Fate::TooLate {
                self.refuse(position, too_late(&self.entries[position].message_id));
                continue;
            }
            self.entries[position].offset = (run.first_offset + place) as i64;
            self.places.is_in(position, run.queue);
        }
    }

    fn enter_refusal(&mut self, positions: &[usize], refusal: &Refusal) {
        for &position in positions {
            self.refuse(position, refusal.clone());
        }
    }

    fn refuse(&mut self, position: usize, refusal: Refusal) {
        let entry = &mut self.entries[position];
        entry.status = Some(refusal.into_status());
        entry.transaction_id.clear();
    }

    /// The common status, or `MULTIPLE_RESULTS`.
    fn into_response(self) -> Sent {
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
        Sent {
            response: SendMessageResponse {
                status: Some(status),
                entries: self.entries,
            },
            queues: self.places.header(),
        }
    }
}

/// The queue of a message that its topic takes.
fn place(accepted: &Accepted, topic: &Topic, turn: &AtomicU32) -> Result<QueueId, Refusal> {
    check_storable(accepted.kind, topic)?;
    queue_choice::choose(&accepted.queue, topic, turn)
}

fn too_late(message_id: &str) -> Refusal {
    Refusal::new(
        Code::IllegalMessageId,
        format!(
            "message {message_id} came after later ones of its sender: it was not stored now, and whether it was before \
             is not known any more"
        ),
    )
}
