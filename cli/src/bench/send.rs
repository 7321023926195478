//! Raw `SendMessage` calls to the leader: a fixed number in flight, each with one batch for one queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::opaque::SendMessageRequest;
use proto::opaque::messaging_service_client::MessagingServiceClient;
use proto::v2::{Code, SendMessageResponse};
use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use super::template::Template;
use super::{Measured, Scene};
use crate::failure::Failure;

/// Load before the measurement begins.
const WARM_UP: Duration = Duration::from_millis(500);
/// Bytes in flight at most, whatever the number of requests: the broker's own bound is 64 MiB.
const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
/// Connections over which the requests are spread.
const CONNECTIONS: usize = 2;
/// Pause after a refusal, which says that the broker has too much to do.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct SendLoad {
    /// Body of each message, bytes.
    pub message_bytes: usize,
    /// Messages in each request.
    pub batch: usize,
    /// Requests in flight that were asked for.
    pub in_flight: usize,
    /// How long it is measured.
    pub duration: Duration,
}

impl SendLoad {
    /// Requests in flight as far as the bytes allow.
    pub fn in_flight_allowed(&self) -> usize {
        let request_bytes = self.message_bytes * self.batch;
        self.in_flight
            .min((IN_FLIGHT_BYTES_MAX / request_bytes).max(1))
    }
}

struct Shared {
    templates: Vec<Template>,
    next: AtomicU64,
    load: SendLoad,
    begin: Instant,
    end: Instant,
}

/// Sends until the time is over.
///
/// # Errors
///
/// If a call fails in another way than by a refusal.
pub async fn send(
    scene: &Scene,
    topic: &str,
    queues: u32,
    load: SendLoad,
) -> Result<Measured, Failure> {
    let number = scene.next_load();
    let queues = i32::try_from(queues).expect("a topic has few queues");
    let begin = Instant::now() + WARM_UP;
    let shared = Arc::new(Shared {
        templates: (0..queues)
            .map(|queue| Template::new(topic, queue, load.message_bytes, number))
            .collect(),
        next: AtomicU64::new(0),
        load,
        begin,
        end: begin + load.duration,
    });
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        clients.push(scene.messaging().await?);
    }
    let tasks: Vec<_> = (0..load.in_flight_allowed())
        .map(|place| {
            let client = clients[place % CONNECTIONS].clone();
            tokio::spawn(send_in_turn(client, Arc::clone(&shared)))
        })
        .collect();
    let mut measured = Measured::over(load.duration);
    for task in tasks {
        let part = task
            .await
            .map_err(|error| Failure::during("a sender", error))??;
        measured.merge(&part);
    }
    Ok(measured)
}

/// One request after another.
async fn send_in_turn(
    mut client: MessagingServiceClient<Channel>,
    shared: Arc<Shared>,
) -> Result<Measured, Failure> {
    let batch = shared.load.batch;
    let mut measured = Measured::default();
    loop {
        let first = shared.next.fetch_add(batch as u64, Ordering::Relaxed);
        let turn = (first / batch as u64) as usize % shared.templates.len();
        let messages = shared.templates[turn].batch(first, batch);
        let sent = Instant::now();
        if sent >= shared.end {
            return Ok(measured);
        }
        let response = client.send_message(request(messages)).await;
        let answered = Instant::now();
        let response = response
            .map_err(|status| Failure::during("sending", status))?
            .into_inner();
        if !is_stored(&response, batch) {
            measured.refused += 1;
            tokio::time::sleep(REFUSED_PAUSE).await;
        } else if answered >= shared.begin && answered < shared.end {
            measured.count(batch as u64, shared.load.message_bytes);
            measured.took(answered - sent);
        } else {
            measured.count_outside(batch as u64, shared.load.message_bytes);
        }
    }
}

fn request(messages: Vec<bytes::Bytes>) -> Request<SendMessageRequest> {
    let mut request = Request::new(SendMessageRequest { messages });
    request
        .metadata_mut()
        .insert("x-mq-client-id", MetadataValue::from_static("raftmq-bench"));
    request
}

fn is_stored(response: &SendMessageResponse, batch: usize) -> bool {
    let is_ok = |status: &Option<proto::v2::Status>| {
        status
            .as_ref()
            .is_some_and(|status| status.code == i32::from(Code::Ok))
    };
    is_ok(&response.status)
        && response.entries.len() == batch
        && response.entries.iter().all(|entry| is_ok(&entry.status))
}
