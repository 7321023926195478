//! The name server's own service: for brokers that register, for other name servers, for whoever wants the whole table.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use host::Shutdown;
use proto::cluster::name_server_server::NameServer;
use proto::cluster::{
    GossipRequest, GossipResponse, QueryTableRequest, QueryTableResponse, RegisterRequest,
    RegisterResponse,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::directory::Directory;
use crate::gossip::Gossip;
use crate::registration::RegistrationError;
use crate::registry::Registered;
use crate::route_table::RouteTable;

/// A watcher hears something at least this often, so that either side notices that the other is gone.
pub const WATCH_SILENCE_MAX: Duration = Duration::from_secs(30);

/// Most digests in one gossip message: far more than any name server holds groups.
const DIGESTS_MAX: usize = 1 << 20;

pub(crate) struct Service {
    directory: Arc<Directory>,
    gossip: Arc<Gossip>,
    watchers: Arc<Semaphore>,
    shutdown: Shutdown,
}

impl Service {
    pub(crate) fn new(
        directory: Arc<Directory>,
        gossip: Arc<Gossip>,
        watchers_max: usize,
        shutdown: Shutdown,
    ) -> Self {
        let watchers = Arc::new(Semaphore::new(watchers_max.min(Semaphore::MAX_PERMITS)));
        Service {
            directory,
            gossip,
            watchers,
            shutdown,
        }
    }
}

#[tonic::async_trait]
impl NameServer for Service {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let request = request.into_inner();
        let registration = (request.registration)
            .ok_or(RegistrationError::Missing)
            .and_then(|registration| self.directory.register(registration, request.lease_ms))
            .map_err(refused)?;
        let mut response = RegisterResponse {
            name_servers: self.gossip.members(),
            ..Default::default()
        };
        match registration {
            Registered::Accepted => response.accepted = true,
            Registered::Older { epoch, version } => {
                (response.epoch, response.version) = (epoch, version);
            }
        }
        Ok(Response::new(response))
    }

    async fn gossip(
        &self,
        request: Request<GossipRequest>,
    ) -> Result<Response<GossipResponse>, Status> {
        if request.get_ref().digests.len() > DIGESTS_MAX {
            return Err(Status::invalid_argument(format!(
                "more than {DIGESTS_MAX} digests"
            )));
        }
        Ok(Response::new(self.gossip.answer(request.into_inner())))
    }

    async fn query_table(
        &self,
        request: Request<QueryTableRequest>,
    ) -> Result<Response<QueryTableResponse>, Status> {
        self.directory.filled().await;
        let known = request.into_inner();
        let (instance, table) = (self.directory.instance(), self.directory.table());
        let mut answer = table.answer(instance, known.known_instance, known.known_version);
        answer.name_servers = self.gossip.members();
        if known.with_expired {
            answer.expired = self.directory.expired();
        }
        Ok(Response::new(answer))
    }

    type WatchTableStream = BoxStream<'static, Result<QueryTableResponse, Status>>;

    async fn watch_table(
        &self,
        request: Request<QueryTableRequest>,
    ) -> Result<Response<Self::WatchTableStream>, Status> {
        let place = (self.watchers.clone().try_acquire_owned())
            .map_err(|_| Status::resource_exhausted("too many watch the table already"))?;
        self.directory.filled().await;
        let watcher = Watcher {
            tables: self.directory.watch(),
            instance: self.directory.instance(),
            known: request.into_inner(),
            started: false,
            shutdown: self.shutdown.clone(),
            _place: place,
        };
        let answers = stream::unfold(watcher, |mut watcher| async move {
            let answer = watcher.next().await?;
            Some((Ok(answer), watcher))
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// One stream that watches the table. Holds no queue: it takes the newest table whenever its reader is ready.
struct Watcher {
    tables: watch::Receiver<Arc<RouteTable>>,
    instance: u64,
    known: QueryTableRequest,
    started: bool,
    shutdown: Shutdown,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    async fn next(&mut self) -> Option<QueryTableResponse> {
        if self.started {
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return None,
                // Late: say "unchanged". Gone: the process is stopping.
                changed = timeout(WATCH_SILENCE_MAX, self.tables.changed()) => {
                    if let Ok(Err(_)) = changed {
                        return None;
                    }
                }
            }
        }
        self.started = true;
        let table = self.tables.borrow_and_update().clone();
        let known = QueryTableRequest {
            known_version: table.version(),
            known_instance: self.instance,
            ..Default::default()
        };
        let before = std::mem::replace(&mut self.known, known);
        Some(table.answer(self.instance, before.known_instance, before.known_version))
    }
}

fn refused(error: RegistrationError) -> Status {
    match error {
        RegistrationError::GroupsFull { .. } => Status::resource_exhausted(error.to_string()),
        RegistrationError::Cluster { .. } => Status::failed_precondition(error.to_string()),
        _ => Status::invalid_argument(error.to_string()),
    }
}
