//! Any bytes as what replicas say to each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raft::fuzz::wire(data));
