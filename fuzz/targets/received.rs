//! Any bytes as messages as the client receives them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raftmq_client::fuzz::received(data));
