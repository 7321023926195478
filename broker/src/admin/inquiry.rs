//! What clients of our SDK ask on the clients' port beside RocketMQ's own calls. Nothing here changes what is kept.

use std::sync::Arc;

use proto::cluster::inquiry_server::Inquiry;
use proto::cluster::{
    DescribeDeliveryResponse, ListMembersRequest, ListMembersResponse, ListReplicasResponse,
    ListRequest, NameRequest,
};
use proto::v2::Code;
use tonic::{Request, Response};

use super::{Answered, DescribeDelivery, InquireMembers};
use crate::call::{Context, answered, lead};
use crate::grpc::status::{CallError, group_not_found};
use crate::service::Service;

/// The inquiry service of one broker.
#[derive(Clone)]
pub(crate) struct Inquiries(pub(crate) Arc<Service>);

#[tonic::async_trait]
impl Inquiry for Inquiries {
    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Answered<ListMembersResponse> {
        lead(&self.0, request.map(InquireMembers)).await
    }

    async fn describe_delivery(
        &self,
        request: Request<NameRequest>,
    ) -> Answered<DescribeDeliveryResponse> {
        lead(&self.0, request.map(DescribeDelivery)).await
    }

    async fn list_replicas(&self, _: Request<ListRequest>) -> Answered<ListReplicasResponse> {
        let status = self.0.group.status();
        let members = status.members.into_iter();
        let leader = status.leadership.leader;
        let response = ListReplicasResponse {
            client_addresses: members.map(|one| one.member.client_address).collect(),
            group: self.0.config.group.clone(),
            term: status.leadership.term,
            leader: leader.map_or_else(String::new, |leader| leader.client_address),
        };
        let answer: Response<_> = answered(&self.0, response);
        Ok(answer)
    }
}

/// How a consumer group's messages are delivered.
pub(super) async fn delivery(
    service: &Service,
    request: &NameRequest,
    context: &Context,
) -> Result<DescribeDeliveryResponse, CallError> {
    service.confirm_leadership(context.left()).await?;
    let group = service.view.group(&request.name);
    let group = group.ok_or_else(|| group_not_found(&request.name))?;
    Ok(DescribeDeliveryResponse {
        code: Code::Ok.into(),
        message: String::new(),
        max_attempts: i32::try_from(group.retry_policy().attempts_max()).unwrap_or(i32::MAX),
    })
}
