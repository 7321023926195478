//! `Telemetry`: clients say what they are, and learn what the server wants of them.
//!
//! Each `Settings` gets a reply at once, with a status: some clients wait for it without a timeout.
//! Nothing is kept of what a client said: no later request depends on it. Any replica answers.

mod settings;

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use proto::v2::telemetry_command::Command;
use proto::v2::{Settings, TelemetryCommand};
use tonic::{Request, Response, Status, Streaming};

use super::status::{Refusal, client_id_required, ok};
use crate::call::answered;
use crate::service::Service;

/// Opens the stream of replies.
pub(super) fn telemetry(
    service: &Arc<Service>,
    request: Request<Streaming<TelemetryCommand>>,
) -> Result<Response<BoxStream<'static, Result<TelemetryCommand, Status>>>, Status> {
    if request
        .metadata()
        .get(gateway::CLIENT_ID)
        .is_none_or(|id| id.is_empty())
    {
        return Err(to_grpc(client_id_required()));
    }
    let commands = request.into_inner();
    let state = Some((commands, service.clone()));
    let replies = stream::unfold(state, |state| async move {
        let (mut commands, service) = state?;
        match next_reply(&mut commands, &service).await? {
            Ok(reply) => Some((Ok(reply), Some((commands, service)))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(answered(service, replies.boxed()))
}

/// Waits for settings and answers them; `None` when the client or this broker ends the stream.
async fn next_reply(
    commands: &mut Streaming<TelemetryCommand>,
    service: &Service,
) -> Option<Result<TelemetryCommand, Status>> {
    loop {
        let received = tokio::select! {
            biased;
            received = commands.message() => received,
            () = service.shutdown.wait() => return None,
        };
        match received {
            Ok(Some(TelemetryCommand {
                command: Some(Command::Settings(settings)),
                ..
            })) => {
                return Some(reply(service, settings).map_err(to_grpc));
            }
            // Answers to commands that this broker never sends.
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

fn reply(service: &Service, settings: Settings) -> Result<TelemetryCommand, Refusal> {
    let settings = settings::merge(service, settings)?;
    Ok(TelemetryCommand {
        status: Some(ok()),
        command: Some(Command::Settings(settings)),
    })
}

/// A stream has no place for a refusal but its end.
fn to_grpc(refusal: Refusal) -> Status {
    Status::invalid_argument(format!(
        "{}: {}",
        refusal.code.as_str_name(),
        refusal.reason
    ))
}
