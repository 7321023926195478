//! Any bytes as the file `synced`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| store::fuzz::mark(data));
