//! The consumer group of a call: made where it is unknown, as the caller wishes.

use std::sync::Arc;

use proto::command::put_group::ConsumeFrom;
use proto::command::{self, command::Body};
use proto::place::StartAt;

use super::Context;
use crate::grpc::status::{CallError, group_not_found};
use crate::service::Service;
use crate::view::Group;

impl Service {
    /// The consumer group, created if it is unknown and the configuration says so; then it starts where the caller
    /// wishes. Only on the leader.
    pub(crate) async fn group_or_create(
        &self,
        name: &str,
        context: &Context,
    ) -> Result<Arc<Group>, CallError> {
        if let Some(group) = self.view.group(name) {
            return Ok(group);
        }
        if self.config.auto_create_groups || self.config.auto_create_topics {
            self.put_group(name, context).await?;
        }
        Ok(self.view.group(name).ok_or_else(|| group_not_found(name))?)
    }

    /// Makes the consumer group if it is unknown.
    pub(crate) async fn put_group(&self, name: &str, context: &Context) -> Result<(), CallError> {
        let (consume_from, consume_from_ms, since_ms) = match context.consume_from()? {
            StartAt::Earliest => (ConsumeFrom::Earliest, 0, 0),
            StartAt::Latest { since_ms } => (ConsumeFrom::Latest, 0, since_ms.unwrap_or(0)),
            StartAt::TimeMs(time_ms) => (ConsumeFrom::Timestamp, time_ms, 0),
        };
        self.propose(Body::PutGroup(command::PutGroup {
            name: name.to_owned(),
            create: true,
            if_absent: true,
            consume_from: consume_from.into(),
            consume_from_ms,
            since_ms,
            ..Default::default()
        }))
        .await?;
        Ok(())
    }
}
