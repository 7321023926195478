//! How a name server is set up: every number with its unit, its default and its rule.

use std::path::PathBuf;
use std::sync::Arc;

use host::network::{ClusterSecret, NetworkError, ServerTls};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::registration::is_address;

/// This file's text. The comments of [`NameServerConfig`]'s fields are what `raftmq nameserver --help` and
/// `--print-config` show, so that a setting is described in one place.
pub const CONFIG_SOURCE: &str = include_str!("config.rs");

/// A name server's configuration. What is left out has its default; what is unknown is refused.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct NameServerConfig {
    /// Only groups of this cluster may register. Default: empty, any cluster.
    pub cluster_id: String,
    /// `host:port` to listen on, for clients, brokers and name servers alike. Default: `0.0.0.0:9876`.
    pub listen: String,
    /// `host:port` under which the other name servers reach this one. Default: empty, the address it listens on.
    pub advertise: String,
    /// File with the cluster's secret, readable by its owner only. All brokers and name servers of a cluster have the same
    /// one and prove it to each other; so do operators. `raftmq secret new FILE` makes one. Without one a name server does
    /// not start. Default: `/etc/raftmq/secret`.
    pub secret_file: PathBuf,
    /// File with the certificate chain (PEM) for clients that speak TLS, the name server's own certificate first. They
    /// and those that speak plaintext share the port. A changed file is noticed within a minute. Default: empty,
    /// plaintext only.
    pub tls_certificate: PathBuf,
    /// File with the certificate's private key (PEM); set together with `tls_certificate`. Default: empty.
    pub tls_key: PathBuf,
    /// `host:port` of other name servers; they tell of further ones. Default: none.
    pub peers: Vec<String>,
    /// Time between rounds of gossip, in milliseconds. Default: 1,000.
    pub gossip_interval_ms: u64,
    /// Peers asked in one round. Default: 2.
    pub gossip_fanout: usize,
    /// Longest wait for one peer's answer, in milliseconds. Default: 2,000.
    pub gossip_timeout_ms: u64,
    /// Largest gossip message, in bytes; a registration that is larger goes alone. Default: 1 MiB.
    pub gossip_bytes_max: usize,
    /// Longest wait at the start for a peer to fill the table from, in milliseconds. Default: 5,000.
    pub fill_wait_ms: u64,
    /// Shortest lease of a registration, in milliseconds; shorter ones are lengthened. Default: 1,000.
    pub lease_ms_min: u64,
    /// Longest lease of a registration, in milliseconds; longer ones are cut. Default: 120,000.
    pub lease_ms_max: u64,
    /// Most broker groups, expired ones that are still remembered included. Default: 10,000.
    pub groups_max: usize,
    /// Most streams that watch the table at the same time. Default: 10,000.
    pub watchers_max: usize,
    /// Most connections at the same time. Default: 20,000.
    pub connections_max: usize,
}

impl Default for NameServerConfig {
    fn default() -> Self {
        NameServerConfig {
            cluster_id: String::new(),
            listen: "0.0.0.0:9876".to_owned(),
            advertise: String::new(),
            secret_file: PathBuf::from("/etc/raftmq/secret"),
            tls_certificate: PathBuf::new(),
            tls_key: PathBuf::new(),
            peers: Vec::new(),
            gossip_interval_ms: 1_000,
            gossip_fanout: 2,
            gossip_timeout_ms: 2_000,
            gossip_bytes_max: 1 << 20,
            fill_wait_ms: 5_000,
            lease_ms_min: 1_000,
            lease_ms_max: 120_000,
            groups_max: 10_000,
            watchers_max: 10_000,
            connections_max: 20_000,
        }
    }
}

/// A setting that cannot work, or two that cannot work together.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// An address is none.
    #[error("{setting} is {value:?}, which is not host:port")]
    Address {
        /// The name of the setting.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// A bound of zero lets nothing through.
    #[error("{setting} is 0")]
    Zero {
        /// The name of the setting.
        setting: &'static str,
    },
    /// Two settings whose order is wrong.
    #[error("{small} is {small_value}, more than {large}, which is {large_value}")]
    Order {
        /// The setting that should be smaller, or equal.
        small: &'static str,
        /// Its value.
        small_value: u64,
        /// The setting that should be larger.
        large: &'static str,
        /// Its value.
        large_value: u64,
    },
    /// One of two settings that only work together.
    #[error("{set} is set and {missing} is not: set both or none")]
    Half {
        /// The setting that is there.
        set: &'static str,
        /// The setting that is not.
        missing: &'static str,
    },
    /// Peers could not call back.
    #[error(
        "peers are configured, but advertise is empty and listen is {listen}, which nobody can call"
    )]
    Unreachable {
        /// The address listened on.
        listen: String,
    },
}

