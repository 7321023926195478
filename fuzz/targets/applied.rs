//! Any bytes as the `applied` row, votes and memberships.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raft::fuzz::applied(data));
