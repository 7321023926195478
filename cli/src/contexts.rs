//! Named systems: `raftmq --context prod …` in place of a list of addresses.
//!
//! One TOML file below the user's configuration directory, readable by its owner only, replaced as a
//! whole. Must never hold a secret in plain sight of others, and never guess a context that is not there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::files;

/// Where the file is, below the configuration directory.
const FILE: &str = "raftmq/contexts.toml";
/// Longest name of a context.
const NAME_LENGTH_MAX: usize = 64;

/// All contexts of this user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that is used when nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Name servers or brokers, `host:port`.
    pub seeds: Vec<String>,
    /// File of the certificates (PEM) to trust; servers are spoken to in TLS then, else in plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// Where operators are served: `admin_listen` of one broker or more, `host:port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub admin: Vec<String>,
    /// File of the cluster's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
}

impl Context {
    /// A system of which only the addresses are known.
    pub fn at(seeds: Vec<String>) -> Context {
        Context {
            seeds,
            tls_ca: None,
            admin: Vec::new(),
            secret_file: None,
        }
    }
}

/// Where the file is: `$XDG_CONFIG_HOME/raftmq/contexts.toml`, or below `~/.config`.
///
/// # Errors
///
/// If neither variable says where configurations are.
pub fn path() -> Result<PathBuf, Failure> {
    path_from(|name| std::env::var_os(name))
}

fn path_from(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Failure> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    // By the XDG rules a relative path counts as not set.
    let configured = set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let directory = configured.or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")));
    directory
        .map(|directory| directory.join(FILE))
        .ok_or_else(|| {
            let reason = "neither XDG_CONFIG_HOME nor HOME says where contexts are kept";
            Failure::Configuration(reason.to_owned())
        })
}

impl Contexts {
    /// Reads the file; no file is no contexts.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not what this program writes.
    pub fn load(path: &Path) -> Result<Contexts, Failure> {
        let wrong = |reason: String| {
            Failure::Configuration(format!("contexts file {}: {reason}", path.display()))
        };
        let text = match files::read_text(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Contexts::default()),
            Err(error) => return Err(wrong(error.to_string())),
        };
        toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))
    }

    /// Replaces the file, with mode 600.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::during(format!("writing contexts file {}", path.display()), error)
        };
        let text = toml::to_string(self).map_err(|error| failed(&error))?;
        if let Some(directory) = path.parent() {
            files::create_directories(directory).map_err(|error| failed(&error))?;
        }
        files::replace_private_text(path, &text).map_err(|error| failed(&error))
    }

    /// Adds or replaces a context; the first one becomes the current one.
    ///
    /// # Errors
    ///
    /// If the name or a seed cannot be one.
    pub fn add(&mut self, name: &str, context: Context) -> Result<(), Failure> {
        let wrong = |reason: String| Err(Failure::Configuration(reason));
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if name.is_empty() || name.len() > NAME_LENGTH_MAX || !name.chars().all(plain) {
            return wrong(format!(
                "context name {name:?}: 1 to {NAME_LENGTH_MAX} letters, digits, '-', '_' or '.'"
            ));
        }
        if let Some(seed) = context.seeds.iter().find(|seed| !is_address(seed)) {
            return wrong(format!("seed {seed:?} is not host:port"));
        }
        if let Some(admin) = context.admin.iter().find(|admin| !is_address(admin)) {
            return wrong(format!("listener for operators {admin:?} is not host:port"));
        }
        if context.seeds.is_empty() {
            return wrong(format!("context {name} needs at least one seed"));
        }
        self.contexts.insert(name.to_owned(), context);
        self.current.get_or_insert_with(|| name.to_owned());
        Ok(())
    }

    /// The context of this name.
    ///
    /// # Errors
    ///
    /// If there is none; names those there are.
    pub fn get(&self, name: &str) -> Result<&Context, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known = match known.as_slice() {
                [] => "there is none; `raftmq context add NAME --seeds HOST:PORT` makes one".into(),
                known => format!("there are {}", known.join(", ")),
            };
            Failure::NotFound(format!("no context {name:?}: {known}"))
        })
    }

    /// Makes a context the current one.
    ///
    /// # Errors
    ///
    /// As [`Contexts::get`].
    pub fn choose(&mut self, name: &str) -> Result<(), Failure> {
        self.get(name)?;
        self.current = Some(name.to_owned());
        Ok(())
    }

    /// Forgets a context; if it was the current one, there is no current one.
    ///
    /// # Errors
    ///
    /// As [`Contexts::get`].
    pub fn remove(&mut self, name: &str) -> Result<(), Failure> {
        self.get(name)?;
        self.contexts.remove(name);
        self.current.take_if(|current| current == name);
        Ok(())
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn system(seeds: &[&str]) -> Context {
        Context::at(seeds.iter().map(|seed| (*seed).to_owned()).collect())
    }

    fn seeds() -> Context {
        Context {
            tls_ca: Some("/etc/raftmq/ca.pem".into()),
            admin: vec!["10.0.0.1:7081".to_owned()],
            secret_file: Some("/home/me/secret".into()),
            ..system(&["ns1:9876", "10.0.0.2:9876"])
        }
    }

    /// Catches a file that others can read, one that is not what was added, and one torn by a rewrite.
    #[test]
    fn contexts_survive_the_file_and_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/raftmq/contexts.toml");
        let mut contexts = Contexts::load(&path).unwrap();
        assert_eq!(contexts, Contexts::default());
        contexts.add("prod", seeds()).unwrap();
        contexts.add("test", system(&["t:1"])).unwrap();
        contexts.save(&path).unwrap();
        contexts.choose("test").unwrap();
        contexts.save(&path).unwrap();
        assert_eq!(Contexts::load(&path).unwrap(), contexts);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "something was left beside the file");
    }

    /// Catches a context that stays the current one after it is gone, and a name nobody can type.
    #[test]
    fn the_current_context_exists() {
        let mut contexts = Contexts::default();
        for name in ["", "a b", "x/y"] {
            let error = contexts.add(name, seeds()).unwrap_err();
            assert!(matches!(error, Failure::Configuration(_)), "{error}");
        }
        assert!(contexts.add("prod", system(&["nowhere"])).is_err());
        assert!(contexts.add("prod", system(&[])).is_err());
        contexts.add("prod", seeds()).unwrap();
        contexts.add("test", seeds()).unwrap();
        assert_eq!(contexts.current.as_deref(), Some("prod"));
        let error = contexts.choose("tset").unwrap_err();
        assert!(matches!(error, Failure::NotFound(_)));
        assert!(error.to_string().contains("prod, test"), "{error}");
        contexts.remove("prod").unwrap();
        assert_eq!(contexts.current, None);
    }

    /// Catches a file looked for in two places, or below the working directory.
    #[test]
    fn the_file_is_below_the_configuration_directory() {
        let from = |pairs: &[(&str, &str)]| {
            path_from(|name| {
                let found = pairs.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let end = "raftmq/contexts.toml";
        let both = [("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(from(&both).unwrap(), Path::new("/x").join(end));
        let relative = [("XDG_CONFIG_HOME", "x"), ("HOME", "/h")];
        assert_eq!(from(&relative).unwrap(), Path::new("/h/.config").join(end));
        assert!(from(&[("HOME", "")]).is_err());
    }
}
