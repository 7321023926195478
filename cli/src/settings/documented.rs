//! A configuration struct as people meet it: a flag, a variable and a paragraph for each of its keys.
//!
//! The paragraphs are the comments of the struct's own fields, so that code, `--help` and
//! `--print-config` cannot say different things.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Overrides;
use crate::failure::Failure;

/// Columns of the comments that `--print-config` writes.
const COMMENT_WIDTH: usize = 98;

/// A configuration that has a source to describe it.
pub trait Documented: Serialize + DeserializeOwned + Default + Send + Sync + 'static {
    /// The struct's name.
    const NAME: &'static str;
    /// The file that defines it.
    const SOURCE: &'static str;

    /// A rule that does not hold: the key, what is expected of it, what it is.
    ///
    /// # Errors
    ///
    /// The first one.
    fn check(&self) -> Result<(), String>;
}

impl Documented for broker::BrokerConfig {
    const NAME: &'static str = "BrokerConfig";
    const SOURCE: &'static str = broker::CONFIG_SOURCE;

    fn check(&self) -> Result<(), String> {
        self.validate().map_err(|error| error.to_string())
    }
}

impl Documented for nameserver::NameServerConfig {
    const NAME: &'static str = "NameServerConfig";
    const SOURCE: &'static str = nameserver::CONFIG_SOURCE;

    fn check(&self) -> Result<(), String> {
        self.validate().map_err(|error| error.to_string())
    }
}

/// One key: its name, its paragraph.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    key: String,
    text: String,
}

/// The keys of a configuration, in the order in which its struct has them.
fn settings<T: Documented>() -> Vec<Setting> {
    let opening = format!("pub struct {} {{", T::NAME);
    let mut lines = T::SOURCE.lines();
    lines.find(|line| *line == opening);
    let mut settings = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    for line in lines.take_while(|line| *line != "}").map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            words.extend(comment.split_whitespace());
        } else if let Some((key, _)) = line
            .strip_prefix("pub ")
            .and_then(|field| field.split_once(':'))
        {
            settings.push(Setting {
                key: key.to_owned(),
                text: words.join(" "),
            });
            words.clear();
        }
    }
    settings
}

fn flag(key: &str) -> String {
    key.replace('_', "-")
}

fn variable(key: &str) -> String {
    format!("RAFTMQ_{}", key.to_uppercase())
}

/// A configuration as TOML.
fn table<T: Serialize>(config: &T) -> Result<toml::Table, Failure> {
    toml::Table::try_from(config)
        .map_err(|error| Failure::during("writing the configuration as TOML", error))
}

/// The configuration as a file: each key under its paragraph, those that have their default commented out.
///
/// # Errors
///
/// If it has no TOML form.
pub fn print<T: Documented>(config: &T) -> Result<String, Failure> {
    let (values, defaults) = (table(config)?, table(&T::default())?);
    let mut text = String::new();
    for Setting {
        key,
        text: paragraph,
    } in settings::<T>()
    {
        for line in wrapped(&paragraph.replace('`', "")) {
            text.push_str(&format!("# {line}\n"));
        }
        match values.get(&key) {
            None => text.push_str(&format!("# {key} is not set\n\n")),
            Some(value) if defaults.get(&key) == Some(value) => {
                text.push_str(&format!("# {key} = {value}\n\n"));
            }
            Some(value) => text.push_str(&format!("{key} = {value}\n\n")),
        }
    }
    Ok(text.trim_end().to_owned())
}

fn wrapped(paragraph: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in paragraph.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= COMMENT_WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// What flags and environment variables say about the keys of `T`.
pub struct SettingFlags<T> {
    given: BTreeMap<String, String>,
    config: PhantomData<fn() -> T>,
}

impl<T> Clone for SettingFlags<T> {
    fn clone(&self) -> SettingFlags<T> {
        SettingFlags {
            given: self.given.clone(),
            config: PhantomData,
        }
    }
}

impl<T> fmt::Debug for SettingFlags<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.given.fmt(formatter)
    }
}

impl<T: Documented> SettingFlags<T> {
    /// The given values as they replace those of a file.
    ///
    /// # Errors
    ///
    /// Names the flag and the variable of a value that cannot be read.
    pub fn overrides(&self) -> Result<Overrides, Failure> {
        let defaults = table(&T::default())?;
        let mut overrides = Overrides::default();
        for (key, text) in &self.given {
            let value = read(text, defaults.get(key)).map_err(|expected| {
                Failure::Configuration(format!(
                    "--{} ({}) is {text:?}, expected {expected}",
                    flag(key),
                    variable(key)
                ))
            })?;
            overrides.set(key, Some(value));
        }
        Ok(overrides)
    }
}

