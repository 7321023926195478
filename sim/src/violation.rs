//! What a world must not do, and did.

use std::fmt;

/// An invariant that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one: a short name, as in `docs/testing.md`.
    pub invariant: &'static str,
    /// Who did what.
    pub detail: String,
    /// The operations that prove it, if it was found in the history.
    pub proof: Vec<String>,
}

impl Violation {
    /// A violation without operations to prove it.
    pub fn new(invariant: &'static str, detail: impl Into<String>) -> Violation {
        Violation {
            invariant,
            detail: detail.into(),
            proof: Vec::new(),
        }
    }

    /// The same, proved by these operations.
    #[must_use]
    pub fn proved_by(mut self, operations: impl IntoIterator<Item = String>) -> Violation {
        self.proof.extend(operations);
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.invariant, self.detail)
    }
}
