//! Administration as others reach it: on a listener of its own, and on the peer port.
//!
//! On one machine's listener every broker is within reach: a call that names another one is passed on to that one's
//! peer port, since the listeners of other machines may be on loopback. Both ports demand that whoever connects proves
//! that it holds the cluster's secret. Must never be served on the clients' port.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::future::join_all;
use proto::cluster::broker_admin_server::BrokerAdmin;
use proto::cluster::{
    AddLearnerRequest, AdminResponse, BrokerAdminClient, BrokerStatusRequest, BrokerStatusResponse,
    ChangeMembersRequest, DescribeGroupResponse, DropLogRequest, ListGroupsResponse,
    ListMembersRequest, ListMembersResponse, ListRequest, ListTopicsResponse, NameRequest,
    PutGroupRequest, PutTopicRequest, QueryTableRequest, QueryTableResponse, ReadMessagesRequest,
    ReadMessagesResponse, RemoveLearnerRequest, ResetOffsetRequest, SetAddressRequest,
    TransferLeadershipRequest,
};
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};

use super::{Admin, FORWARD_DURATION_MAX};
use crate::admin_pool::onward;
use crate::service::Service;

/// Longest wait for a name server to say where a broker is.
const NAME_SERVER_PATIENCE: Duration = Duration::from_secs(1);

/// The administration service of one port. The ports are bound before there is a broker to answer.
#[derive(Clone)]
pub(crate) struct AdminPort {
    /// Empty until the broker runs; of one that has ended, nothing is left.
    service: Arc<OnceLock<Weak<Service>>>,
    relays: bool,
}

impl AdminPort {
    /// Of the peer port: answers for this broker and passes nothing on.
    pub(crate) fn for_peers() -> AdminPort {
        AdminPort {
            service: Arc::default(),
            relays: false,
        }
    }

    /// Of the listener for operators, of the same broker: passes on what is for another one.
    pub(crate) fn for_operators(&self) -> AdminPort {
        AdminPort {
            service: self.service.clone(),
            relays: true,
        }
    }

    /// From now on it answers.
    pub(crate) fn serve(&self, service: &Arc<Service>) {
        // Set once: a broker has one service.
        let _ = self.service.set(Arc::downgrade(service));
    }

    async fn reach(&self, metadata: &MetadataMap) -> Result<Reached, Status> {
        let service = self.service.get().and_then(Weak::upgrade);
        let service = service.ok_or_else(|| Status::unavailable("the broker does not run yet"))?;
        let named = metadata
            .get(gateway::BROKER)
            .and_then(|value| value.to_str().ok());
        match named.filter(|address| self.relays && !is_own(&service, address)) {
            None => Ok(Reached::Here(Admin(service))),
            Some(address) => {
                let peer = peer_address(&service, address).await;
                Ok(Reached::There(service.admin_pool.client(&peer)?))
            }
        }
    }
}

/// Who answers a call.
enum Reached {
    Here(Admin),
    There(BrokerAdminClient),
}

/// Whether an address means this broker: a probe beside it says 127.0.0.1.
fn is_own(service: &Service, address: &str) -> bool {
    let own = &service.own;
    if address == own.client_address || address == own.peer_address {
        return true;
    }
    let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    let is_loopback = address
        .parse()
        .is_ok_and(|address: SocketAddr| address.ip().is_loopback());
    let own_host = own.client_address.rsplit_once(':').map(|(host, _)| host);
    let elsewhere =
        own_host.is_none_or(|host| host.parse().map_or(true, |ip: IpAddr| !ip.is_loopback()));
    // Where brokers are told apart by their ports on loopback, only the address counts.
    is_loopback && elsewhere && port(address) == port(&service.config.listen)
}

/// Where the peer port of the broker is that clients reach at `address`: from this broker's own group, else from the
/// name servers. A broker that nobody knows yet is named by its peer port itself.
async fn peer_address(service: &Service, address: &str) -> String {
    let status = service.group.status();
    let member = status.members.into_iter().map(|one| one.member);
    let mut own_group = member.filter(|member| member.client_address == address);
    if let Some(member) = own_group.next() {
        return member.peer_address;
    }
    let tables = service.config.name_servers.iter();
    let tables = join_all(tables.map(|name_server| table(service, name_server))).await;
    let registrations = tables.into_iter().filter_map(Result::ok);
    let mut replicas = registrations
        .flat_map(|table| table.registrations.into_iter().chain(table.expired))
        .flat_map(|registration| registration.replicas);
    match replicas.find(|replica| replica.client_address == address) {
        Some(replica) => replica.peer_address,
        None => address.to_owned(),
    }
}

async fn table(service: &Service, name_server: &str) -> Result<QueryTableResponse, Status> {
    let request = QueryTableRequest {
        with_expired: true,
        ..Default::default()
    };
    let mut client = service.admin_pool.name_server_client(name_server)?;
    let late = |_| Status::deadline_exceeded("no answer in time");
    let answer = timeout(NAME_SERVER_PATIENCE, client.query_table(request)).await;
    answer.map_err(late)?.map(Response::into_inner)
}

/// The same call, as this broker makes it.
fn passed_on<M>(request: Request<M>) -> Result<(Request<M>, Duration), Status> {
    let wait = gateway::deadline(request.metadata()).unwrap_or(FORWARD_DURATION_MAX);
    let (metadata, _, message) = request.into_parts();
    let mut request = Request::from_parts(metadata, Extensions::default(), message);
    onward(&mut request)?;
    Ok((request, wait))
}

/// Every method: answered here, or by whom the call names.
macro_rules! answered_or_passed_on {
    ($($method:ident($request:ty) -> $answer:ty;)*) => {
        #[tonic::async_trait]
        impl BrokerAdmin for AdminPort {
            $(async fn $method(
                &self,
                request: Request<$request>,
            ) -> Result<Response<$answer>, Status> {
                match self.reach(request.metadata()).await? {
                    Reached::Here(admin) => admin.$method(request).await,
                    Reached::There(mut client) => {
                        let (request, wait) = passed_on(request)?;
                        let late = |_| Status::deadline_exceeded("the broker did not answer in time");
                        timeout(wait, client.$method(request)).await.map_err(late)?
                    }
                }
            })*
        }
    };
}

answered_or_passed_on! {
    create_topic(PutTopicRequest) -> AdminResponse;
    alter_topic(PutTopicRequest) -> AdminResponse;
    delete_topic(NameRequest) -> AdminResponse;
    list_topics(ListRequest) -> ListTopicsResponse;
    create_group(PutGroupRequest) -> AdminResponse;
    alter_group(PutGroupRequest) -> AdminResponse;
    delete_group(NameRequest) -> AdminResponse;
    list_groups(ListRequest) -> ListGroupsResponse;
    list_members(ListMembersRequest) -> ListMembersResponse;
    describe_group(NameRequest) -> DescribeGroupResponse;
    read_messages(ReadMessagesRequest) -> ReadMessagesResponse;
    reset_offset(ResetOffsetRequest) -> AdminResponse;
    status(BrokerStatusRequest) -> BrokerStatusResponse;
    transfer_leader(TransferLeadershipRequest) -> AdminResponse;
    change_members(ChangeMembersRequest) -> AdminResponse;
    add_learner(AddLearnerRequest) -> AdminResponse;
    remove_learner(RemoveLearnerRequest) -> AdminResponse;
    set_address(SetAddressRequest) -> AdminResponse;
    checkpoint(BrokerStatusRequest) -> AdminResponse;
    drop_log(DropLogRequest) -> AdminResponse;
}
