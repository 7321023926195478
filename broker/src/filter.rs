//! Tag expressions: which messages of a queue a consumer asked for. Pure.

use proto::v2::{FilterExpression, FilterType};

/// Longest expression, in bytes.
const EXPRESSION_BYTES_MAX: usize = 4_096;

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// It is not a list of tags.
    #[error("filter expression {0:?} is not a list of tags separated by ||")]
    Malformed(String),
    /// It is longer than is read.
    #[error("filter expression of {0} bytes is longer than {EXPRESSION_BYTES_MAX}")]
    TooLong(usize),
    /// SQL, for now.
    #[error("filter expressions of type {0} are not supported")]
    Unsupported(&'static str),
}

/// A parsed tag expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Every message, tagged or not.
    All,
    /// Messages with one of these tags.
    Tags(Vec<String>),
}

impl Filter {
    /// Reads `*`, nothing at all, or `a || b`.
    pub(crate) fn parse(expression: Option<&FilterExpression>) -> Result<Filter, FilterError> {
        let Some(expression) = expression else {
            return Ok(Filter::All);
        };
        if expression.r#type() == FilterType::Sql {
            return Err(FilterError::Unsupported("SQL"));
        }
        let text = expression.expression.trim();
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
    pub(crate) fn accepts(&self, tag: Option<&str>) -> bool {
        match self {
            Filter::All => true,
            Filter::Tags(tags) => tag.is_some_and(|tag| tags.iter().any(|wanted| wanted == tag)),
        }
    }

    /// Whether every message is accepted, so that none needs to be looked at.
    pub(crate) fn is_all(&self) -> bool {
        matches!(self, Filter::All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(expression: &str) -> Result<Filter, FilterError> {
        Filter::parse(Some(&FilterExpression {
            r#type: FilterType::Tag.into(),
            expression: expression.to_owned(),
        }))
    }

    /// Catches a consumer that gets what it did not ask for, or misses what it did.
    #[test]
    fn tags_are_matched_as_wholes() {
        let filter = parse(" a||bb || c ").unwrap();
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
            assert!(parse(all).unwrap().accepts(None), "{all:?}");
        }
        assert!(Filter::parse(None).unwrap().is_all());
    }

    /// Catches nonsense that is taken for "nothing matches".
    #[test]
    fn malformed_expressions_are_refused() {
        for text in ["||", "a||", "a|b", "a || || b", "a\u{1}"] {
            assert!(
                matches!(parse(text), Err(FilterError::Malformed(_))),
                "{text:?}"
            );
        }
        assert!(matches!(
            parse(&"a".repeat(5_000)),
            Err(FilterError::TooLong(_))
        ));
        let sql = FilterExpression {
            r#type: FilterType::Sql.into(),
            expression: "a > 1".into(),
        };
        assert!(matches!(
            Filter::parse(Some(&sql)),
            Err(FilterError::Unsupported(_))
        ));
    }
}
