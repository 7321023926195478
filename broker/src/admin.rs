//! The administration service: operators' commands, answered by the leader of the group.
//!
//! A follower forwards, except for what is about one broker itself: its status and its checkpoints. Only those reach it
//! who proved that they hold the cluster's secret (see `port`); what clients may ask is in `inquiry`.

mod group;
pub(crate) mod inquiry;
mod members;
mod messages;
mod offset;
pub(crate) mod port;
mod retention;
mod status;
mod topic;

use std::sync::Arc;

use proto::cluster::broker_admin_server::BrokerAdmin;
use proto::cluster::{
    AddLearnerRequest, AdminResponse, BrokerAdminClient, BrokerStatusRequest, BrokerStatusResponse,
    ChangeMembersRequest, DescribeDeliveryResponse, DescribeGroupResponse, DropLogRequest,
    InquiryClient, ListGroupsResponse, ListMembersRequest, ListMembersResponse, ListRequest,
    ListTopicsResponse, NameRequest, PutGroupRequest, PutTopicRequest, ReadMessagesRequest,
    ReadMessagesResponse, RemoveLearnerRequest, ResetOffsetRequest, SetAddressRequest,
    TransferLeadershipRequest,
};
use proto::v2::Code;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::admin_pool::onward;
use crate::call::{Context, Effect, LeaderCall, answered, lead};
use crate::grpc::status::{CallError, Refusal};
use crate::service::Service;

/// The administration service of one broker.
#[derive(Clone)]
pub(crate) struct Admin(pub(crate) Arc<Service>);

/// Longest wait for another broker's answer to a forwarded command without a deadline of its own.
const FORWARD_DURATION_MAX: std::time::Duration = std::time::Duration::from_secs(60);

fn done(value: u64) -> AdminResponse {
    AdminResponse {
        code: Code::Ok.into(),
        message: String::new(),
        value,
    }
}

/// One type per command, since two commands may have the same request: the method that serves it is
/// `serve(service, request, context)` of the named function, and a follower calls the named method of
/// the leader, over the port that `$port` says.
macro_rules! leader_commands {
    ($($effect:ident $command:ident($request:ty) -> $answer:ident: $port:ident $method:ident, $serve:path;)*) => {$(
        #[derive(Clone)]
        struct $command($request);

        impl LeaderCall for $command {
            type Answer = $answer;

            const FROM_CLIENT: bool = false;
            const EFFECT: Effect = Effect::$effect;

            async fn serve(
                &self,
                service: &Arc<Service>,
                context: &Context,
            ) -> Result<$answer, CallError> {
                $serve(service, &self.0, context).await
            }

            async fn forward(
                request: Request<Self>,
                service: &Service,
                address: &str,
            ) -> Result<Response<$answer>, Status> {
                let mut request = request.map(|command| command.0);
                onward(&mut request)?;
                let wait = gateway::deadline(request.metadata()).unwrap_or(FORWARD_DURATION_MAX);
                let mut client = $port(service, address)?;
                let late = |_| Status::deadline_exceeded(format!("{address} did not answer in time"));
                timeout(wait, client.$method(request)).await.map_err(late)?
            }

            fn refused(refusal: Refusal) -> $answer {
                $answer { code: refusal.code.into(), message: refusal.reason, ..Default::default() }
            }
        }
    )*};
}

/// Administration at the broker that clients reach at `address`: over its peer port.
#[allow(clippy::result_large_err, reason = "the transport's own error type")]
fn peer_port(service: &Service, address: &str) -> Result<BrokerAdminClient, Status> {
    let peer = service.leadership.peer_address(address);
    let peer = peer.ok_or_else(|| Status::unavailable("the leader has just changed"))?;
    service.admin_pool.client(&peer)
}

/// What clients ask, at the broker that they reach at `address`.
#[allow(clippy::result_large_err, reason = "the transport's own error type")]
fn client_port(service: &Service, address: &str) -> Result<InquiryClient, Status> {
    service.admin_pool.inquiry_client(address)
}

