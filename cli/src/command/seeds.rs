//! Where a command finds the system, and what it proves to it: flags, a context, the environment, or what `raftmq dev`
//! uses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use raftmq_client::{Administration, Client, ClientTls, ClusterSecret};

use crate::contexts::{self, Context, Contexts};
use crate::failure::Failure;
use crate::files;

/// Longest wait for the first seed to answer.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Where `raftmq dev` listens.
const SEEDS_DEFAULT: &str = "127.0.0.1:9876,127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083";

/// Where its brokers serve operators; the first is also where a broker of this machine does.
const ADMIN_DEFAULT: &str = "127.0.0.1:7081,127.0.0.1:7082,127.0.0.1:7083";
/// Where `raftmq dev` keeps its secret unless told otherwise.
pub(crate) const SECRET_DEFAULT: &str = "data/secret";
/// Where a machine's servers have theirs.
const SECRET_OF_MACHINE: &str = "/etc/raftmq/secret";

/// Flags of every command that talks to servers. The first that is given counts: `--seeds`, `--context`,
/// RAFTMQ_SEEDS, RAFTMQ_CONTEXT, the context chosen by `raftmq context use`, the ports of `raftmq dev`.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Seeds {
    /// Name servers or brokers, separated by commas; any one that answers will do [env: RAFTMQ_SEEDS]
    /// [default: the current context, or the ports of `raftmq dev`]
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,…",
        conflicts_with = "context"
    )]
    seeds: Option<String>,
    /// A system by its name, see `raftmq context` [env: RAFTMQ_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Speak TLS and trust the certificates of this file (PEM) [env: RAFTMQ_TLS_CA] [default: what the
    /// context says, or plaintext]
    #[arg(long, global = true, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Where operators are served (`admin_listen`), separated by commas: any broker that answers reaches all of them
    /// [env: RAFTMQ_ADMIN] [default: what the context says, or this machine's brokers]
    #[arg(long, global = true, value_name = "HOST:PORT,…")]
    admin: Option<String>,
    /// File with the cluster's secret, which administration needs [env: RAFTMQ_SECRET_FILE] [default: what the context
    /// says, or data/secret of `raftmq dev`, or /etc/raftmq/secret]
    #[arg(long, global = true, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl Seeds {
    /// A client that knows the system.
    ///
    /// # Errors
    ///
    /// If no seed answers, or one is no address.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        self.client_within(START_TIMEOUT).await
    }

    /// The same, for a command that is told to wait: it waits so long for the first seed to answer, if that is longer than
    /// others wait.
    pub(crate) async fn client_within(&self, wait: Duration) -> Result<Client, Failure> {
        let system = self.system()?;
        let mut builder = Client::builder()
            .administration(administration(&system)?)
            .seeds(system.seeds)
            .start_timeout(wait.max(START_TIMEOUT));
        if let Some(path) = system.tls_ca {
            let pem = files::read_bytes(&path).map_err(|error| {
                Failure::Configuration(format!("certificates {}: {error}", path.display()))
            })?;
            builder = builder.tls(ClientTls::new().roots_pem(pem));
        }
        builder.build().await.map_err(Failure::from)
    }

    /// The system that is meant.
    ///
    /// # Errors
    ///
    /// If a context is named that does not exist, or the file of contexts cannot be read.
    pub(crate) fn system(&self) -> Result<Context, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let system = self.resolve(variable, || Contexts::load(&contexts::path()?))?;
        let by_variable = || variable("RAFTMQ_TLS_CA").map(PathBuf::from);
        let tls_ca = self.tls_ca.clone().or(system.tls_ca).or_else(by_variable);
        let by_variable = || variable("RAFTMQ_SECRET_FILE").map(PathBuf::from);
        let secret_file = self.secret_file.clone().or(system.secret_file);
        let secret_file = secret_file.or_else(by_variable);
        let admin = match (&self.admin, variable("RAFTMQ_ADMIN")) {
            (Some(admin), _) => split(admin),
            (None, Some(admin)) if system.admin.is_empty() => split(&admin),
            (None, _) => system.admin,
        };
        Ok(Context {
            seeds: system.seeds,
            tls_ca,
            admin,
            secret_file,
        })
    }

    fn resolve(
        &self,
        variable: impl Fn(&str) -> Option<String>,
        contexts: impl Fn() -> Result<Contexts, Failure>,
    ) -> Result<Context, Failure> {
        if let Some(seeds) = &self.seeds {
            return Ok(Context::at(split(seeds)));
        }
        if let Some(name) = &self.context {
            return contexts()?.get(name).cloned();
        }
        if let Some(seeds) = variable("RAFTMQ_SEEDS") {
            return Ok(Context::at(split(&seeds)));
        }
        if let Some(name) = variable("RAFTMQ_CONTEXT") {
            return contexts()?.get(&name).cloned();
        }
        // Without a home directory there are no contexts, which is no trouble when none was asked for.
        let contexts = match contexts::path() {
            Ok(_) => contexts()?,
            Err(_) => Contexts::default(),
        };
        match &contexts.current {
            Some(name) => contexts.get(name).cloned(),
            None => Ok(Context::at(split(SEEDS_DEFAULT))),
        }
    }
}

