//! What an operator may set for one broker, with defaults and rules.
//!
//! Read once at start; nothing here changes while the broker runs. A configuration that breaks a rule
//! is refused before any file or socket is touched, by the name of the key (or the pair) that is wrong.

use std::path::PathBuf;
use std::sync::Arc;

use host::network::{Bounds, BoundsOptions, ClusterSecret, NetworkError, ServerTls};
use model::GroupName;
use proto::BrokerId;
use serde::{Deserialize, Serialize};

use crate::machine::dead_letter;

/// Bytes in a KiB and a MiB, so that defaults read as people write them.
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Share of a configured request that headers, lengths and names may add on the wire.
const REQUEST_OVERHEAD_BYTES: u64 = 64 * KIB;

/// This file's text. The comments of [`BrokerConfig`]'s fields are what `raftmq broker --help` and
/// `--print-config` show, so that a setting is described in one place.
pub const CONFIG_SOURCE: &str = include_str!("config.rs");

/// One replica of the broker group, as every replica's configuration lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// Number of the broker in its group. Rule: unique, not 0.
    pub broker_id: BrokerId,
    /// `host:port` that clients are sent to.
    pub client_address: String,
    /// `host:port` on which the other replicas reach it.
    pub peer_address: String,
}

/// Configuration of one broker: one replica of one broker group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Cluster that the broker belongs to. Replicas of different clusters refuse each other. Default
    /// `raftmq`. Rule: not empty.
    pub cluster_id: String,
    /// Name of the broker group; clients see it as the broker's name. Default `broker-a`. Rule: a
    /// valid group name.
    pub group: String,
    /// Number of this broker in its group. Default 1. Rule: not 0; listed in `members` if there are any.
    pub broker_id: BrokerId,
    /// Directory of the log and the tables. Default `data`. Rule: not empty; never shared.
    pub data_dir: PathBuf,

    /// `address:port` on which clients are served. Default `0.0.0.0:8081`.
    pub listen: String,
    /// `host:port` given to clients. Default: this broker's `client_address` in `members`, or else
    /// `127.0.0.1` with the port of `listen`. Rule: equal to that entry when both are set.
    pub advertise: String,
    /// `address:port` on which the other replicas are served. Default `0.0.0.0:9081`.
    pub peer_listen: String,
    /// `host:port` given to the other replicas. Default and rule as for `advertise`.
    pub peer_advertise: String,
    /// File with the cluster's secret, readable by its owner only. All brokers and name servers of a cluster have the same
    /// one and prove it to each other; so do operators. `raftmq secret new FILE` makes one. Default `/etc/raftmq/secret`.
    /// Rule: a broker without one does not start.
    pub secret_file: PathBuf,
    /// File with the certificate chain (PEM) for clients that speak TLS, the broker's own certificate first. They and
    /// those that speak plaintext share the port of `listen`. A changed file is noticed within a minute. Default: none,
    /// plaintext only. Rule: together with `tls_key`.
    pub tls_certificate: PathBuf,
    /// File with the certificate's private key (PEM). Default: none. Rule: together with `tls_certificate`.
    pub tls_key: PathBuf,
    /// `address:port` on which operators are served who prove that they hold the cluster's secret: `raftmq` on this
    /// machine reaches the whole cluster there. Default `127.0.0.1:7081`.
    pub admin_listen: String,
    /// The replicas with which a new group starts; later changes go through the log. Default: this
    /// broker alone. Rule: the same list on every replica.
    pub members: Vec<MemberConfig>,
    /// Name servers (`host:port`) with which the leader registers. Default: none.
    pub name_servers: Vec<String>,
    /// How long a registration lives unless renewed, in milliseconds; renewed at a third of it.
    /// Default 15 000. Rule: at least 300.
    pub registration_lease_ms: u64,

    /// Create a topic when it is first asked for or sent to. Default false.
    pub auto_create_topics: bool,
    /// Queues of a topic created that way. Default 4. Rule: 1 to 1 024.
    pub auto_create_queue_count: u32,
    /// Create a consumer group when its first member appears, also when topics are not created
    /// automatically. Default true.
    pub auto_create_groups: bool,

    /// A message that is sent again within this time is answered with the first result, in milliseconds. Producers must
    /// give up sooner. Default 120 000.
    pub dedup_window_ms: u64,
    /// Memory for recognising messages that are sent again, in bytes; what is more is forgotten before the window ends,
    /// by whoever takes most. One client may take an eighth of it, one topic a half. Default 256 MiB.
    pub dedup_bytes_max: u64,
    /// Largest body of one message, in bytes. Default 4 MiB. Rule: 1 to 16 MiB.
    pub message_bytes_max: u64,
    /// Largest sum of the messages of one `SendMessage`, in bytes. Default 16 MiB. Rule: at least
    /// `message_bytes_max` plus 64 KiB for properties, at most 32 MiB.
    pub request_bytes_max: u64,
    /// Sends that wait or are being agreed on, in bytes; more is refused at once. Default 64 MiB.
    /// Rule: at least `request_bytes_max`.
    pub inflight_bytes_max: u64,
    /// Requests that wait for the proposer; more is refused at once. Default 16 384. Rule: not 0.
    pub inflight_requests_max: u64,
    /// One log entry gathers waiting requests up to about this size, in bytes; a larger request is an
    /// entry of its own. Default 1 MiB. Rule: 1 KiB to 16 MiB.
    pub entry_bytes_target: u64,
    /// Entries proposed and not yet applied. Default 4. Rule: 1 to 64.
    pub proposals_inflight_max: u32,

    /// Longest wait of a request that names no deadline, in milliseconds. Default 5 000. Rule: at
    /// least 100.
    pub request_timeout_ms: u64,
    /// How long a request waits for a leader to be known before it is refused, in milliseconds; its own
    /// deadline may end the wait earlier. Default 3 000.
    pub leader_wait_ms: u64,
    /// Longest wait of a pull for a message to arrive, in milliseconds. Default 30 000.
    pub long_polling_ms_max: u64,
    /// Pulls that may wait at one time. Default 8 192. Rule: not 0.
    pub long_polls_max: u64,
    /// Messages in one answer to a pull at most. Default 1 024. Rule: not 0.
    pub pull_messages_max: u32,
    /// Bytes in one answer to a pull at most (one message is always sent). Default 4 MiB. Rule: not 0.
    pub pull_bytes_max: u64,
    /// A client that sent no heartbeat for this long is no longer a member, in milliseconds. Default
    /// 30 000.
    pub client_expiry_ms: u64,
    /// Clients remembered at most. Default 65 536. Rule: not 0.
    pub clients_max: u64,
    /// Client connections served at one time; when a further one comes, one that is idle gives way, of the address that
    /// has most. Default 4 096. Rule: not 0.
    pub connections_max: u64,
    /// Bytes of clients' requests that arrive or are not answered yet, and of answers that clients have not taken yet,
    /// together; raised where a request or an answer would not fit. One address may have a quarter. Others wait, and who stands
    /// still for 20 seconds (2 if another has waited as long) is cut off. Default 256 MiB. Rule: at least 16 MiB.
    pub transfer_bytes_max: u64,

    /// Size of one log segment, in bytes. Default 128 MiB. Rule: at least twice `request_bytes_max`.
    pub segment_bytes: u64,
    /// Drop the oldest sealed segments while they hold more than this together, in bytes. Default 0: no
    /// bound by size.
    pub log_retain_bytes: u64,
    /// Drop sealed segments whose last entry is older than this, in milliseconds. Default 259 200 000
    /// (72 hours). 0: no bound by age. What counts is the time that passed while the group ran, not what clocks say. A
    /// segment that begins with an older entry is ended: no message stays for much longer than twice this.
    pub log_retain_ms: u64,
    /// Drop dead letters that died longer ago than this, in milliseconds. Until then their messages are kept, whatever
    /// the bounds of the log say. Default 259 200 000 (72 hours). 0: no bound.
    pub dead_letter_retain_ms: u64,
    /// Number of the queue in which this group's dead letters are, of the topic `%DLQ%<consumer group>`. Give each broker
    /// group that shares a system another one before the first message dies: consumers know queues by their numbers. A
    /// queue that exists keeps its number. Default 0. Rule: at most 255.
    pub dead_letter_queue: u32,
    /// How often retention and the free space of the disk are looked at, in milliseconds. Default
    /// 1 000. Rule: at least 10.
    pub retention_interval_ms: u64,
    /// Free space that is never used for the log, in bytes. Sends are refused while less than this and
    /// one segment is free; nothing is dropped for want of space. Default 1 GiB.
    pub disk_reserve_bytes: u64,
    /// Take a checkpoint of the tables each time the log grew by this much, in bytes. Default 256 MiB.
    /// Rule: not 0.
    pub checkpoint_log_bytes: u64,

    /// How often a leader tells its followers that it lives, in milliseconds. Default 80. Rule: at
    /// most a third of `election_timeout_ms_min`.
    pub heartbeat_interval_ms: u64,
    /// Shortest silence, beyond the leader's lease, after which a follower stands for election, in milliseconds. Default 300.
    /// Each replica has a part of the range of its own, in the order of broker ids, and the longest silence of its part for the
    /// lease: no two stand at once.
    pub election_timeout_ms_min: u64,
    /// Longest such silence, in milliseconds. Default 500. Rule: greater than `election_timeout_ms_min`.
    pub election_timeout_ms_max: u64,
}

