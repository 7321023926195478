//! Any bytes as a log record, and a segment full of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| store::fuzz::record(data));
