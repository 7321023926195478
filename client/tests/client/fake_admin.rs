//! The fake group's side of administration, and of what clients ask beside RocketMQ's own calls.

use proto::cluster;
use proto::cluster::broker_admin_server::BrokerAdmin;
use proto::cluster::inquiry_server::Inquiry;
use proto::v2::Code;
use tonic::{Request, Response, Status};

use crate::fake::{FakeBroker, TOPIC, Word, header};

fn refused() -> cluster::AdminResponse {
    cluster::AdminResponse {
        code: Code::HaNotAvailable as i32,
        message: "not the leader".to_owned(),
        value: 0,
    }
}

type Admin = Result<Response<cluster::AdminResponse>, Status>;

#[tonic::async_trait]
impl Inquiry for FakeBroker {
    async fn describe_delivery(
        &self,
        _: Request<cluster::NameRequest>,
    ) -> Result<Response<cluster::DescribeDeliveryResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn list_replicas(
        &self,
        _: Request<cluster::ListRequest>,
    ) -> Result<Response<cluster::ListReplicasResponse>, Status> {
        self.leads().await;
        let answer = {
            let mut world = self.world();
            world.listed += 1;
            let knows = Word {
                group: "g",
                leader: world.leader,
                term: world.term,
            };
            let word = world.words.get(&self.number).copied();
            let word = word.unwrap_or(knows);
            cluster::ListReplicasResponse {
                client_addresses: world.addresses.clone(),
                group: word.group.to_owned(),
                term: word.term,
                leader: world.addresses[word.leader].clone(),
            }
        };
        Ok(self.answer(answer))
    }

    async fn list_members(
        &self,
        request: Request<cluster::ListMembersRequest>,
    ) -> Result<Response<cluster::ListMembersResponse>, Status> {
        if !self.leads().await {
            return Ok(self.answer(cluster::ListMembersResponse {
                code: Code::HaNotAvailable as i32,
                ..Default::default()
            }));
        }
        let caller: Option<String> = header(&request, "x-mq-client-id");
        let request = request.into_inner();
        let mut world = self.world();
        if let (Some(caller), Some(said)) = (caller, request.subscriptions) {
            world.subscriptions.insert(caller, said);
        }
        let members: Vec<cluster::ListedMember> = world
            .members
            .iter()
            .filter(|(_, group)| **group == request.name)
            .map(|(id, _)| cluster::ListedMember {
                client_id: id.clone(),
                subscriptions: world.subscriptions.get(id).cloned(),
            })
            .collect();
        drop(world);
        Ok(self.answer(cluster::ListMembersResponse {
            code: Code::Ok as i32,
            message: String::new(),
            client_ids: members
                .iter()
                .map(|member| member.client_id.clone())
                .collect(),
            members,
        }))
    }
}

#[tonic::async_trait]
impl BrokerAdmin for FakeBroker {
    async fn list_members(
        &self,
        request: Request<cluster::ListMembersRequest>,
    ) -> Result<Response<cluster::ListMembersResponse>, Status> {
        Inquiry::list_members(&self.meant(&request), request).await
    }

    async fn status(
        &self,
        request: Request<cluster::BrokerStatusRequest>,
    ) -> Result<Response<cluster::BrokerStatusResponse>, Status> {
        let this = self.meant(&request);
        this.leads().await;
        let (addresses, leader) = {
            let world = self.world();
            (world.addresses.clone(), world.leader)
        };
        let replicas = addresses
            .iter()
            .enumerate()
            .map(|(number, address)| cluster::Replica {
                broker_id: number as u64 + 1,
                client_address: address.clone(),
                peer_address: String::new(),
            });
        Ok(this.answer(cluster::BrokerStatusResponse {
            group: "g".to_owned(),
            broker_id: this.number as u64 + 1,
            leader: leader as u64 + 1,
            leader_address: addresses[leader].clone(),
            state: if leader == this.number {
                "leader"
            } else {
                "follower"
            }
            .to_owned(),
            replicas: replicas.collect(),
            ..Default::default()
        }))
    }

    async fn list_topics(
        &self,
        request: Request<cluster::ListRequest>,
    ) -> Result<Response<cluster::ListTopicsResponse>, Status> {
        let this = self.meant(&request);
        if !this.leads().await {
            return Ok(this.answer(cluster::ListTopicsResponse {
                code: Code::HaNotAvailable as i32,
                ..Default::default()
            }));
        }
        let queue_count = self.world().queues.len() as u32;
        let topic = cluster::TopicInfo {
            name: TOPIC.to_owned(),
            queue_count,
            ..Default::default()
        };
        Ok(self.answer(cluster::ListTopicsResponse {
            code: Code::Ok as i32,
            message: String::new(),
            topics: vec![topic],
        }))
    }

    async fn create_topic(&self, request: Request<cluster::PutTopicRequest>) -> Admin {
        let this = self.meant(&request);
        if !this.leads().await {
            return Ok(this.answer(refused()));
        }
        let request = request.into_inner();
        let exists = request.name == TOPIC && !request.if_absent;
        let code = if exists {
            Code::PreconditionFailed
        } else {
            Code::Ok
        };
        Ok(self.answer(cluster::AdminResponse {
            code: code as i32,
            message: "said".to_owned(),
            value: 0,
        }))
    }

    // Not needed here.
    async fn alter_topic(&self, _: Request<cluster::PutTopicRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn delete_topic(&self, _: Request<cluster::NameRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn create_group(&self, _: Request<cluster::PutGroupRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn alter_group(&self, _: Request<cluster::PutGroupRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn delete_group(&self, _: Request<cluster::NameRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn list_groups(
        &self,
        _: Request<cluster::ListRequest>,
    ) -> Result<Response<cluster::ListGroupsResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
    async fn describe_group(
        &self,
        _: Request<cluster::NameRequest>,
    ) -> Result<Response<cluster::DescribeGroupResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
    async fn read_messages(
        &self,
        _: Request<cluster::ReadMessagesRequest>,
    ) -> Result<Response<cluster::ReadMessagesResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }
    async fn remove_learner(&self, _: Request<cluster::RemoveLearnerRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn set_address(&self, _: Request<cluster::SetAddressRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn reset_offset(&self, _: Request<cluster::ResetOffsetRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn transfer_leader(&self, _: Request<cluster::TransferLeadershipRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn change_members(&self, _: Request<cluster::ChangeMembersRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn add_learner(&self, _: Request<cluster::AddLearnerRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn checkpoint(&self, _: Request<cluster::BrokerStatusRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
    async fn drop_log(&self, _: Request<cluster::DropLogRequest>) -> Admin {
        Err(Status::unimplemented("fake"))
    }
}
