//! Bodies smaller on their way and on the disks: gzip, as all official clients read it.
//!
//! Brokers store what they get and look at no body. Never returns more than [`DECOMPRESSED_BYTES_MAX`], whatever a
//! sender claims.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Largest body that is unpacked, in bytes: a few bytes of gzip can stand for any number.
pub(crate) const DECOMPRESSED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// zlib's level, as RocketMQ's own clients have it: 1 is fastest, 9 smallest.
const LEVEL: u32 = 5;

/// The body as gzip, if that is smaller.
pub(crate) fn compress(body: &Bytes) -> Option<Bytes> {
    let packed = Vec::with_capacity(body.len() / 2);
    let mut encoder = GzEncoder::new(packed, Compression::new(LEVEL));
    let written = encoder.write_all(body).and_then(|()| encoder.finish());
    let packed = written.expect("a vector takes whatever is written");
    (packed.len() < body.len()).then(|| packed.into())
}

/// What a gzip body stands for.
///
/// # Errors
/// It is not gzip, is damaged, or too large.
pub(crate) fn decompress(body: &Bytes) -> io::Result<Bytes> {
    let mut unpacked = Vec::with_capacity(body.len().saturating_mul(2));
    let mut decoder = MultiGzDecoder::new(&body[..]).take(DECOMPRESSED_BYTES_MAX + 1);
    decoder.read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > DECOMPRESSED_BYTES_MAX {
        let text = format!("it unpacks to more than {DECOMPRESSED_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(unpacked.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Catches a body that comes back as another, and a panic on what is no gzip.
        #[test]
        fn bodies_come_back(body in proptest::collection::vec(any::<u8>(), 0..2000), times in 1usize..20) {
            let garbage = Bytes::from(body.clone());
            let _ = decompress(&garbage);
            let body = Bytes::from(body.repeat(times));
            if let Some(packed) = compress(&body) {
                prop_assert!(packed.len() < body.len());
                prop_assert_eq!(decompress(&packed).expect("gzip"), body);
            }
        }
    }

    /// Catches a reader whose memory a sender decides on.
    #[test]
    fn a_bomb_is_refused() {
        let bomb = compress(&vec![0; DECOMPRESSED_BYTES_MAX as usize + 1].into()).expect("smaller");
        assert!(bomb.len() < 100_000);
        let error = decompress(&bomb).expect_err("too large");
        assert!(error.to_string().contains("unpacks"), "{error}");
    }
}
