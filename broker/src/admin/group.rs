//! Consumer groups: create, alter, delete, list, and who is in them.

mod backlog;

use std::collections::HashMap;
use std::time::Duration;

use model::retry;
use proto::cluster::{
    AdminResponse, CommittedOffset, DescribeGroupResponse, GroupInfo, GroupMember,
    ListGroupsResponse, ListMembersRequest, ListMembersResponse, ListRequest, ListedMember,
    NameRequest, PutGroupRequest, Subscriptions,
};
use proto::command::{self, command::Body, put_group::ConsumeFrom};
use proto::v2::Code;
use tokio::time::Instant;

use self::backlog::Reading;
use super::done;
use crate::call::Context;
use crate::grpc::check_group;
use crate::grpc::status::{CallError, Refusal, group_not_found};
use crate::machine::limits::{ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX};
use crate::service::Service;
use crate::view::Group;

/// Topics that one member subscribes to.
const SUBSCRIPTIONS_MAX: usize = 1_024;

/// A group that does not exist yet, unless `if_absent` says that this is no matter.
pub(super) async fn create(
    service: &Service,
    request: &PutGroupRequest,
    _: &Context,
) -> Result<AdminResponse, CallError> {
    check(request)?;
    let attributes = request.attributes.clone();
    put(service, request, true, attributes).await
}

/// Other settings for a group that exists.
pub(super) async fn alter(
    service: &Service,
    request: &PutGroupRequest,
    _: &Context,
) -> Result<AdminResponse, CallError> {
    check(request)?;
    let Some(group) = service.view.group(&request.name) else {
        return Err(group_not_found(&request.name).into());
    };
    let attributes = match request.attributes.is_empty() {
        true => group.attributes.clone().into_iter().collect(),
        false => request.attributes.clone(),
    };
    put(service, request, false, attributes).await
}

async fn put(
    service: &Service,
    request: &PutGroupRequest,
    create: bool,
    attributes: HashMap<String, String>,
) -> Result<AdminResponse, CallError> {
    let reply = service
        .propose(Body::PutGroup(command::PutGroup {
            name: request.name.clone(),
            create,
            if_absent: create && request.if_absent,
            fifo: request.fifo,
            max_attempts: request.max_attempts,
            consume_from: request.consume_from,
            consume_from_ms: request.consume_from_ms,
            attributes,
            since_ms: 0,
        }))
        .await?;
    Ok(done(reply.value))
}

/// The group and its offsets.
pub(super) async fn delete(
    service: &Service,
    request: &NameRequest,
    _: &Context,
) -> Result<AdminResponse, CallError> {
    check_group(&request.name)?;
    let name = request.name.clone();
    let reply = service
        .propose(Body::DeleteGroup(command::DeleteGroup { name }))
        .await?;
    Ok(done(reply.value))
}

/// Every group with its offsets, by name.
pub(super) async fn list(
    service: &Service,
    _: &ListRequest,
    context: &Context,
) -> Result<ListGroupsResponse, CallError> {
    service.confirm_leadership(context.left()).await?;
    let now = Instant::now();
    let mut groups = Vec::new();
    for group in service.view.groups() {
        let readings = backlog::readings(service, &group, now).await?;
        groups.push(info(service, &group, &readings, now));
    }
    groups.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(ListGroupsResponse {
        code: Code::Ok.into(),
        message: String::new(),
        groups,
    })
}

/// Clients of a group that sent a heartbeat lately, and what each subscribes to. Remembers what the caller does.
pub(super) async fn members(
    service: &Service,
    request: &ListMembersRequest,
    context: &Context,
) -> Result<ListMembersResponse, CallError> {
    if service.view.group(&request.name).is_none() {
        return Err(group_not_found(&request.name).into());
    }
    if let Some(subscriptions) = &request.subscriptions {
        let topics = &subscriptions.topics;
        if topics.len() > SUBSCRIPTIONS_MAX {
            let reason = format!("{} topics are more than {SUBSCRIPTIONS_MAX}", topics.len());
            return Err(Refusal::new(Code::BadRequest, reason).into());
        }
        let client_id = context.client_id()?;
        (service.clients).subscribes(client_id, &request.name, topics);
    }
    let members: Vec<ListedMember> = service
        .clients
        .subscriptions(&request.name, Instant::now())
        .into_iter()
        .map(|(client_id, topics)| ListedMember {
            client_id,
            subscriptions: topics.map(|topics| Subscriptions {
                topics: topics.to_vec(),
            }),
        })
        .collect();
    let client_ids = members.iter().map(|member| member.client_id.clone());
    Ok(ListMembersResponse {
        code: Code::Ok.into(),
        message: String::new(),
        client_ids: client_ids.collect(),
        members,
    })
}

