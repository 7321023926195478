//! Settings of one replica's agreement, and how they become openraft's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host::network::ClusterSecret;
use store::{Identity, KvEngine, LogConfig};

use crate::error::RaftError;
use crate::member::Member;

/// Most that one AppendEntries message carries, in bytes of entry bodies (a single larger entry
/// travels alone).
pub(crate) const APPEND_BYTES_MAX: usize = 2 << 20;

/// Most entries that one AppendEntries message carries.
const APPEND_ENTRIES_MAX: u64 = 4_096;

/// Largest body of one proposal: fits the transport's message limit with room to spare.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 64 << 20;

/// Parts of the range of election timeouts at the least: a group grows to three.
const PARTS_MIN: u64 = 3;

/// Settings of one replica.
#[derive(Clone)]
pub struct RaftConfig {
    /// Who this replica is; checked against the data directory and in every call between peers.
    pub identity: Identity,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// `host:port` to listen on for peers.
    pub peer_listen: String,
    /// What peers prove to each other that they hold, before anything else is said.
    pub secret: ClusterSecret,
    /// The members that the group starts with, this replica among them unless it joins later.
    pub members: Vec<Member>,
    /// What the tables are kept in.
    pub engine: Arc<dyn KvEngine>,
    /// Settings of the commit log.
    pub log: LogConfig,
    /// Time between a leader's heartbeats, in milliseconds. Default 80. At most a third of the
    /// shortest election timeout.
    pub heartbeat_interval_ms: u64,
    /// Shortest silence after which a follower seeks election, in milliseconds. Default 300. Votes do not wait
    /// for heartbeats behind a slow disk: those have a channel of their own. It comes on top of the
    /// leader's lease, which is the longest silence of that replica. Each replica has a part of the range of its own, in the
    /// order of the configured broker ids, so that no two seek election at once (ADR 0022).
    pub election_timeout_ms_min: u64,
    /// Longest such silence, in milliseconds. Default 500.
    pub election_timeout_ms_max: u64,
    /// Log bytes after which the tables are checkpointed. Default 256 MiB. Bounds the replay at start.
    pub checkpoint_log_bytes: u64,
    /// Log bytes that are kept for followers who fell behind, so that they need no snapshot, unless
    /// retention wants to drop them. Default 1 GiB.
    pub catch_up_log_bytes: u64,
    /// Longest wait for a proposal's outcome, in milliseconds. Default 10000.
    pub propose_timeout_ms: u64,
    /// Time between two passes of the scrubber over the sealed segments, in milliseconds; 0 for
    /// never. Default 24 hours.
    pub scrub_interval_ms: u64,
}

impl RaftConfig {
    /// Settings with the defaults for everything that has one.
    pub fn new(
        identity: Identity,
        data_dir: impl Into<PathBuf>,
        peer_listen: impl Into<String>,
        members: Vec<Member>,
        engine: Arc<dyn KvEngine>,
        secret: ClusterSecret,
    ) -> RaftConfig {
        RaftConfig {
            identity,
            data_dir: data_dir.into(),
            peer_listen: peer_listen.into(),
            secret,
            members,
            engine,
            log: LogConfig::default(),
            heartbeat_interval_ms: 80,
            election_timeout_ms_min: 300,
            election_timeout_ms_max: 500,
            checkpoint_log_bytes: 256 << 20,
            catch_up_log_bytes: 1 << 30,
            propose_timeout_ms: 10_000,
            scrub_interval_ms: 24 * 60 * 60 * 1_000,
        }
    }

    /// Names the first setting that is out of range.
    pub fn validate(&self) -> Result<(), RaftError> {
        let broken = |setting, rule: String| Err(RaftError::Config { setting, rule });
        if self.identity.broker_id == 0 {
            return broken("broker_id", "must be above 0".into());
        }
        if self.election_timeout_ms_min >= self.election_timeout_ms_max {
            return broken(
                "election_timeout_ms_min",
                "must be below election_timeout_ms_max".into(),
            );
        }
        if self.heartbeat_interval_ms == 0
            || self.heartbeat_interval_ms * 3 > self.election_timeout_ms_min
        {
            return broken(
                "heartbeat_interval_ms",
                "must be above 0 and at most a third of election_timeout_ms_min".into(),
            );
        }
        if self.checkpoint_log_bytes == 0 {
            return broken("checkpoint_log_bytes", "must be above 0".into());
        }
        if self.propose_timeout_ms == 0 {
            return broken("propose_timeout_ms", "must be above 0".into());
        }
        for (position, member) in self.members.iter().enumerate() {
            if member.broker_id == 0 {
                return broken("members", "broker ids must be above 0".into());
            }
            if self.members[..position]
                .iter()
                .any(|other| other.broker_id == member.broker_id)
            {
                return broken(
                    "members",
                    format!("broker id {} occurs twice", member.broker_id),
                );
            }
        }
        Ok(())
    }

