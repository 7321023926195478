//! Any bytes as the superblock.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| store::fuzz::superblock(data));
