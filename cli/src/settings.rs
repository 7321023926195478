//! Reads a configuration file and lays flags over it.
//!
//! Whatever is wrong with a configuration is told in one line that names the file and the key.
//! Must never start anything, and never guess what a wrong value may have meant.

mod documented;

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::files;

pub use documented::{Documented, SettingFlags, print};

/// Keys and values that replace the file's: flags and environment variables.
#[derive(Default)]
pub struct Overrides(toml::Table);

impl Overrides {
    /// Replaces `key` if the flag was given.
    pub fn set(&mut self, key: &str, value: Option<impl Into<toml::Value>>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value.into());
        }
    }
}

/// Reads `path`, lays `overrides` over it, and requires every key to be known and every value to fit.
pub fn load<T: DeserializeOwned>(path: &Path, overrides: Overrides) -> Result<T, Failure> {
    let text = files::read_text(path)
        .map_err(|error| Failure::Configuration(format!("{}: {error}", path.display())))?;
    from_text(&text, &path.display().to_string(), overrides)
}

/// The same for a text that came from `source`.
pub fn from_text<T: DeserializeOwned>(
    text: &str,
    source: &str,
    overrides: Overrides,
) -> Result<T, Failure> {
    parse(text, overrides).map_err(|detail| Failure::Configuration(format!("{source}: {detail}")))
}

fn parse<T: DeserializeOwned>(text: &str, overrides: Overrides) -> Result<T, String> {
    let mut table: toml::Table = toml::from_str(text).map_err(|error| syntax(text, &error))?;
    table.extend(overrides.0);
    serde_path_to_error::deserialize(table).map_err(|error| {
        let path = error.path().to_string();
        let message = one_line(error.inner().message());
        unknown_key(&path, &message).unwrap_or_else(|| {
            if path == "." {
                message
            } else {
                format!("key `{path}`: {message}")
            }
        })
    })
}

/// serde names an unknown key and lists every known one; the reader wants the one that was meant.
fn unknown_key(path: &str, message: &str) -> Option<String> {
    let mut names = message
        .strip_prefix("unknown field ")?
        .split('`')
        .skip(1)
        .step_by(2);
    let key = names.next()?;
    let place = path
        .rsplit_once('.')
        .map_or(String::new(), |(place, _)| format!(" in `{place}`"));
    let nearest = names.min_by_key(|known| distance(key, known))?;
    Some(format!(
        "unknown key `{key}`{place}, did you mean `{nearest}`?"
    ))
}

/// Letters to add, take away or change to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (place, letter) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], place + 1);
        for (column, other) in to.bytes().enumerate() {
            let changed = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

fn syntax(text: &str, error: &toml::de::Error) -> String {
    let message = one_line(error.message());
    match error.span() {
        Some(span) => {
            let before = &text[..span.start.min(text.len())];
            let line = before.matches('\n').count() + 1;
            let start = before.rfind('\n').map_or(0, |end| end + 1);
            let written = text[start..].lines().next().unwrap_or("").trim();
            format!("line {line}: `{written}`: {message}")
        }
        None => message,
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{Overrides, parse};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        port: u16,
        #[serde(default)]
        members: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        broker_id: u64,
    }

    fn error(text: &str) -> String {
        parse::<Sample>(text, Overrides::default()).expect_err("the sample is wrong")
    }

    /// Catches messages that leave the reader to search for the key.
    #[test]
    fn every_mistake_is_one_line_that_names_its_key() {
        assert_eq!(
            error("port = 1\nprot = 2"),
            "unknown key `prot`, did you mean `port`?"
        );
        let nested = error("port = 1\n[[members]]\nbroker = 1");
        assert!(nested.contains("`broker` in `members[0]`"), "{nested}");
        assert!(error("port = \"x\"").contains("`port`"));
        assert!(error("port = 99999").contains("`port`"));
        assert!(error("port = 1\n[[members]]\nbroker_id = -1").contains("members[0].broker_id"));
        assert!(error("port = 1\nmembers = [\n").contains("line"));
        assert!(error("port = 1\nport = 2").contains("`port"));
        assert!(error("").contains("`port`"));
        for text in [
            "port = \"x\"",
            "port 1",
            "port = 1\nprot = 2",
            "=",
            "members = 3",
        ] {
            assert!(!error(text).contains('\n'), "{text}: more than one line");
        }
    }

    /// Catches a flag that is read and then forgotten.
    #[test]
    fn a_flag_replaces_the_files_value() {
        let mut overrides = Overrides::default();
        overrides.set("port", Some(7_i64));
        overrides.set("absent", None::<String>);
        let text = "port = 1\n[[members]]\nbroker_id = 3";
        let sample: Sample = parse(text, overrides).expect("both are valid");
        assert_eq!((sample.port, sample.members[0].broker_id), (7, 3));
    }
}