/// One group: who is in it, who reads which queue, how far behind it is.
///
/// Its queues are those of every topic in which it has committed an offset or pulled lately.
pub(super) async fn describe(
    service: &Service,
    request: &NameRequest,
    context: &Context,
) -> Result<DescribeGroupResponse, CallError> {
    service.confirm_leadership(context.left()).await?;
    let group = service.view.group(&request.name);
    let group = group.ok_or_else(|| group_not_found(&request.name))?;
    let now = Instant::now();
    let readings = backlog::readings(service, &group, now).await?;
    let mut queues = Vec::new();
    for reading in &readings {
        queues.push(reading.described(service, now).await?);
    }
    let members = service.clients.members_seen(&group.name, now).into_iter();
    let members = members.map(|member| GroupMember {
        client_id: member.client_id,
        seen_ms_ago: milliseconds(member.silent),
        disputed: member.disputed.is_some(),
        disputed_ms_ago: member.disputed.map_or(0, milliseconds),
    });
    Ok(DescribeGroupResponse {
        code: Code::Ok.into(),
        message: String::new(),
        group: Some(info(service, &group, &readings, now)),
        members: members.collect(),
        queues,
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn info(service: &Service, group: &Group, readings: &[Reading], now: Instant) -> GroupInfo {
    let offsets = readings.iter().filter_map(|reading| {
        Some(CommittedOffset {
            topic: reading.topic.name.clone(),
            queue: reading.queue,
            offset: reading.committed?,
            max_offset: reading.bounds.next_offset,
        })
    });
    GroupInfo {
        name: group.name.clone(),
        fifo: group.fifo,
        max_attempts: group.max_attempts,
        consume_from: group.consume_from,
        consume_from_ms: group.consume_from_ms,
        offsets: offsets.collect(),
        members: service.clients.members(&group.name, now).len() as u32,
        attributes: (group.attributes.iter())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        queues: u32::try_from(readings.len()).unwrap_or(u32::MAX),
        unread: readings.iter().map(|reading| reading.unread).sum(),
        retries: readings.iter().map(|reading| reading.retries).sum(),
    }
}

fn check(request: &PutGroupRequest) -> Result<(), Refusal> {
    check_group(&request.name)?;
    let refuse = |reason: String| Err(Refusal::new(Code::BadRequest, reason));
    if !(0..=retry::ATTEMPTS_MAX as i32).contains(&request.max_attempts) {
        let attempts = request.max_attempts;
        return refuse(format!(
            "{attempts} attempts are not between 0 and {}",
            retry::ATTEMPTS_MAX
        ));
    }
    if ConsumeFrom::try_from(request.consume_from).is_err() {
        return refuse(format!(
            "start {} of the group is unknown",
            request.consume_from
        ));
    }
    let attributes = &request.attributes;
    if let Some(text) = attributes.get(retry::WAITS_ATTRIBUTE)
        && retry::parse_waits(text).is_none()
    {
        let name = retry::WAITS_ATTRIBUTE;
        return refuse(format!("attribute {name} is no list of waits: {text:?}"));
    }
    let sizes = attributes
        .iter()
        .map(|(key, value)| key.len() + value.len());
    if attributes.len() > ATTRIBUTES_MAX || sizes.sum::<usize>() > ATTRIBUTES_BYTES_MAX {
        return refuse("the group's attributes are too many or too long".to_owned());
    }
    Ok(())
}
