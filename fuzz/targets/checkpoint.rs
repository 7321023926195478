//! Any bytes as a checkpoint's META, which may come from a peer: no file of it leads elsewhere.
#![no_main]

use std::path::Path;

use bytes::Bytes;
use store::CheckpointMeta;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = CheckpointMeta::decode(Bytes::copy_from_slice(data));
    let bytes = with_checksum(data);
    let Ok(meta) = CheckpointMeta::decode(bytes.clone()) else {
        return;
    };
    assert_eq!(meta.encode(), bytes);
    assert!(meta.log_id.index < u64::MAX, "an index without a next one");
    let dir = Path::new("/tables");
    for file in &meta.files {
        assert_eq!(dir.join(&file.name).parent(), Some(dir));
        assert!(!["", ".", ".."].contains(&&*file.name));
    }
});

fn with_checksum(data: &[u8]) -> Bytes {
    let crc32c = |bytes: &[u8]| {
        bytes.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                crc >> 1 ^ (crc & 1) * 0x82f6_3b78
            })
        })
    };
    let mut bytes = [b"RMQCKPT1", data].concat();
    let checksum = !crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_be_bytes());
    bytes.into()
}