impl Default for BrokerConfig {
    fn default() -> BrokerConfig {
        BrokerConfig {
            cluster_id: "raftmq".to_owned(),
            group: "broker-a".to_owned(),
            broker_id: 1,
            data_dir: PathBuf::from("data"),
            listen: "0.0.0.0:8081".to_owned(),
            advertise: String::new(),
            peer_listen: "0.0.0.0:9081".to_owned(),
            peer_advertise: String::new(),
            secret_file: PathBuf::from("/etc/raftmq/secret"),
            admin_listen: "127.0.0.1:7081".to_owned(),
            tls_certificate: PathBuf::new(),
            tls_key: PathBuf::new(),
            members: Vec::new(),
            name_servers: Vec::new(),
            registration_lease_ms: 15_000,
            auto_create_topics: false,
            auto_create_queue_count: 4,
            auto_create_groups: true,
            dedup_window_ms: 120_000,
            dedup_bytes_max: 256 * MIB,
            message_bytes_max: 4 * MIB,
            request_bytes_max: 16 * MIB,
            inflight_bytes_max: 64 * MIB,
            inflight_requests_max: 16_384,
            entry_bytes_target: MIB,
            proposals_inflight_max: 4,
            request_timeout_ms: 5_000,
            leader_wait_ms: 3_000,
            long_polling_ms_max: 30_000,
            long_polls_max: 8_192,
            pull_messages_max: 1_024,
            pull_bytes_max: 4 * MIB,
            client_expiry_ms: 30_000,
            clients_max: 65_536,
            connections_max: 4_096,
            transfer_bytes_max: 256 * MIB,
            segment_bytes: 128 * MIB,
            log_retain_bytes: 0,
            log_retain_ms: 72 * 60 * 60 * 1_000,
            dead_letter_retain_ms: 72 * 60 * 60 * 1_000,
            dead_letter_queue: 0,
            retention_interval_ms: 1_000,
            disk_reserve_bytes: 1_024 * MIB,
            checkpoint_log_bytes: 256 * MIB,
            heartbeat_interval_ms: 80,
            election_timeout_ms_min: 300,
            election_timeout_ms_max: 500,
        }
    }
}

