//! The ceiling: how fast three bare processes can do the one thing that a broker group cannot avoid.
//!
//! A client streams blocks over plain TCP to a first process, which passes them on to two others;
//! each appends them to a file and syncs it; a block counts when two of the three have synced it.
//! No consensus, no encoding, no checksums. What is measured here in the same run stands beside the
//! broker group's own figures, because absolute figures of a shared machine mean little.
//!
//! The files grow, as a log does: fresh pages and fresh blocks for every byte. Overwriting a file that
//! the page cache holds already is faster, and no log can do it; see [`Writing`] and the disk's figures.
//!
//! Everything is made of byte positions in one stream: a node says how far it has synced, the first
//! node says how far two of three have. Threads and blocking sockets on purpose: nothing of the
//! product may slow the measure of the product.

mod client;
mod disk;
mod file;
mod node;
mod wire;

pub use client::{Ceiling, CeilingLoad};
pub use disk::{DiskFigures, Writing, measure_disk};
pub use node::{NodeArguments, run_node};
