//! Regular introductions to every peer: who we are, and what they know.
//!
//! They tell a replica that another process has its broker id, that its data directory is not the
//! one the group knows, what the others' clocks say, and, before Raft runs, how far they have come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use host::Shutdown;
use proto::raft as wire;
use store::DataDir;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;

use crate::addresses::{Source, Word};
use crate::connections::{Class, Connections};
use crate::error::RaftError;
use crate::peers::{HELLO_INTERVAL, Peers};
use crate::promises::{Heard, Promises};
use crate::state::State;
use crate::types::Node;

/// Longest wait for one peer's answer.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// Time between introductions while Raft does not run yet: the group waits for them.
const HELLO_INTERVAL_WAITING: Duration = Duration::from_millis(100);

/// Time after which a disk that takes what peers have promised is said not to answer.
const SAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before what peers have promised is written again after a failure.
const SAVE_PAUSE: Duration = Duration::from_secs(5);

/// Rounds without an answer after which a peer is no help, and is not counted among those who have something.
const SILENT_ROUNDS_MAX: u32 = 10;

/// What a peer last said of itself.
#[derive(Clone, Debug)]
pub(crate) struct Acquaintance {
    pub(crate) address: String,
    pub(crate) status: wire::StatusResponse,
    /// Rounds since then in which it did not answer.
    pub(crate) silent_rounds: u32,
}

impl Acquaintance {
    /// Whether it is there to be asked.
    pub(crate) fn answers(&self) -> bool {
        self.silent_rounds < SILENT_ROUNDS_MAX
    }
}

/// The latest answers, by broker id.
pub(crate) type Acquaintances = BTreeMap<u64, Acquaintance>;

/// Introduces this replica to its peers and keeps their answers.
pub(crate) struct Introductions {
    peers: Peers,
    connections: Connections,
    state: Arc<State>,
    /// Ids of the configured members. Used until a membership with us in it says more.
    configured: Vec<u64>,
    known: watch::Sender<Acquaintances>,
    data_dir: Arc<DataDir>,
    /// What peers have promised is written once at a time.
    saving: Arc<tokio::sync::Mutex<()>>,
}

impl Introductions {
    pub(crate) fn new(
        peers: Peers,
        connections: Connections,
        state: Arc<State>,
        configured: Vec<u64>,
        known: watch::Sender<Acquaintances>,
        data_dir: Arc<DataDir>,
    ) -> Introductions {
        Introductions {
            peers,
            connections,
            state,
            configured,
            known,
            data_dir,
            saving: Arc::default(),
        }
    }

