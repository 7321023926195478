//! Who is in the broker group and who leads it.

use std::collections::BTreeSet;

use proto::cluster::{
    AddLearnerRequest, AdminResponse, ChangeMembersRequest, RemoveLearnerRequest,
    SetAddressRequest, TransferLeadershipRequest,
};
use proto::v2::Code;
use raft::{ChangeError, Member};

use super::done;
use crate::call::Context;
use crate::grpc::status::{CallError, Refusal};
use crate::service::Service;

/// Has another voter lead.
pub(super) async fn transfer(
    service: &Service,
    request: &TransferLeadershipRequest,
    context: &Context,
) -> Result<AdminResponse, CallError> {
    service
        .group
        .transfer_leader(request.to, context.left())
        .await
        .map_err(call_error)?;
    Ok(done(request.to))
}

/// Has this broker look for another replica at an address too.
pub(super) async fn set_address(service: &Service, request: &SetAddressRequest) -> AdminResponse {
    let group = &service.group;
    let set = group
        .set_address(request.broker_id, &request.peer_address)
        .await;
    match set {
        Ok(()) => done(request.broker_id),
        Err(error) => AdminResponse {
            code: match error {
                ChangeError::Refused { .. } => Code::BadRequest,
                _ => Code::InternalServerError,
            }
            .into(),
            message: error.to_string(),
            value: 0,
        },
    }
}

/// Has these brokers vote, and no others.
pub(super) async fn change(
    service: &Service,
    request: &ChangeMembersRequest,
    context: &Context,
) -> Result<AdminResponse, CallError> {
    let voters: BTreeSet<u64> = request.voters.iter().copied().collect();
    if voters.is_empty() || voters.contains(&0) {
        let reason = "voters are broker ids, at least one and none of them 0";
        return Err(Refusal::new(Code::BadRequest, reason).into());
    }
    service
        .group
        .change_voters(voters, context.left())
        .await
        .map_err(call_error)?;
    service.members_changed.notify_one();
    Ok(done(0))
}

/// Adds a replica that gets everything and does not vote.
pub(super) async fn add_learner(
    service: &Service,
    request: &AddLearnerRequest,
    context: &Context,
) -> Result<AdminResponse, CallError> {
    let Some(replica) = request
        .replica
        .clone()
        .filter(|replica| replica.broker_id != 0)
    else {
        return Err(Refusal::new(Code::BadRequest, "the learner has no broker id").into());
    };
    let learner = Member {
        broker_id: replica.broker_id,
        peer_address: replica.peer_address,
        client_address: replica.client_address,
    };
    service
        .group
        .add_learner(learner, context.left())
        .await
        .map_err(call_error)?;
    service.members_changed.notify_one();
    Ok(done(0))
}

/// Takes out a replica that does not vote.
pub(super) async fn remove_learner(
    service: &Service,
    request: &RemoveLearnerRequest,
    context: &Context,
) -> Result<AdminResponse, CallError> {
    service
        .group
        .remove_learner(request.broker_id, context.left())
        .await
        .map_err(call_error)?;
    service.members_changed.notify_one();
    Ok(done(request.broker_id))
}

fn call_error(error: ChangeError) -> CallError {
    let reason = error.to_string();
    match error {
        ChangeError::NotLeader { .. } | ChangeError::Stopped => CallError::Moved(reason),
        ChangeError::Refused { .. } => Refusal::new(Code::PreconditionFailed, reason).into(),
        _ => CallError::Unknown(reason),
    }
}
