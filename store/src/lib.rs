//! Bytes: the segmented commit log, the superblock beside it, and the tables derived from it.
//!
//! The log is the truth; the tables can be rebuilt from a checkpoint and the entries after it. This crate knows
//! neither what a vote means nor what a message is.

mod error;

pub use error::{Result, StoreError};
