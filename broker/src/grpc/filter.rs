//! Filter expressions as clients send them. The rules are `model`'s. Pure.

use model::Filter;
use proto::v2::{Code, FilterExpression, FilterType};

use super::status::{Refusal, not_implemented};

/// The filter of an expression; without one, everything.
pub(super) fn filter(expression: Option<&FilterExpression>) -> Result<Filter, Refusal> {
    let Some(expression) = expression else {
        return Ok(Filter::All);
    };
    if expression.r#type() == FilterType::Sql {
        return Err(not_implemented("a filter expression of type SQL"));
    }
    let filter = Filter::of_tags(&expression.expression);
    filter.map_err(|error| Refusal::new(Code::IllegalFilterExpression, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an expression that is ignored, and one whose refusal does not say what is wrong with it.
    #[test]
    fn an_expression_is_read_or_refused() {
        let read = |kind: FilterType, expression: &str| {
            let refused = filter(Some(&FilterExpression {
                r#type: kind.into(),
                expression: expression.to_owned(),
            }));
            refused.map_err(|refusal| refusal.code)
        };
        assert_eq!(filter(None), Ok(Filter::All));
        let tags = Filter::Tags(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(read(FilterType::Tag, "a || b"), Ok(tags));
        let illegal = Err(Code::IllegalFilterExpression);
        assert_eq!(read(FilterType::Tag, "a |"), illegal);
        assert_eq!(read(FilterType::Sql, "a > 1"), Err(Code::NotImplemented));
    }
}
