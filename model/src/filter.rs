//! Tag expressions: which messages of a queue a consumer asked for.

/// Longest expression, in bytes.
const EXPRESSION_BYTES_MAX: usize = 4_096;

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It is not a list of tags.
    #[error("filter expression {0:?} is not a list of tags separated by ||")]
    Malformed(String),
    /// It is longer than is read.
    #[error("filter expression of {0} bytes is longer than {EXPRESSION_BYTES_MAX}")]
    TooLong(usize),
}

/// A parsed tag expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Every message, tagged or not.
    All,
    /// Messages with one of these tags.
    Tags(Vec<String>),
}

impl Filter {
    /// Reads `*`, nothing at all, or `a || b`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn of_tags(expression: &str) -> Result<Filter, FilterError> {
        let text = expression.trim();
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(FilterError::TooLong(text.len()));
        }
        if text.is_empty() || text == "*" {
            return Ok(Filter::All);
        }
        let mut tags = Vec::new();
        for tag in text.split("||").map(str::trim) {
            if tag.is_empty() || tag.contains('|') || tag.chars().any(char::is_control) {
                return Err(FilterError::Malformed(text.to_owned()));
            }
            if tag == "*" {
                return Ok(Filter::All);
            }
            tags.push(tag.to_owned());
        }
        Ok(Filter::Tags(tags))
    }

    /// Whether a message with this tag was asked for.
    pub fn accepts(&self, tag: Option<&str>) -> bool {
        match self {
            Filter::All => true,
            Filter::Tags(tags) => tag.is_some_and(|tag| tags.iter().any(|wanted| wanted == tag)),
        }
    }

    /// Whether every message is accepted, so that none needs to be looked at.
    pub fn is_all(&self) -> bool {
        matches!(self, Filter::All)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Catches a consumer that gets what it did not ask for, or misses what it did.
    #[test]
    fn tags_are_matched_as_wholes() {
        let filter = Filter::of_tags(" a||bb || c ").unwrap();
        for (tag, wanted) in [
            (Some("a"), true),
            (Some("bb"), true),
            (Some("b"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(filter.accepts(tag), wanted, "{tag:?}");
        }
        for all in ["", " ", "*", "a || *"] {
            let filter = Filter::of_tags(all).unwrap();
            assert!(filter.accepts(None) && filter.is_all(), "{all:?}");
        }
    }

    /// Catches nonsense that is taken for "nothing matches".
    #[test]
    fn malformed_expressions_are_refused() {
        for text in ["||", "a||", "a|b", "a || || b", "a\u{1}"] {
            let refused = Filter::of_tags(text);
            assert_eq!(
                refused,
                Err(FilterError::Malformed(text.to_owned())),
                "{text:?}"
            );
        }
        let long = "a".repeat(EXPRESSION_BYTES_MAX + 1);
        assert_eq!(
            Filter::of_tags(&long),
            Err(FilterError::TooLong(long.len()))
        );
    }

    proptest! {
        /// Catches a tag that may be sent and cannot be asked for, and one that is found by another's name.
        #[test]
        fn every_tag_can_be_asked_for(tags in proptest::collection::vec("[a-zA-Z0-9 _#$-]{1,12}", 1..6), other in "[a-z]{1,12}") {
            let tags: Vec<&str> = tags.iter().map(|tag| tag.trim()).filter(|tag| !tag.is_empty()).collect();
            prop_assume!(!tags.is_empty());
            prop_assert!(tags.iter().all(|tag| crate::message::check_tag(tag).is_ok()));
            let filter = Filter::of_tags(&tags.join(" || ")).unwrap();
            prop_assert!(tags.iter().all(|tag| filter.accepts(Some(tag))));
            prop_assert_eq!(filter.accepts(Some(&*other)), tags.contains(&&*other));
            prop_assert!(!filter.accepts(None));
        }
    }
}