impl NameServerConfig {
    /// Whether these settings can work, each and together.
    ///
    /// # Errors
    ///
    /// Names the setting, or the pair of settings, that cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        // Port 0, any free port, is for tests; so `listen` is not held to what others can call.
        if self
            .listen
            .rsplit_once(':')
            .is_none_or(|(_, port)| port.parse::<u16>().is_err())
        {
            return Err(ConfigError::Address {
                setting: "listen",
                value: self.listen.clone(),
            });
        }
        if !self.advertise.is_empty() && !is_address(&self.advertise) {
            return Err(ConfigError::Address {
                setting: "advertise",
                value: self.advertise.clone(),
            });
        }
        if let Some(peer) = self.peers.iter().find(|peer| !is_address(peer)) {
            return Err(ConfigError::Address {
                setting: "peers",
                value: peer.clone(),
            });
        }
        let anywhere = self.listen.starts_with("0.0.0.0:") || self.listen.starts_with("[::]:");
        if !self.peers.is_empty() && self.advertise.is_empty() && anywhere {
            return Err(ConfigError::Unreachable {
                listen: self.listen.clone(),
            });
        }
        let is_set = |path: &PathBuf| !path.as_os_str().is_empty();
        let (certificate, key) = ("tls_certificate", "tls_key");
        match (is_set(&self.tls_certificate), is_set(&self.tls_key)) {
            (true, false) => Err(ConfigError::Half {
                set: certificate,
                missing: key,
            }),
            (false, true) => Err(ConfigError::Half {
                set: key,
                missing: certificate,
            }),
            _ => self.validate_bounds(),
        }
    }

    /// The secret of the cluster. Blocks.
    pub(crate) fn secret(&self) -> Result<ClusterSecret, NetworkError> {
        ClusterSecret::load(&self.secret_file)
    }

    /// The certificate for clients that speak TLS, if there is one. Blocks.
    pub(crate) fn tls(&self) -> Result<Option<Arc<ServerTls>>, NetworkError> {
        if self.tls_certificate.as_os_str().is_empty() {
            return Ok(None);
        }
        let tls = ServerTls::load(&self.tls_certificate, &self.tls_key)?;
        Ok(Some(Arc::new(tls)))
    }

    fn validate_bounds(&self) -> Result<(), ConfigError> {
        for (setting, value) in [
            ("gossip_interval_ms", self.gossip_interval_ms),
            ("gossip_fanout", self.gossip_fanout as u64),
            ("gossip_timeout_ms", self.gossip_timeout_ms),
            ("gossip_bytes_max", self.gossip_bytes_max as u64),
            ("lease_ms_min", self.lease_ms_min),
            ("groups_max", self.groups_max as u64),
            ("watchers_max", self.watchers_max as u64),
            ("connections_max", self.connections_max as u64),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero { setting });
            }
        }
        for (small, small_value, large, large_value) in [
            (
                "lease_ms_min",
                self.lease_ms_min,
                "lease_ms_max",
                self.lease_ms_max,
            ),
            (
                "gossip_interval_ms",
                self.gossip_interval_ms,
                "lease_ms_max",
                self.lease_ms_max,
            ),
            (
                "gossip_timeout_ms",
                self.gossip_timeout_ms,
                "fill_wait_ms",
                self.fill_wait_ms,
            ),
            (
                "gossip_bytes_max",
                self.gossip_bytes_max as u64,
                "proto::GRPC_MESSAGE_BYTES_MAX",
                proto::GRPC_MESSAGE_BYTES_MAX as u64 / 2,
            ),
        ] {
            if small_value > large_value {
                return Err(ConfigError::Order {
                    small,
                    small_value,
                    large,
                    large_value,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut NameServerConfig)) -> ConfigError {
        let mut config = NameServerConfig::default();
        change(&mut config);
        config.validate().unwrap_err()
    }

    /// Catches defaults that the rules refuse.
    #[test]
    fn the_defaults_are_valid() {
        NameServerConfig::default().validate().unwrap();
    }

    /// Catches a misspelt setting that is silently ignored, and one that is left out having no default.
    #[test]
    fn unknown_settings_are_refused_and_missing_ones_have_defaults() {
        let config: NameServerConfig = toml::from_str("listen = '127.0.0.1:1'").unwrap();
        let listen = "127.0.0.1:1".to_owned();
        assert_eq!(
            config,
            NameServerConfig {
                listen,
                ..NameServerConfig::default()
            }
        );
        let error = toml::from_str::<NameServerConfig>("lisen = '127.0.0.1:1'").unwrap_err();
        assert!(error.to_string().contains("lisen"), "{error}");
    }

    /// Catches an error that leaves the operator guessing which setting is meant.
    #[test]
    fn errors_name_the_settings() {
        let text = refused(|config| config.lease_ms_min = 200_000).to_string();
        assert_eq!(
            text,
            "lease_ms_min is 200000, more than lease_ms_max, which is 120000"
        );
        let text = refused(|config| config.fill_wait_ms = 10).to_string();
        assert!(
            text.contains("gossip_timeout_ms") && text.contains("fill_wait_ms"),
            "{text}"
        );
        assert_eq!(
            refused(|config| config.gossip_fanout = 0).to_string(),
            "gossip_fanout is 0"
        );
        let text = refused(|config| config.peers = vec!["ns1".into()]).to_string();
        assert_eq!(text, "peers is \"ns1\", which is not host:port");
        assert!(matches!(
            refused(|config| config.peers = vec!["ns1:9876".into()]),
            ConfigError::Unreachable { .. }
        ));
        assert!(matches!(
            refused(|config| config.listen = "localhost".into()),
            ConfigError::Address {
                setting: "listen",
                ..
            }
        ));
    }
}