leader_commands! {
    Once CreateTopic(PutTopicRequest) -> AdminResponse: peer_port create_topic, topic::create;
    Repeatable AlterTopic(PutTopicRequest) -> AdminResponse: peer_port alter_topic, topic::alter;
    Once DeleteTopic(NameRequest) -> AdminResponse: peer_port delete_topic, topic::delete;
    None ListTopics(ListRequest) -> ListTopicsResponse: peer_port list_topics, topic::list;
    Once CreateGroup(PutGroupRequest) -> AdminResponse: peer_port create_group, group::create;
    Repeatable AlterGroup(PutGroupRequest) -> AdminResponse: peer_port alter_group, group::alter;
    Once DeleteGroup(NameRequest) -> AdminResponse: peer_port delete_group, group::delete;
    None ListGroups(ListRequest) -> ListGroupsResponse: peer_port list_groups, group::list;
    None ListMembers(ListMembersRequest) -> ListMembersResponse: peer_port list_members, group::members;
    None DescribeGroup(NameRequest) -> DescribeGroupResponse: peer_port describe_group, group::describe;
    None ReadMessages(ReadMessagesRequest) -> ReadMessagesResponse: peer_port read_messages, messages::read;
    Repeatable ResetOffset(ResetOffsetRequest) -> AdminResponse: peer_port reset_offset, offset::reset;
    Once TransferLeader(TransferLeadershipRequest) -> AdminResponse: peer_port transfer_leader, members::transfer;
    Once ChangeMembers(ChangeMembersRequest) -> AdminResponse: peer_port change_members, members::change;
    Once AddLearner(AddLearnerRequest) -> AdminResponse: peer_port add_learner, members::add_learner;
    Once RemoveLearner(RemoveLearnerRequest) -> AdminResponse: peer_port remove_learner, members::remove_learner;
    Repeatable DropLog(DropLogRequest) -> AdminResponse: peer_port drop_log, retention::drop_log;
    None InquireMembers(ListMembersRequest) -> ListMembersResponse: client_port list_members, group::members;
    None DescribeDelivery(NameRequest) -> DescribeDeliveryResponse: client_port describe_delivery, inquiry::delivery;
}

type Answered<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl BrokerAdmin for Admin {
    async fn create_topic(&self, request: Request<PutTopicRequest>) -> Answered<AdminResponse> {
        lead(&self.0, request.map(CreateTopic)).await
    }

    async fn alter_topic(&self, request: Request<PutTopicRequest>) -> Answered<AdminResponse> {
        lead(&self.0, request.map(AlterTopic)).await
    }

    async fn delete_topic(&self, request: Request<NameRequest>) -> Answered<AdminResponse> {
        lead(&self.0, request.map(DeleteTopic)).await
    }

    async fn list_topics(&self, request: Request<ListRequest>) -> Answered<ListTopicsResponse> {
        lead(&self.0, request.map(ListTopics)).await
    }

    async fn create_group(&self, request: Request<PutGroupRequest>) -> Answered<AdminResponse> {
        lead(&self.0, request.map(CreateGroup)).await
    }

    async fn alter_group(&self, request: Request<PutGroupRequest>) -> Answered<AdminResponse> {
        lead(&self.0, request.map(AlterGroup)).await
    }

    async fn delete_group(&self, request: Request<NameRequest>) -> Answered<AdminResponse> {
        lead(&self.0, request.map(DeleteGroup)).await
    }

    async fn list_groups(&self, request: Request<ListRequest>) -> Answered<ListGroupsResponse> {
        lead(&self.0, request.map(ListGroups)).await
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Answered<ListMembersResponse> {
        lead(&self.0, request.map(ListMembers)).await
    }

    async fn describe_group(
        &self,
        request: Request<NameRequest>,
    ) -> Answered<DescribeGroupResponse> {
        lead(&self.0, request.map(DescribeGroup)).await
    }

    async fn read_messages(
        &self,
        request: Request<ReadMessagesRequest>,
    ) -> Answered<ReadMessagesResponse> {
        lead(&self.0, request.map(ReadMessages)).await
    }

    async fn reset_offset(&self, request: Request<ResetOffsetRequest>) -> Answered<AdminResponse> {
        lead(&self.0, request.map(ResetOffset)).await
    }

    async fn status(&self, _: Request<BrokerStatusRequest>) -> Answered<BrokerStatusResponse> {
        Ok(answered(&self.0, status::status(&self.0)))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeadershipRequest>,
    ) -> Answered<AdminResponse> {
        lead(&self.0, request.map(TransferLeader)).await
    }

    async fn change_members(
        &self,
        request: Request<ChangeMembersRequest>,
    ) -> Answered<AdminResponse> {
        lead(&self.0, request.map(ChangeMembers)).await
    }

    async fn add_learner(&self, request: Request<AddLearnerRequest>) -> Answered<AdminResponse> {
        lead(&self.0, request.map(AddLearner)).await
    }

    async fn remove_learner(
        &self,
        request: Request<RemoveLearnerRequest>,
    ) -> Answered<AdminResponse> {
        lead(&self.0, request.map(RemoveLearner)).await
    }

    async fn set_address(&self, request: Request<SetAddressRequest>) -> Answered<AdminResponse> {
        let answer = members::set_address(&self.0, request.get_ref()).await;
        Ok(answered(&self.0, answer))
    }

    async fn checkpoint(&self, _: Request<BrokerStatusRequest>) -> Answered<AdminResponse> {
        Ok(answered(&self.0, status::checkpoint(&self.0).await))
    }

    async fn drop_log(&self, request: Request<DropLogRequest>) -> Answered<AdminResponse> {
        lead(&self.0, request.map(DropLog)).await
    }
}
