//! Message ids of version 1, and a number for every id.
//!
//! An id of version 1 is 17 bytes written as 34 upper-case hexadecimal digits: 0x01, 6 bytes for the
//! machine, 2 for the process, 4 for the seconds since 2021-01-01T00:00:00Z, 4 that count. The
//! numbers of ids that one client makes in a row follow each other, so that a broker can remember
//! many as one run.

use std::fmt;
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::TimestampMs;

const VERSION: u8 = 1;
const ID_BYTES: usize = 17;
const ID_DIGITS: usize = 2 * ID_BYTES;
const EPOCH_2021_SECONDS: u64 = 1_609_459_200;
const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
/// Any fixed number would do, but it may never change: stored runs hold numbers made with it.
const HASH_KEY: [u8; 16] = *b"raftmq message i";
const HASHED: u128 = 1 << 127;

/// Makes ids of version 1. Shared by reference; never makes one id twice.
///
/// Ids made within one second are consecutive. The clock may step back: ids still grow.
pub struct MessageIdGenerator {
    machine: [u8; 6],
    process: [u8; 2],
    clock: Box<dyn Fn() -> TimestampMs + Send + Sync>,
    /// The next id's last 8 bytes are at least this: seconds, then the count within the second.
    next: AtomicU64,
}

impl MessageIdGenerator {
    /// `machine` and `process` must not be those of another generator of the last seconds, also not
    /// of one before a restart: a broker takes equal ids for one message sent twice. Eight random
    /// bytes are a good choice.
    pub fn new(
        machine: [u8; 6],
        process: [u8; 2],
        clock: impl Fn() -> TimestampMs + Send + Sync + 'static,
    ) -> Self {
        Self {
            machine,
            process,
            clock: Box::new(clock),
            next: AtomicU64::new(0),
        }
    }

    /// A new id.
    pub fn next_id(&self) -> String {
        let seconds = ((self.clock)() / 1000).saturating_sub(EPOCH_2021_SECONDS);
        let floor = seconds.min(u64::from(u32::MAX)) << 32;
        let mut last = self.next.load(Ordering::Relaxed);
        let counter = loop {
            let counter = last.max(floor);
            let next = counter.wrapping_add(1);
            match self
                .next
                .compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => break counter,
                Err(current) => last = current,
            }
        };
        let mut id = [0; ID_BYTES];
        id[0] = VERSION;
        id[1..7].copy_from_slice(&self.machine);
        id[7..9].copy_from_slice(&self.process);
        id[9..].copy_from_slice(&counter.to_be_bytes());
        let mut text = String::with_capacity(ID_DIGITS);
        for byte in id {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }
}

impl fmt::Debug for MessageIdGenerator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MessageIdGenerator")
            .field("machine", &self.machine)
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// A number for an id: for version 1 the 16 bytes after the version; for any other text a hash with
/// its highest bit set.
///
/// Different ids have different numbers, but for a hash's chance of about 1 in 2^127 for each pair.
pub fn id_number(id: &str) -> u128 {
    version_1(id.as_bytes()).unwrap_or_else(|| {
        let mut hasher = SipHasher24::new_with_key(&HASH_KEY);
        hasher.write(id.as_bytes());
        hasher.finish128().as_u128() | HASHED
    })
}

/// Only upper-case digits: two texts never share a number on purpose.
fn version_1(id: &[u8]) -> Option<u128> {
    let digits = id.strip_prefix(b"01").filter(|_| id.len() == ID_DIGITS)?;
    let mut number = 0;
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(value);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1000;
    const NOW: TimestampMs = (EPOCH_2021_SECONDS + 0x0123_4567) * SECOND + 999;

    fn generator(clock: Arc<AtomicU64>) -> MessageIdGenerator {
        MessageIdGenerator::new([0xA0, 1, 2, 3, 4, 5], [6, 7], move || {
            clock.load(Ordering::Relaxed)
        })
    }

    #[test]
    fn writes_the_layout_of_version_1() {
        let ids = generator(Arc::new(NOW.into()));
        assert_eq!(ids.next_id(), "01A0010203040506070123456700000000");
        assert_eq!(ids.next_id(), "01A0010203040506070123456700000001");
        assert_eq!(
            id_number(&ids.next_id()),
            0xA001_0203_0405_0607_0123_4567_0000_0002
        );
    }

    /// A jump within a second would make the broker remember each id on its own; an id that came
    /// twice would make it drop a message.
    #[test]
    fn ids_grow_and_follow_each_other_whatever_the_clock_does() {
        let clock = Arc::new(AtomicU64::new(NOW));
        let ids = generator(clock.clone());
        let mut last = id_number(&ids.next_id());
        for (step, follows) in [
            (0, true),
            (-5000, true),
            (10_000, false),
            (1, true),
            (-900, true),
        ] {
            clock.store(NOW.saturating_add_signed(step), Ordering::Relaxed);
            let number = id_number(&ids.next_id());
            assert!(number > last, "clock moved by {step} ms");
            assert_eq!(number == last + 1, follows, "clock moved by {step} ms");
            last = number;
        }
    }

    #[test]
    fn clocks_outside_the_range_do_not_panic() {
        for now in [0, u64::MAX] {
            let ids = generator(Arc::new(now.into()));
            assert_ne!(ids.next_id(), ids.next_id());
        }
    }

    #[test]
    fn threads_never_get_one_id_twice() {
        let ids = generator(Arc::new(NOW.into()));
        let made: Vec<Vec<String>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).map(|_| ids.next_id()).collect()))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect()
        });
        assert_eq!(
            made.into_iter().flatten().collect::<BTreeSet<_>>().len(),
            4000
        );
    }

    /// Stored runs hold these numbers: a change would make every replica forget what it stored.
    #[test]
    fn numbers_of_other_texts_are_fixed() {
        // By an independent SipHash-2-4.
        assert_eq!(
            id_number("order-17"),
            0xA126_4CA1_7DA0_A59D_1639_2CCA_F2DD_C92C
        );
        assert_ne!(id_number("order-17"), id_number("order-18"));
        for other in ["", "01", "01a0010203040506070123456700000000", "é"] {
            assert!(id_number(other) & HASHED != 0, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_number(text in ".*") {
            id_number(&text);
        }

        #[test]
        fn version_1_numbers_are_the_bytes(number: u128) {
            prop_assert_eq!(id_number(&format!("01{number:032X}")), number);
        }
    }
}
