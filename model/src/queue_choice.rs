//! Which queue a message group belongs to.
//!
//! SipHash-2-4 with the key bytes 00 to 0f, as most official clients have it, modulo the number of queues. Clients in different
//! languages hash differently, so the broker chooses again and its choice counts; a client that chooses alike keeps a group's
//! messages in one line until they are sent.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::QueueId;

const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The hash of a message group.
pub fn hash(message_group: &str) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&KEY);
    hasher.write(message_group.as_bytes());
    hasher.finish()
}

/// Which of `count` queues a group of this hash has, from 0; the first where there is none.
pub fn of_group(hash: u64, count: u32) -> QueueId {
    (hash % u64::from(count.max(1))) as QueueId
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Catches another hash or key: groups would then be in one line at a client and in another at the broker.
    /// The values are those of the reference implementation's test vectors (input 00, 01, … of length 0, 1 and 7).
    #[test]
    fn the_hash_is_siphash_2_4_with_the_known_key() {
        assert_eq!(hash(""), 0x726f_db47_dd0e_0e31);
        assert_eq!(hash("\u{0}"), 0x74f8_39c5_93dc_67fd);
        assert_eq!(
            hash("\u{0}\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}"),
            0xab02_00f5_8b01_d137
        );
    }

    proptest! {
        /// Catches a queue that the topic does not have.
        #[test]
        fn a_queue_of_the_topic_is_chosen(group in ".{1,63}", count in 0_u32..2_000) {
            prop_assert!(of_group(hash(&group), count) < count.max(1));
        }
    }
}
