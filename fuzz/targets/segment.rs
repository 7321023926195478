//! Any bytes as a segment's header and its index file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| store::fuzz::segment(data));
