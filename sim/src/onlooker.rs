//! An onlooker: says and asks what foreign clients and dashboards do and our own client never does.
//!
//! What it is told is not judged: that it is served, and that nobody stumbles over it, is.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use proto::cluster::{QueryTableRequest, name_server_client};
use proto::opaque::messaging_client;
use proto::v2::telemetry_command::Command;
use proto::v2::{ClientType, Settings, TelemetryCommand};
use tonic::Request;
use tonic::transport::Channel;

/// How long it looks at one server.
const LOOK: Duration = Duration::from_secs(2);

/// Metadata in which a client says who it is.
const CLIENT_ID: &str = "x-mq-client-id";

/// Looks at a name server's table, and at its changes, as a dashboard does.
pub async fn watch_table(address: &str) {
    let Some(channel) = channel(address) else {
        return;
    };
    let watching = async {
        let mut client = name_server_client(channel);
        let request = QueryTableRequest::default();
        // Whether it answers that or not, it may well answer this.
        let _ = client.query_table(request).await;
        if let Ok(answer) = client.watch_table(request).await {
            let mut tables = answer.into_inner();
            while let Ok(Some(_)) = tables.message().await {}
        }
    };
    let _ = tokio::time::timeout(LOOK, watching).await;
}

/// Says what it is and waits to hear what is wanted of it, as foreign clients do before anything else.
pub async fn greet(address: &str) {
    let Some(channel) = channel(address) else {
        return;
    };
    let settings = Settings {
        client_type: Some(ClientType::Producer.into()),
        ..Settings::default()
    };
    let hello = TelemetryCommand {
        command: Some(Command::Settings(settings)),
        ..TelemetryCommand::default()
    };
    let mut request = Request::new(stream::iter([hello]).chain(stream::pending()));
    let id = "onlooker".parse().expect("plain text");
    request.metadata_mut().insert(CLIENT_ID, id);
    let greeting = async {
        if let Ok(answer) = messaging_client(channel).telemetry(request).await {
            let _ = answer.into_inner().message().await;
        }
    };
    let _ = tokio::time::timeout(LOOK, greeting).await;
}

fn channel(address: &str) -> Option<Channel> {
    host::network::channel(address, &Default::default()).ok()
}
