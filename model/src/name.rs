//! Names of topics and groups: checked once, where they come in, and trusted afterwards.

use std::fmt;
use std::sync::Arc;

/// Longest name of a topic, in bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 127;
/// Longest name of a consumer group, in bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 120;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing in it.
    #[error("{kind} name is empty")]
    Empty {
        /// "topic" or "group".
        kind: &'static str,
    },
    /// It has more than `max` bytes.
    #[error("{kind} name has {length} bytes, more than {max}")]
    TooLong {
        /// "topic" or "group".
        kind: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// It has a character that names may not have.
    #[error(
        "{kind} name has the character {character:?} at byte {position}; \
         allowed are letters, digits, '_', '-', '%' and '|'"
    )]
    Character {
        /// "topic" or "group".
        kind: &'static str,
        /// The first character that is not allowed.
        character: char,
        /// Where it stands.
        position: usize,
    },
}

fn check(kind: &'static str, max: usize, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if name.len() > max {
        return Err(NameError::TooLong {
            kind,
            length: name.len(),
            max,
        });
    }
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "%|_-".contains(letter);
    match name
        .char_indices()
        .find(|(_, character)| !allowed(*character))
    {
        Some((position, character)) => Err(NameError::Character {
            kind,
            character,
            position,
        }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$docs:meta])* $name:ident, $kind:literal, $max:ident) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a name that keeps the rules.
            ///
            /// # Errors
            /// Says which rule the text breaks.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check($kind, $max, &name)?;
                Ok(Self(name.into()))
            }

            /// Checks a text without keeping it.
            ///
            /// # Errors
            /// Says which rule the text breaks.
            pub fn check(name: &str) -> Result<(), NameError> {
                check($kind, $max, name)
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, formatter)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// Name of a topic: 1 to 127 letters, digits, `_`, `-`, `%`, `|`. Cheap to clone.
    TopicName,
    "topic",
    TOPIC_NAME_BYTES_MAX
);
name!(
    /// Name of a consumer group: 1 to 120 letters, digits, `_`, `-`, `%`, `|`. Cheap to clone.
    GroupName,
    "group",
    GROUP_NAME_BYTES_MAX
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_rules_allow_up_to_the_limit() {
        assert_eq!(
            TopicName::new("%RETRY%a|b_c-9").unwrap().as_str(),
            "%RETRY%a|b_c-9"
        );
        assert!(TopicName::new("t".repeat(127)).is_ok());
        assert!(GroupName::new("g".repeat(120)).is_ok());
    }

    #[test]
    fn says_which_rule_is_broken() {
        let refused = |name: &str| TopicName::new(name).unwrap_err().to_string();
        assert_eq!(refused(""), "topic name is empty");
        assert_eq!(
            refused(&"t".repeat(128)),
            "topic name has 128 bytes, more than 127"
        );
        assert!(refused("a b").starts_with("topic name has the character ' ' at byte 1"));
        assert!(refused("aé").contains("'é' at byte 1"));
        assert_eq!(
            GroupName::new("g".repeat(121)).unwrap_err(),
            NameError::TooLong {
                kind: "group",
                length: 121,
                max: 120
            }
        );
    }
}