fn split(addresses: &str) -> Vec<String> {
    let addresses = addresses.split([',', ';']).map(str::trim);
    let addresses = addresses.filter(|address| !address.is_empty());
    addresses.map(str::to_owned).collect()
}

/// What a command proves with. A secret that was named must be one; without any, a command that only sends or reads does
/// not miss it.
fn administration(system: &Context) -> Result<Option<Administration>, Failure> {
    let secret = match &system.secret_file {
        Some(path) => Some(
            ClusterSecret::load(path).map_err(|error| Failure::Configuration(error.to_string()))?,
        ),
        None => {
            let usual = [SECRET_DEFAULT, SECRET_OF_MACHINE].map(Path::new);
            usual
                .into_iter()
                .find_map(|path| ClusterSecret::load(path).ok())
        }
    };
    let endpoints = match system.admin.as_slice() {
        [] => split(ADMIN_DEFAULT),
        admin => admin.to_vec(),
    };
    Ok(secret.map(|secret| Administration::new(secret).endpoints(endpoints)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(flags: &Seeds, environment: &[(&str, &str)], current: bool) -> Vec<String> {
        let contexts = || {
            let mut contexts = Contexts::default();
            for name in ["one", "two"] {
                let context = Context::at(split(&format!("{name}:1")));
                contexts.add(name, context).unwrap();
            }
            contexts.current.take_if(|_| !current);
            Ok(contexts)
        };
        let variable = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        flags.resolve(variable, contexts).unwrap().seeds
    }

    /// Catches a command that talks to another system than the one that was named.
    #[test]
    fn the_more_explicit_word_counts() {
        let none = Seeds::default();
        let seeds = Seeds {
            seeds: Some("a:1, b:2".to_owned()),
            ..Seeds::default()
        };
        let context = Seeds {
            context: Some("two".to_owned()),
            ..Seeds::default()
        };
        let environment = [("RAFTMQ_SEEDS", "e:1"), ("RAFTMQ_CONTEXT", "two")];
        assert_eq!(resolved(&seeds, &environment, true), ["a:1", "b:2"]);
        assert_eq!(resolved(&context, &environment, true), ["two:1"]);
        assert_eq!(resolved(&none, &environment, true), ["e:1"]);
        assert_eq!(resolved(&none, &environment[1..], true), ["two:1"]);
        assert_eq!(resolved(&none, &[], true), ["one:1"]);
        assert_eq!(resolved(&none, &[], false), split(SEEDS_DEFAULT));
    }

    /// Catches a misspelt context that silently means another system.
    #[test]
    fn an_unknown_context_is_an_error() {
        let flags = Seeds {
            context: Some("prd".to_owned()),
            ..Seeds::default()
        };
        let error = flags.resolve(|_| None, || Ok(Contexts::default()));
        assert!(matches!(error, Err(Failure::NotFound(_))), "{error:?}");
    }
}
