//! Where messages begin and end in a stream of gRPC's bytes.

/// A flag, and the length in four bytes.
const PREFIX_BYTES: usize = 5;

/// How far a stream has come.
#[derive(Debug, Default)]
pub(super) struct Framing {
    prefix: [u8; PREFIX_BYTES],
    prefix_read: usize,
    missing: u64,
}

impl Framing {
    /// Takes the next bytes; answers with the length of all messages that begin in them, prefixes included.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0;
        loop {
            let of_message = self.missing.min(bytes.len() as u64);
            self.missing -= of_message;
            bytes = &bytes[of_message as usize..];
            if bytes.is_empty() {
                return begun;
            }
            let of_prefix = (PREFIX_BYTES - self.prefix_read).min(bytes.len());
            let (taken, rest) = bytes.split_at(of_prefix);
            self.prefix[self.prefix_read..][..of_prefix].copy_from_slice(taken);
            self.prefix_read += of_prefix;
            bytes = rest;
            if self.prefix_read == PREFIX_BYTES {
                let [_, a, b, c, d] = self.prefix;
                self.missing = u32::from_be_bytes([a, b, c, d]).into();
                self.prefix_read = 0;
                begun += self.missing + PREFIX_BYTES as u64;
            }
        }
    }

    /// Whether nothing of a message came that did not come whole.
    pub(super) fn is_between(&self) -> bool {
        self.missing == 0 && self.prefix_read == 0
    }

    /// Bytes that are still to come of the message that began last.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.resize(PREFIX_BYTES + length, 7);
        bytes
    }

    /// Catches a length that is taken from the middle of a message, wherever the bytes are cut.
    #[test]
    fn messages_are_found_wherever_the_bytes_are_cut() {
        let stream = [message(3), message(0), message(300)].concat();
        for cut in 1..stream.len() {
            let mut framing = Framing::default();
            let begun: u64 = stream.chunks(cut).map(|bytes| framing.take(bytes)).sum();
            assert_eq!(
                (begun, framing.missing()),
                (stream.len() as u64, 0),
                "{cut}"
            );
        }
        let mut framing = Framing::default();
        assert_eq!(framing.take(&stream[..4]), 0);
        assert_eq!(framing.take(&stream[4..6]), 8);
        assert_eq!(framing.missing(), 2);
    }
}