/// Reads a value of the kind that the default has; else what was expected.
fn read(text: &str, default: Option<&toml::Value>) -> Result<toml::Value, String> {
    use toml::Value;
    match default {
        Some(Value::Integer(_)) => match text.parse::<i64>() {
            Ok(number) => Ok(Value::Integer(number)),
            Err(_) => Err("a number".to_owned()),
        },
        Some(Value::Boolean(_)) => match text.parse::<bool>() {
            Ok(yes) => Ok(Value::Boolean(yes)),
            Err(_) => Err("true or false".to_owned()),
        },
        Some(Value::Array(_)) if text.trim_start().starts_with('[') => {
            in_toml(text).ok_or_else(|| "a list as in TOML".to_owned())
        }
        Some(Value::Table(_)) => in_toml(text).ok_or_else(|| "a table as in TOML".to_owned()),
        Some(Value::Array(_)) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Ok(Value::Array(
                items.map(|item| Value::String(item.to_owned())).collect(),
            ))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// A value as it stands behind a key of a file.
fn in_toml(text: &str) -> Option<toml::Value> {
    let table: Result<toml::Table, _> = toml::from_str(&format!("value = {text}"));
    table.ok()?.remove("value")
}

impl<T: Documented> FromArgMatches for SettingFlags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SettingFlags<T>, clap::Error> {
        let given = settings::<T>().into_iter().filter_map(|setting| {
            let value = matches.get_one::<String>(&setting.key)?.clone();
            Some((setting.key, value))
        });
        Ok(SettingFlags {
            given: given.collect(),
            config: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SettingFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<T: Documented> Args for SettingFlags<T> {
    fn augment_args(command: Command) -> Command {
        let defaults = table(&T::default()).unwrap_or_default();
        let args = settings::<T>().into_iter().map(|setting| {
            let kind = match defaults.get(&setting.key) {
                Some(toml::Value::Integer(_)) => "NUMBER",
                Some(toml::Value::Boolean(_)) => "BOOL",
                Some(toml::Value::Array(_)) => "LIST",
                _ => "TEXT",
            };
            Arg::new(setting.key.clone())
                .long(flag(&setting.key))
                .env(variable(&setting.key))
                .hide_env_values(true)
                .value_name(kind)
                .allow_hyphen_values(true)
                .help(setting.text.replace('`', ""))
                .help_heading("Settings, each also a key of the file and an environment variable")
        });
        command.args(args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use broker::BrokerConfig;
    use nameserver::NameServerConfig;

    use super::*;

    fn undocumented<T: Documented>() -> Vec<String> {
        let known = settings::<T>();
        let keys = table(&T::default()).unwrap();
        let undescribed = keys.keys().filter(|key| {
            let setting = known.iter().find(|setting| setting.key == **key);
            setting.is_none_or(|setting| setting.text.is_empty())
        });
        undescribed.cloned().collect()
    }

    /// Catches a key without a flag, a variable or a word about what it does.
    #[test]
    fn every_key_is_described() {
        assert_eq!(undocumented::<BrokerConfig>(), Vec::<String>::new());
        assert_eq!(undocumented::<NameServerConfig>(), Vec::<String>::new());
    }

    /// Catches a printed file that means another configuration, or in which a default looks chosen.
    #[test]
    fn a_printed_configuration_means_the_same() {
        let defaults = print(&BrokerConfig::default()).unwrap();
        assert!(
            defaults
                .lines()
                .all(|line| line.is_empty() || line.starts_with("# "))
        );
        let member = broker::MemberConfig {
            broker_id: 3,
            client_address: "a:1".to_owned(),
            peer_address: "a:2".to_owned(),
        };
        let config = BrokerConfig {
            broker_id: 3,
            members: vec![member],
            name_servers: vec!["n:1".to_owned()],
            ..BrokerConfig::default()
        };
        let text = print(&config).unwrap();
        assert_eq!(toml::from_str::<BrokerConfig>(&text).unwrap(), config);
        assert!(text.lines().any(|line| line == "broker_id = 3"), "{text}");
        assert!(
            text.lines()
                .any(|line| line.starts_with("# segment_bytes = ")),
            "{text}"
        );
    }

    fn parsed(words: &[&str]) -> Result<BrokerConfig, Failure> {
        let command = SettingFlags::<BrokerConfig>::augment_args(Command::new("x"));
        let matches = command
            .try_get_matches_from([&["x"], words].concat())
            .unwrap();
        let flags = SettingFlags::<BrokerConfig>::from_arg_matches(&matches).unwrap();
        super::super::from_text("", "the command line", flags.overrides()?)
    }

    /// Catches a flag that is read as another kind than its key has.
    #[test]
    fn every_kind_of_key_can_be_given_as_a_flag() {
        let words = [
            "--broker-id",
            "7",
            "--auto-create-topics",
            "true",
            "--name-servers",
            "a:1, b:2",
            "--data-dir",
            "/d",
            "--members",
            "[{broker_id = 7, client_address = 'c:1', peer_address = 'c:2'}]",
        ];
        let config = parsed(&words).unwrap();
        assert_eq!((config.broker_id, config.auto_create_topics), (7, true));
        assert_eq!(config.name_servers, ["a:1", "b:2"]);
        assert_eq!(config.members[0].client_address, "c:1");
        let error = parsed(&["--segment-bytes", "many"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--segment-bytes (RAFTMQ_SEGMENT_BYTES)"),
            "{error}"
        );
        let error = parsed(&["--members", "[{broker = 7}]"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("`broker`"), "{error}");
    }
}
