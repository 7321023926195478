//! Topics: create, alter, delete, list.

use std::sync::Arc;

use proto::cluster::{
    AdminResponse, ListRequest, ListTopicsResponse, NameRequest, PutTopicRequest, QueueRange,
    TopicInfo,
};
use proto::command::{self, command::Body};
use proto::v2::{Code, MessageType};

use super::done;
use crate::call::Context;
use crate::grpc::status::{CallError, Refusal, topic_not_found};
use crate::grpc::{check_topic, check_topic_to_read};
use crate::service::Service;
use crate::view::{FIRST_QUEUE, Topic};

/// Most queues of one topic.
const QUEUE_COUNT_MAX: u32 = 1_024;

/// Attributes of one topic: their number and the bytes of all of them.
const ATTRIBUTES_MAX: usize = 64;
const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;

/// A topic that does not exist yet, unless `if_absent` says that this is no matter.
pub(super) async fn create(
    service: &Service,
    request: &PutTopicRequest,
    _: &Context,
) -> Result<AdminResponse, CallError> {
    check(request)?;
    let queue_count = match request.queue_count {
        0 => service.config.auto_create_queue_count,
        count => count,
    };
    let reply = service
        .propose(Body::PutTopic(command::PutTopic {
            name: request.name.clone(),
            queue_count,
            message_type: request.message_type,
            create: true,
            attributes: request.attributes.clone(),
            if_absent: request.if_absent,
        }))
        .await?;
    Ok(done(reply.value))
}

/// Other settings for a topic that exists. Queues can be added, never removed: they hold messages.
pub(super) async fn alter(
    service: &Service,
    request: &PutTopicRequest,
    _: &Context,
) -> Result<AdminResponse, CallError> {
    check(request)?;
    let topic = service
        .view
        .topic(&request.name)
        .ok_or_else(|| topic_not_found(&request.name))?;
    let queue_count = match request.queue_count {
        0 => topic.queue_count,
        count => count,
    };
    if request.attributes.get(FIRST_QUEUE) != topic.attributes.get(FIRST_QUEUE) {
        let reason = format!("{FIRST_QUEUE} of topic {} cannot change", topic.name);
        return Err(Refusal::new(Code::BadRequest, reason).into());
    }
    if queue_count < topic.queue_count {
        return Err(Refusal::new(
            Code::BadRequest,
            format!(
                "topic {} has {} queues: none can be removed",
                topic.name, topic.queue_count
            ),
        )
        .into());
    }
    let reply = service
        .propose(Body::PutTopic(command::PutTopic {
            name: request.name.clone(),
            queue_count,
            message_type: request.message_type,
            create: false,
            attributes: request.attributes.clone(),
            if_absent: false,
        }))
        .await?;
    Ok(done(reply.value))
}

/// The topic, its messages and every group's offsets and retries in it; also a dead-letter queue.
pub(super) async fn delete(
    service: &Service,
    request: &NameRequest,
    _: &Context,
) -> Result<AdminResponse, CallError> {
    check_topic_to_read(&request.name)?;
    let name = request.name.clone();
    let reply = service
        .propose(Body::DeleteTopic(command::DeleteTopic { name }))
        .await?;
    Ok(done(reply.value))
}

/// Every topic with what is in its queues, by name.
pub(super) async fn list(
    service: &Service,
    _: &ListRequest,
    context: &Context,
) -> Result<ListTopicsResponse, CallError> {
    service.confirm_leadership(context.left()).await?;
    let mut topics: Vec<TopicInfo> = service
        .view
        .topics()
        .iter()
        .map(|topic| info(service, topic))
        .collect();
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(ListTopicsResponse {
        code: Code::Ok.into(),
        message: String::new(),
        topics,
    })
}

fn info(service: &Service, topic: &Arc<Topic>) -> TopicInfo {
    let queues = (topic.first_queue()..topic.queue_count).filter_map(|queue| {
        let bounds = service.view.queue(topic.id, queue)?;
        Some(QueueRange {
            queue,
            min_offset: bounds.min_offset,
            max_offset: bounds.next_offset,
        })
    });
    TopicInfo {
        name: topic.name.clone(),
        queue_count: topic.queue_count,
        message_type: topic.message_type,
        topic_id: topic.id,
        queues: queues.collect(),
        attributes: (topic.attributes.iter())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}

fn check(request: &PutTopicRequest) -> Result<(), Refusal> {
    check_topic(&request.name)?;
    let refuse = |reason: String| Err(Refusal::new(Code::BadRequest, reason));
    if request.queue_count > QUEUE_COUNT_MAX {
        let count = request.queue_count;
        return refuse(format!("{count} queues are more than {QUEUE_COUNT_MAX}"));
    }
    if MessageType::try_from(request.message_type).is_err() {
        return refuse(format!("message type {} is unknown", request.message_type));
    }
    let attributes = &request.attributes;
    let below = |first: &String| {
        first
            .parse()
            .is_ok_and(|first: u32| first < request.queue_count)
    };
    if let Some(first) = attributes.get(FIRST_QUEUE).filter(|first| !below(first)) {
        let count = request.queue_count;
        return refuse(format!(
            "{FIRST_QUEUE} is {first:?}, not a number below {count}"
        ));
    }
    let bytes: usize = attributes
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if attributes.len() > ATTRIBUTES_MAX || bytes > ATTRIBUTES_BYTES_MAX {
        return refuse("the topic's attributes are too many or too long".to_owned());
    }
    Ok(())
}
