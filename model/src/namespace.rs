//! Namespaces: a namespace is part of the name under which a topic or a consumer group is stored, `namespace%name`.
//!
//! So nothing else has to know of namespaces. Checks nothing: see [`TopicName`](crate::TopicName).

use std::borrow::Cow;

use crate::dead_letter;

/// The stored name of what a client calls `name` in `namespace`; without a namespace, the name.
pub fn qualified<'a>(namespace: &str, name: &'a str) -> Cow<'a, str> {
    // A name that is wrong by itself must not become right by its namespace.
    if namespace.is_empty() || name.is_empty() {
        return Cow::Borrowed(name);
    }
    Cow::Owned(match dead_letter::group_of(name) {
        // The namespace is the group's.
        Some(group) => dead_letter::topic_of(&format!("{namespace}%{group}")),
        None => format!("{namespace}%{name}"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Catches a name that is wrong and becomes right, and dead letters of another namespace's group.
    #[test]
    fn a_namespace_is_put_before_the_name() {
        assert_eq!(qualified("", "orders"), "orders");
        assert_eq!(qualified("shop", "orders"), "shop%orders");
        assert_eq!(qualified("shop", ""), "");
        assert_eq!(qualified("shop", "%DLQ%readers"), "%DLQ%shop%readers");
        assert_eq!(qualified("", "%DLQ%readers"), "%DLQ%readers");
    }

    proptest! {
        /// Catches two namespaces that share a topic, and a group whose dead letters nobody finds.
        #[test]
        fn namespaces_are_kept_apart(
            one in "[a-z]{1,8}", other in "[a-z]{1,8}", name in "[a-zA-Z0-9_-]{1,20}",
        ) {
            prop_assert_eq!(one == other, qualified(&one, &name) == qualified(&other, &name));
            prop_assert_ne!(qualified(&one, &name), qualified("", &name));
            let of_group = dead_letter::topic_of(&qualified(&one, &name));
            let letters = dead_letter::topic_of(&name);
            prop_assert_eq!(of_group, qualified(&one, &letters));
        }
    }
}
