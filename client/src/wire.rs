//! Protobuf's wire form, as little of it as messages need: writing fields, walking fields.
//!
//! Knows no message; `encode` and `received` say which numbers mean what. Never panics on what it reads.

use bytes::{BufMut, BytesMut};

/// Wire type of a varint.
const VARINT: u32 = 0;
/// Wire type of anything that begins with its length.
const LENGTH_DELIMITED: u32 = 2;

/// Bytes that `number` takes as a varint.
pub(crate) fn varint_len(number: u64) -> usize {
    // 1 for up to 7 bits, 2 for up to 14, …
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_varint(buffer: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        buffer.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    buffer.put_u8(number as u8);
}

/// Bytes of a length-delimited field with `length` bytes inside. Field numbers here are below 2048.
pub(crate) fn bytes_field_len(field: u32, length: usize) -> usize {
    key_len(field) + varint_len(length as u64) + length
}

pub(crate) fn put_bytes_field(buffer: &mut BytesMut, field: u32, content: &[u8]) {
    put_length(buffer, field, content.len());
    buffer.put_slice(content);
}

/// The key and the length of a field whose content the caller writes next.
pub(crate) fn put_length(buffer: &mut BytesMut, field: u32, length: usize) {
    put_varint(buffer, u64::from(field << 3 | LENGTH_DELIMITED));
    put_varint(buffer, length as u64);
}

/// Bytes of a varint field; none if it has protobuf's default, which is not written.
pub(crate) fn varint_field_len(field: u32, number: u64) -> usize {
    if number == 0 {
        0
    } else {
        key_len(field) + varint_len(number)
    }
}

pub(crate) fn put_varint_field(buffer: &mut BytesMut, field: u32, number: u64) {
    if number != 0 {
        put_varint(buffer, u64::from(field << 3 | VARINT));
        put_varint(buffer, number);
    }
}

fn key_len(field: u32) -> usize {
    varint_len(u64::from(field << 3))
}

/// What a field holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Value {
    Varint(u64),
    /// Where the content stands in the walked bytes: start and end.
    Bytes(usize, usize),
    /// Fixed32 or fixed64: no field of a message is one, but unknown fields may be.
    Fixed,
}

/// The bytes are no protobuf message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a well-formed protobuf message at byte {0}")]
pub(crate) struct Malformed(pub(crate) usize);

/// Walks the fields between two positions of some bytes.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    /// The fields in `bytes[start..end]`; positions in answers count from the start of `bytes`.
    pub(crate) fn between(bytes: &'a [u8], start: usize, end: usize) -> Fields<'a> {
        Fields {
            bytes: &bytes[..end],
            position: start,
        }
    }

    /// The next field's number and value; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Value)>, Malformed> {
        if self.position >= self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.fixed(8)?,
            2 => {
                let length = self.varint()?;
                let start = self.position;
                let end = usize::try_from(length)
                    .ok()
                    .and_then(|length| start.checked_add(length))
                    .filter(|end| *end <= self.bytes.len())
                    .ok_or(Malformed(start))?;
                self.position = end;
                Value::Bytes(start, end)
            }
            5 => self.fixed(4)?,
            _ => return Err(Malformed(self.position)),
        };
        Ok(Some((key >> 3, value)))
    }

    fn fixed(&mut self, length: usize) -> Result<Value, Malformed> {
        if self.bytes.len() - self.position < length {
            return Err(Malformed(self.position));
        }
        self.position += length;
        Ok(Value::Fixed)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self
                .bytes
                .get(self.position)
                .ok_or(Malformed(self.position))?;
            self.position += 1;
            if shift == 63 && byte > 1 {
                return Err(Malformed(self.position));
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed(self.position))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Catches a length that is announced but not written, which would shift everything behind it.
        #[test]
        fn what_is_written_has_the_announced_length_and_reads_back(number: u64, content: Vec<u8>, field in 1u32..64) {
            let mut buffer = BytesMut::new();
            put_varint_field(&mut buffer, field, number);
            prop_assert_eq!(buffer.len(), varint_field_len(field, number));
            let before = buffer.len();
            put_bytes_field(&mut buffer, field, &content);
            prop_assert_eq!(buffer.len() - before, bytes_field_len(field, content.len()));

            let mut fields = Fields::between(&buffer, 0, buffer.len());
            if number != 0 {
                prop_assert_eq!(fields.next(), Ok(Some((u64::from(field), Value::Varint(number)))));
            }
            let length = buffer.len();
            let expected = Value::Bytes(length - content.len(), length);
            prop_assert_eq!(fields.next(), Ok(Some((u64::from(field), expected))));
            prop_assert_eq!(fields.next(), Ok(None));
        }

        /// Catches a panic or an endless walk on bytes that a broken server might send.
        #[test]
        fn garbage_ends(bytes: Vec<u8>) {
            let mut fields = Fields::between(&bytes, 0, bytes.len());
            for _ in 0..=bytes.len() {
                match fields.next() {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Ok(()),
                }
            }
            prop_assert!(false, "more fields than bytes");
        }
    }
}