/// A rule of the configuration that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration key {key}: {rule}")]
pub struct ConfigError {
    /// The key, or the keys of the pair, that is wrong.
    pub key: &'static str,
    /// What is expected of it, and what was found.
    pub rule: String,
}

fn require(
    holds: bool,
    key: &'static str,
    rule: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError { key, rule: rule() })
    }
}

fn between(key: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    require((least..=most).contains(&value), key, || {
        format!("must be between {least} and {most}, is {value}")
    })
}

fn host_and_port(key: &'static str, address: &str) -> Result<(), ConfigError> {
    let valid = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    require(valid, key, || format!("must be host:port, is {address:?}"))
}

impl BrokerConfig {
    /// Checks every rule named above; the first that does not hold is returned.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_identity()?;
        self.validate_addresses()?;
        self.validate_limits()?;
        self.validate_storage()
    }

    /// The secret of the cluster. Blocks.
    pub(crate) fn secret(&self) -> Result<ClusterSecret, NetworkError> {
        ClusterSecret::load(&self.secret_file)
    }

    /// Bytes of the largest answer to a pull: one message is always sent.
    pub(crate) fn answer_bytes_max(&self) -> u64 {
        self.pull_bytes_max
            .max(self.message_bytes_max + REQUEST_OVERHEAD_BYTES)
    }

    /// What is held of clients' requests and answers.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds::new(&BoundsOptions {
            bytes_max: self.transfer_bytes_max,
            request_bytes_max: self.request_bytes_max,
            answer_bytes_max: self.answer_bytes_max(),
        })
    }

    /// The certificate for clients that speak TLS, if there is one. Blocks.
    pub(crate) fn tls(&self) -> Result<Option<Arc<ServerTls>>, NetworkError> {
        if self.tls_certificate.as_os_str().is_empty() {
            return Ok(None);
        }
        let tls = ServerTls::load(&self.tls_certificate, &self.tls_key)?;
        Ok(Some(Arc::new(tls)))
    }

    /// This broker as the others know it: from `members`, or from the addresses if it is alone.
    pub fn own_member(&self) -> MemberConfig {
        let listed = self
            .members
            .iter()
            .find(|member| member.broker_id == self.broker_id);
        match listed {
            Some(member) => member.clone(),
            None => MemberConfig {
                broker_id: self.broker_id,
                client_address: reachable(&self.advertise, &self.listen),
                peer_address: reachable(&self.peer_advertise, &self.peer_listen),
            },
        }
    }

    /// The replicas with which a new group starts.
    pub fn initial_members(&self) -> Vec<MemberConfig> {
        if self.members.is_empty() {
            vec![self.own_member()]
        } else {
            self.members.clone()
        }
    }

    fn validate_identity(&self) -> Result<(), ConfigError> {
        require(!self.cluster_id.is_empty(), "cluster_id", || {
            "must not be empty".to_owned()
        })?;
        GroupName::new(self.group.as_str()).map_err(|error| ConfigError {
            key: "group",
            rule: error.to_string(),
        })?;
        require(self.broker_id != 0, "broker_id", || {
            "must not be 0".to_owned()
        })?;
        require(!self.data_dir.as_os_str().is_empty(), "data_dir", || {
            "must not be empty".to_owned()
        })
    }

    fn validate_addresses(&self) -> Result<(), ConfigError> {
        host_and_port("listen", &self.listen)?;
        host_and_port("peer_listen", &self.peer_listen)?;
        host_and_port("admin_listen", &self.admin_listen)?;
        for (index, member) in self.members.iter().enumerate() {
            require(member.broker_id != 0, "members", || {
                format!("broker_id of member {index} must not be 0")
            })?;
            host_and_port("members", &member.client_address)?;
            host_and_port("members", &member.peer_address)?;
            let twin = self.members[..index].iter().find(|other| {
                other.broker_id == member.broker_id
                    || other.client_address == member.client_address
                    || other.peer_address == member.peer_address
            });
            require(twin.is_none(), "members", || {
                format!(
                    "broker {} shares its id or an address with another",
                    member.broker_id
                )
            })?;
        }
        let paths = [&self.tls_certificate, &self.tls_key];
        require(
            paths[0].as_os_str().is_empty() == paths[1].as_os_str().is_empty(),
            "tls_certificate and tls_key",
            || "go together: set both or none".to_owned(),
        )?;
        for name_server in &self.name_servers {
            host_and_port("name_servers", name_server)?;
        }
        self.validate_own_member()
    }

    fn validate_own_member(&self) -> Result<(), ConfigError> {
        if self.members.is_empty() {
            return Ok(());
        }
        let listed = self
            .members
            .iter()
            .find(|member| member.broker_id == self.broker_id);
        let Some(own) = listed else {
            return require(false, "broker_id and members", || {
                format!("broker {} is not among the members", self.broker_id)
            });
        };
        require(
            self.advertise.is_empty() || self.advertise == own.client_address,
            "advertise and members",
            || {
                format!(
                    "{} differs from {} in members",
                    self.advertise, own.client_address
                )
            },
        )?;
        require(
            self.peer_advertise.is_empty() || self.peer_advertise == own.peer_address,
            "peer_advertise and members",
            || {
                format!(
                    "{} differs from {} in members",
                    self.peer_advertise, own.peer_address
                )
            },
        )
    }

    fn validate_limits(&self) -> Result<(), ConfigError> {
        between(
            "auto_create_queue_count",
            self.auto_create_queue_count.into(),
            1,
            1_024,
        )?;
        between("message_bytes_max", self.message_bytes_max, 1, 16 * MIB)?;
        require(
            self.request_bytes_max >= self.message_bytes_max + REQUEST_OVERHEAD_BYTES,
            "request_bytes_max and message_bytes_max",
            || format!("a request must hold one message and {REQUEST_OVERHEAD_BYTES} bytes more"),
        )?;
        between("request_bytes_max", self.request_bytes_max, 1, 32 * MIB)?;
        require(
            self.inflight_bytes_max >= self.request_bytes_max,
            "inflight_bytes_max and request_bytes_max",
            || "one request must fit into what may be in flight".to_owned(),
        )?;
        between(
            "inflight_requests_max",
            self.inflight_requests_max,
            1,
            1 << 20,
        )?;
        between("entry_bytes_target", self.entry_bytes_target, KIB, 16 * MIB)?;
        between(
            "proposals_inflight_max",
            self.proposals_inflight_max.into(),
            1,
            64,
        )?;
        between("request_timeout_ms", self.request_timeout_ms, 100, 600_000)?;
        between("leader_wait_ms", self.leader_wait_ms, 0, 600_000)?;
        between(
            "long_polling_ms_max",
            self.long_polling_ms_max,
            0,
            3_600_000,
        )?;
        between(
            "dead_letter_queue",
            self.dead_letter_queue.into(),
            0,
            dead_letter::QUEUE_MAX.into(),
        )?;
        between("long_polls_max", self.long_polls_max, 1, 1 << 20)?;
        between(
            "pull_messages_max",
            self.pull_messages_max.into(),
            1,
            1 << 20,
        )?;
        between("pull_bytes_max", self.pull_bytes_max, 1, 128 * MIB)?;
        between("client_expiry_ms", self.client_expiry_ms, 1, u64::MAX)?;
        between("clients_max", self.clients_max, 1, 1 << 24)?;
        between("connections_max", self.connections_max, 1, 1 << 20)?;
        between(
            "transfer_bytes_max",
            self.transfer_bytes_max,
            16 * MIB,
            1 << 40,
        )?;
        between(
            "registration_lease_ms",
            self.registration_lease_ms,
            300,
            3_600_000,
        )
    }

    fn validate_storage(&self) -> Result<(), ConfigError> {
        require(
            self.segment_bytes >= 2 * self.request_bytes_max,
            "segment_bytes and request_bytes_max",
            || "a segment must hold two of the largest requests".to_owned(),
        )?;
        between(
            "retention_interval_ms",
            self.retention_interval_ms,
            10,
            3_600_000,
        )?;
        between(
            "checkpoint_log_bytes",
            self.checkpoint_log_bytes,
            1,
            u64::MAX,
        )?;
        between(
            "heartbeat_interval_ms",
            self.heartbeat_interval_ms,
            1,
            60_000,
        )?;
        require(
            self.heartbeat_interval_ms * 3 <= self.election_timeout_ms_min,
            "heartbeat_interval_ms and election_timeout_ms_min",
            || "three heartbeats must fit into the shortest election timeout".to_owned(),
        )?;
        require(
            self.election_timeout_ms_min < self.election_timeout_ms_max,
            "election_timeout_ms_min and election_timeout_ms_max",
            || "the shortest must be less than the longest".to_owned(),
        )
    }
}

/// What others can call: the advertised address, or loopback with the port that is listened on.
fn reachable(advertised: &str, listened: &str) -> String {
    if !advertised.is_empty() {
        return advertised.to_owned();
    }
    match listened.rsplit_once(':') {
        Some(("0.0.0.0" | "[::]", port)) => format!("127.0.0.1:{port}"),
        _ => listened.to_owned(),
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod config_test;