    /// Introduces this replica again and again. Ends the replica when a peer says that it must not
    /// go on.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        loop {
            let waiting = self.state.raft().is_none();
            let pause = if waiting {
                HELLO_INTERVAL_WAITING
            } else {
                HELLO_INTERVAL
            };
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep(pause) => {}
            }
            match self.round().await {
                Ok(()) => {}
                // Configured wrongly there, perhaps: no reason to stop a replica that runs.
                Err(error @ (RaftError::ForeignPeer { .. } | RaftError::MembersDiffer { .. }))
                    if !waiting =>
                {
                    tracing::warn!(%error, "peer does not belong here");
                }
                Err(error) => return self.state.refuse(&error),
            }
            self.save_promises();
        }
    }

    /// Keeps what peers have promised, if that is more than before: in the background, since introductions must go on however
    /// long the disk takes, and a replica whose disk does not take this is better than none.
    fn save_promises(&self) {
        let Ok(turn) = self.saving.clone().try_lock_owned() else {
            return;
        };
        let membership = self.state.membership();
        let changes = {
            let mut promises = self.peers.promises();
            // A membership without this replica says nothing of its peers: the tables may say who was a member once, and Raft
            // says nothing yet when it has just started.
            if self.state.raft().is_some() && self.state.is_own_member() {
                promises.keep(|broker_id| membership.get_node(&broker_id).is_some());
            }
            promises.take_changes()
        };
        let Some(bytes) = changes else {
            return;
        };
        let (data_dir, peers) = (self.data_dir.clone(), self.peers.clone());
        tokio::spawn(async move {
            let _turn = turn;
            let mut saving = Box::pin(Promises::save(data_dir.host(), data_dir.path(), bytes));
            let saved = match tokio::time::timeout(SAVE_TIMEOUT, &mut saving).await {
                Ok(saved) => saved,
                Err(_) => {
                    tracing::warn!(
                        "what peers have promised is not kept: the disk does not answer"
                    );
                    saving.as_mut().await
                }
            };
            drop(saving);
            // The directory is somebody else's once the replica has ended.
            drop(data_dir);
            if let Err(error) = saved {
                tracing::warn!(%error, "what peers have promised is not kept; tried again");
                peers.promises().keep_later();
                // The turn is kept meanwhile.
                tokio::time::sleep(SAVE_PAUSE).await;
            }
        });
    }

    /// Remembers what a member says to have promised.
    fn note_promise(&self, broker_id: u64, status: &wire::StatusResponse) {
        let membership = self.state.membership();
        let node = membership.get_node(&broker_id);
        if node.is_none_or(|node| node.replica_id != status.replica_id) {
            return;
        }
        let heard = Heard {
            replica_id: status.replica_id,
            incarnation: status.incarnation,
            term: status.voted_term,
            end: status.promised_end,
        };
        self.peers.promises().note(broker_id, heard, Instant::now());
    }

    /// Asks every peer once, all at the same time. An error says why this replica must not run.
    /// Peers that do not answer are no error.
    pub(crate) async fn round(&self) -> Result<(), RaftError> {
        (self.state.clocks).set_voters(self.state.clock_voters());
        let mut calls: FuturesUnordered<_> = self
            .others()
            .into_iter()
            .map(|(broker_id, logged)| async move {
                let answer = self.introduce(broker_id, logged.as_ref()).await;
                (broker_id, logged, answer)
            })
            .collect();
        let mut first_error = None;
        while let Some((broker_id, logged, result)) = calls.next().await {
            match result {
                Ok(Some(answer)) => {
                    self.note_promise(broker_id, &answer.status);
                    self.known.send_modify(|known| {
                        known.insert(broker_id, answer);
                    });
                    continue;
                }
                Ok(None) => self.note_silence(broker_id),
                Err(error) => first_error = first_error.or(Some(error)),
            }
            let logged = logged.as_ref().map(|node| node.peer_address.as_str());
            (self.peers.addresses()).silent(broker_id, logged, Instant::now());
        }
        first_error.map_or(Ok(()), Err)
    }

    /// What it said last stays: nobody else may know who is left of the group.
    fn note_silence(&self, broker_id: u64) {
        self.known.send_if_modified(|known| {
            if let Some(peer) = known.get_mut(&broker_id) {
                peer.silent_rounds = peer.silent_rounds.saturating_add(1);
            }
            false
        });
    }

    /// The other replicas, and what the log says of them, if it is to be believed.
    fn others(&self) -> BTreeMap<u64, Option<Node>> {
        let id = self.peers.identity().broker_id;
        let membership = self.state.membership();
        // The tables of a restored copy know the members of the group that it was copied from: no peers of its own.
        let is_member = membership.nodes().any(|(broker_id, _)| *broker_id == id);
        let nodes = membership.nodes();
        let mut others: BTreeMap<u64, Option<Node>> = match is_member {
            true => nodes.map(|(id, node)| (*id, Some(node.clone()))).collect(),
            false => self.configured.iter().map(|id| (*id, None)).collect(),
        };
        others.remove(&id);
        others
    }

    /// Introduces this replica wherever the other one may be. `None` if it answers nowhere. Where it announces itself counts
    /// before where it answers too: others may reach it there only.
    async fn introduce(
        &self,
        broker_id: u64,
        logged: Option<&Node>,
    ) -> Result<Option<Acquaintance>, RaftError> {
        let addresses = self.peers.addresses();
        let logged_at = logged.map(|node| node.peer_address.as_str());
        let candidates = addresses.candidates(broker_id, logged_at);
        let announced = addresses.announced(broker_id);
        let mut calls: FuturesUnordered<_> = candidates
            .into_iter()
            .map(|(address, source)| async move {
                let guessed = match logged_at {
                    Some(logged_at) => logged_at != address,
                    None => source == Source::Operator,
                };
                let result = self.introduce_at(broker_id, logged, address).await;
                (guessed, result)
            })
            .collect();
        let (mut found, mut stranger) = (None, None);
        while let Some((guessed, result)) = calls.next().await {
            match result {
                Ok(Some(answer)) if announced.as_ref().is_none_or(|at| *at == answer.address) => {
                    found = Some(answer);
                    break;
                }
                Ok(Some(answer)) => found = found.or(Some(answer)),
                Ok(None) => {}
                // Anybody may be where somebody guessed, and say anything.
                Err(error) if guessed => tracing::debug!(broker_id, %error, "a guess was wrong"),
                // Another broker may be where a member was that moved. Which data directory answers decides who is one; the
                // address does not.
                Err(error @ RaftError::ForeignPeer { .. }) if logged.is_some() => {
                    if addresses.stranger(broker_id, Instant::now()) {
                        tracing::warn!(broker_id, %error, "a stranger is where a member was");
                    }
                }
                Err(error @ RaftError::ForeignPeer { .. }) => stranger = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(answer) = found {
            self.learn(broker_id, &answer);
            return Ok(Some(answer));
        }
        stranger.map_or(Ok(None), Err)
    }

    /// What the answer of the right replica says about addresses.
    fn learn(&self, broker_id: u64, answer: &Acquaintance) {
        let addresses = self.peers.addresses();
        let Acquaintance {
            address, status, ..
        } = answer;
        let own = |one: &wire::Announcement| {
            let answers = (status.broker_id, status.replica_id, status.incarnation);
            (one.broker_id, one.replica_id, one.incarnation) == answers
        };
        for announced in status.reached.iter().chain(&status.announcement) {
            if self
                .state
                .has_member(announced.broker_id, announced.replica_id)
            {
                let word = match own(announced) {
                    true => Word::Own,
                    false => Word::Passed,
                };
                addresses.heard(announced, word);
            }
        }
        let reached_us = addresses.has_own(&status.reached);
        addresses.answered(broker_id, address, reached_us);
    }

    /// `None` if nobody answers there, or answers something that says nothing about us.
    async fn introduce_at(
        &self,
        broker_id: u64,
        logged: Option<&Node>,
        address: String,
    ) -> Result<Option<Acquaintance>, RaftError> {
        let identity = self.peers.identity();
        let request = wire::StatusRequest {
            cluster_id: identity.cluster_id.clone(),
            group: identity.group.clone(),
            sender: Some(self.peers.sender_to_broker(broker_id)),
            announcement: Some(self.peers.addresses().own().clone()),
        };
        let mut client = self.connections.client(&address, Class::Control)?;
        let asked = Instant::now();
        let answer = tokio::time::timeout(HELLO_TIMEOUT, client.status(request)).await;
        let status = match answer {
            Err(_) => return Ok(None),
            Ok(Err(error)) => return self.refusal(&address, &error).map(|()| None),
            Ok(Ok(response)) => response.into_inner(),
        };
        if status.cluster_id != identity.cluster_id
            || status.group != identity.group
            || status.broker_id != broker_id
        {
            let detail = format!(
                "expected broker {broker_id} there, found broker {} of cluster {:?} group {:?}",
                status.broker_id, status.cluster_id, status.group
            );
            return Err(RaftError::ForeignPeer {
                peer: address,
                detail,
            });
        }
        self.check_membership(&status)?;
        // One with another data directory is asked where the log has it, as ever, so that it learns that it was wiped.
        if let Some(node) = logged
            && node.peer_address != address
            && node.replica_id != status.replica_id
        {
            return Ok(None);
        }
        let clocks = &self.state.clocks;
        clocks.heard(broker_id, status.clock_ms, asked, Instant::now());
        Ok(Some(Acquaintance {
            address,
            status,
            silent_rounds: 0,
        }))
    }

    /// Refusals that concern us are errors; a peer in trouble is not.
    fn refusal(&self, address: &str, error: &tonic::Status) -> Result<(), RaftError> {
        match error.code() {
            Code::AlreadyExists => Err(RaftError::DuplicateBroker {
                broker_id: self.peers.identity().broker_id,
                peer: address.to_string(),
                detail: error.message().to_string(),
            }),
            Code::DataLoss => Err(RaftError::RolledBack {
                broker_id: self.peers.identity().broker_id,
                group: self.peers.identity().group.clone(),
                detail: error.message().to_string(),
            }),
            Code::FailedPrecondition => Err(RaftError::ForeignPeer {
                peer: address.to_string(),
                detail: error.message().to_string(),
            }),
            _ => {
                tracing::debug!(address, %error, "peer does not answer");
                Ok(())
            }
        }
    }

    /// The membership says which data directory made the promises under our broker id.
    fn check_membership(&self, status: &wire::StatusResponse) -> Result<(), RaftError> {
        let identity = self.peers.identity();
        let replica_id = self.peers.incarnation().replica_id;
        let ours = status
            .members
            .iter()
            .find(|member| member.broker_id == identity.broker_id);
        match ours {
            Some(member) if member.replica_id != 0 && member.replica_id != replica_id => {
                Err(RaftError::WipedReplica {
                    broker_id: identity.broker_id,
                    group: identity.group.clone(),
                })
            }
            _ => Ok(()),
        }
    }
}
