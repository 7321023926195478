//! What a member of a consumer group says to the leaders of broker groups: that it lives, and where its group starts; that it
//! asks who else does; that it leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use proto::cluster::{ListMembersRequest, ListMembersResponse, Subscriptions};
use proto::place::{CONSUME_FROM, LOG_TIME, StartAt};
use proto::v2::{
    HeartbeatRequest, HeartbeatResponse, NotifyClientTerminationRequest,
    NotifyClientTerminationResponse,
};

use crate::answer;
use crate::connection::Call;
use crate::consumer::membership::Listed;
use crate::consumer::shared::Shared;
use crate::error::Error;
use crate::route::resource;

/// What a broker group said to a heartbeat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) start: Option<StartAt>,
    pub(super) log_time_ms: Option<u64>,
}

pub(super) async fn heartbeat(
    shared: &Shared,
    start: Option<StartAt>,
    broker_group: &Arc<str>,
    timeout: Duration,
) -> Result<Said, Error> {
    let request = HeartbeatRequest {
        group: Some(resource(shared.group.as_str())),
        client_type: shared.settings.client_type as i32,
    };
    let connection = &shared.core.connection;
    let call = Call {
        timeout,
        ..call(shared, "heartbeat", broker_group)
    };
    let mut identity = shared.identity.for_group(broker_group);
    if let Some(start) = start {
        identity = identity.with(CONSUME_FROM, &start);
    }
    if shared.is_young() {
        identity = identity.with(LOG_TIME, &"?");
    }
    let said = answer::Said::default();
    let _: HeartbeatResponse = connection
        .call(call, |address, timeout| {
            let (request, said) = (identity.request(request.clone(), timeout), &said);
            async move {
                let answered = connection.messaging(&address)?.heartbeat(request).await;
                said.hear(answered)
            }
        })
        .await?;
    Ok(Said {
        start: said
            .header(CONSUME_FROM)
            .and_then(|start| start.parse().ok()),
        log_time_ms: said.header(LOG_TIME).and_then(|time| time.parse().ok()),
    })
}

/// Says to what this member subscribes, and asks who else is there.
pub(super) async fn list_members(
    shared: &Shared,
    broker_group: &Arc<str>,
    topics: &[String],
) -> Result<Vec<Listed>, Error> {
    let request = ListMembersRequest {
        name: shared.group.as_str().to_owned(),
        subscriptions: Some(Subscriptions {
            topics: topics.to_vec(),
        }),
    };
    let connection = &shared.core.connection;
    let identity = shared.identity.for_group(broker_group);
    let answer: ListMembersResponse = connection
        .call(
            call(shared, "list members", broker_group),
            |address, timeout| {
                let request = identity.request(request.clone(), timeout);
                async move { connection.inquiry(&address)?.list_members(request).await }
            },
        )
        .await?;
    let members = answer.members.into_iter();
    Ok(members
        .map(|member| Listed {
            client_id: member.client_id,
            topics: (member.subscriptions).map(|said| said.topics.into_iter().collect()),
        })
        .collect())
}

/// Tells broker groups that this member is gone, so that the others need not wait until it is missed. The first of what
/// failed.
pub(super) async fn say_goodbye(
    shared: &Shared,
    broker_groups: &BTreeSet<Arc<str>>,
    timeout: Duration,
) -> Result<(), Error> {
    let each = broker_groups
        .iter()
        .map(|group| terminate(shared, group, timeout));
    join_all(each).await.into_iter().collect()
}

async fn terminate(
    shared: &Shared,
    broker_group: &Arc<str>,
    timeout: Duration,
) -> Result<(), Error> {
    let request = NotifyClientTerminationRequest {
        group: Some(resource(shared.group.as_str())),
    };
    let connection = &shared.core.connection;
    let identity = shared.identity.for_group(broker_group);
    let call = Call {
        timeout,
        ..call(shared, "leave", broker_group)
    };
    let _: NotifyClientTerminationResponse = connection
        .call(call, |address, timeout| {
            let request = identity.request(request.clone(), timeout);
            async move {
                connection
                    .messaging(&address)?
                    .notify_client_termination(request)
                    .await
            }
        })
        .await?;
    Ok(())
}

fn call(shared: &Shared, operation: &'static str, broker_group: &Arc<str>) -> Call {
    Call {
        operation,
        subject: format!("group {}", shared.group),
        group: broker_group.clone(),
        timeout: shared.core.connection.request_timeout,
        changes: false,
        once: false,
    }
}