    /// The configured broker ids, ascending.
    pub(crate) fn configured_ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.members.iter().map(|member| member.broker_id).collect();
        ids.sort_unstable();
        ids
    }

    /// The silences after which this replica seeks election, in milliseconds: of as many parts of the range as there are
    /// replicas the first half of its own. What lies between two parts is time for whoever is earlier to be elected.
    fn election_timeouts(&self) -> std::ops::Range<u64> {
        let mut ids = self.configured_ids();
        ids.retain(|id| *id != self.identity.broker_id);
        let rank = ids.partition_point(|id| *id < self.identity.broker_id) as u64;
        let parts = (ids.len() as u64 + 1).max(PARTS_MIN);
        let range = self.election_timeout_ms_max - self.election_timeout_ms_min;
        let begin = self.election_timeout_ms_min + range * rank / parts;
        begin..begin + (range / parts / 2).max(1)
    }

    /// How long a majority's silence is harmless: nobody seeks election before it has been silent for twice the shortest timeout,
    /// once as the lease and once more.
    pub(crate) fn lease(&self) -> Duration {
        let ms = (2 * self.election_timeout_ms_min).min(self.election_timeout_ms_max);
        Duration::from_millis(ms)
    }

    /// openraft's settings.
    pub(crate) fn openraft(&self) -> Result<Arc<openraft::Config>, RaftError> {
        let timeouts = self.election_timeouts();
        let config = openraft::Config {
            cluster_name: self.identity.group.clone(),
            heartbeat_interval: self.heartbeat_interval_ms,
            election_timeout_min: timeouts.start,
            election_timeout_max: timeouts.end,
            max_payload_entries: APPEND_ENTRIES_MAX,
            max_append_entries: Some(APPEND_ENTRIES_MAX),
            // Checkpoints are triggered by bytes, and raising the floor by what retention drops.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            enable_pre_vote: Some(true),
            // A leader that restarts must not resume its term: it sends entries before its own sync
            // has ended, so it could give an index twice in one term and committed logs would differ.
            enable_leader_restore: Some(false),
            // A follower whose log went backwards has lost what it promised.
            allow_log_reversion: Some(false),
            ..openraft::Config::default()
        };
        match config.validate() {
            Ok(config) => Ok(Arc::new(config)),
            Err(error) => Err(RaftError::Config {
                setting: "raft",
                rule: error.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RaftConfig {
        let identity = Identity {
            cluster_id: "c".into(),
            group: "g".into(),
            broker_id: 1,
        };
        let engine = store::default_engine(&host::Host::real(), &[]);
        let secret = host::testing::cluster_secret();
        RaftConfig::new(
            identity,
            "/nowhere",
            "127.0.0.1:0",
            Vec::new(),
            engine,
            secret,
        )
    }

    /// Catches the setting coming back under which committed logs were seen to diverge: a restarted
    /// leader resumes its term and gives an index, sent before its sync, to another entry.
    #[test]
    fn a_restarted_leader_never_resumes_its_term() {
        let openraft = config().openraft().unwrap();
        assert_eq!(openraft.enable_leader_restore, Some(false));
        assert_eq!(openraft.enable_pre_vote, Some(true));
        assert_eq!(openraft.allow_log_reversion, Some(false));
    }

    /// Catches replicas that seek election at the same moment, of which each votes for itself, and a range that somebody leaves.
    #[test]
    fn replicas_seek_election_one_after_the_other() {
        for count in [1, 2, 3, 5] {
            let member = |broker_id| Member {
                broker_id,
                peer_address: "a:1".into(),
                client_address: "a:2".into(),
            };
            let timeouts = (0..count).map(|rank| {
                let mut config = config();
                config.identity.broker_id = 7 + 2 * rank;
                config.members = (0..count).map(|rank| member(7 + 2 * rank)).collect();
                let openraft = config.openraft().unwrap();
                openraft.election_timeout_min..openraft.election_timeout_max
            });
            let timeouts: Vec<_> = timeouts.collect();
            for (earlier, later) in timeouts.iter().zip(&timeouts[1..]) {
                assert!(earlier.end + 15 < later.start, "{timeouts:?}");
            }
            assert!(timeouts[0].start == 300 && timeouts.last().unwrap().end <= 500);
        }
    }

    /// Catches settings that openraft would accept and then never elect anyone with.
    #[test]
    fn settings_that_cannot_work_are_named() {
        let mut slow = config();
        slow.heartbeat_interval_ms = 200;
        assert!(
            slow.validate()
                .unwrap_err()
                .to_string()
                .contains("heartbeat_interval_ms")
        );
        let mut twice = config();
        let member = Member {
            broker_id: 1,
            peer_address: "a:1".into(),
            client_address: "a:2".into(),
        };
        twice.members = vec![member.clone(), member];
        assert!(
            twice
                .validate()
                .unwrap_err()
                .to_string()
                .contains("occurs twice")
        );
        config().validate().unwrap();
    }
}
