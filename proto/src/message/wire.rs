//! Protobuf's wire form, as little of it as messages need: walking fields, as strictly as prost does, and writing them.
//!
//! Knows no message. Never panics on what it reads.

use bytes::{BufMut, BytesMut};

use super::MessageError;

/// Wire type of a varint.
const VARINT: u32 = 0;
/// Wire type of anything that begins with its length.
const LENGTH_DELIMITED: u32 = 2;

/// One field as it stands in the encoded form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value<'a> {
    /// A number, a truth value or an enumeration's number.
    Varint(u64),
    /// Eight bytes: no field of a message is one, but unknown fields may be.
    Fixed64,
    /// Four bytes, likewise.
    Fixed32,
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The bytes of a field of this name.
    ///
    /// # Errors
    /// It is encoded as another kind.
    pub fn bytes(self, field: &'static str) -> Result<&'a [u8], MessageError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(MessageError::WireType { field }),
        }
    }

    /// The text of a field of this name.
    ///
    /// # Errors
    /// It is encoded as another kind, or not UTF-8.
    pub fn text(self, field: &'static str) -> Result<&'a str, MessageError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| MessageError::NotUtf8 { field })
    }

    /// The number of a field of this name.
    ///
    /// # Errors
    /// It is encoded as another kind.
    pub fn int64(self, field: &'static str) -> Result<i64, MessageError> {
        match self {
            Value::Varint(number) => Ok(number as i64),
            _ => Err(MessageError::WireType { field }),
        }
    }

    /// The low half of the number, as every parser takes it.
    ///
    /// # Errors
    /// It is encoded as another kind.
    pub fn int32(self, field: &'static str) -> Result<i32, MessageError> {
        self.int64(field).map(|number| number as i32)
    }
}

/// Walks the fields of one message.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    encoded: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    /// Those of an encoded message.
    pub fn of(encoded: &'a [u8]) -> Self {
        Self {
            encoded,
            position: 0,
        }
    }

    /// Where the next field begins.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next field's number and value; none at the end.
    ///
    /// # Errors
    /// What follows is no field.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, MessageError> {
        if self.position == self.encoded.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3)
            .ok()
            .filter(|number| *number != 0 && *number < 1 << 29)
            .ok_or(MessageError::Malformed)?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            // Groups: no field of ours is one, and other parsers disagree on unknown ones.
            _ => return Err(MessageError::Malformed),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, MessageError> {
        // Most keys, lengths and numbers are one byte.
        match self.encoded.get(self.position) {
            Some(byte) if *byte < 0x80 => {
                self.position += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, MessageError> {
        let rest = &self.encoded[self.position..];
        let mut number = 0;
        for (place, byte) in rest.iter().take(10).enumerate() {
            // The tenth byte holds the 64th bit alone.
            if place == 9 && *byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * place);
            if *byte < 0x80 {
                self.position += place + 1;
                return Ok(number);
            }
        }
        Err(MessageError::Malformed)
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], MessageError> {
        let rest = &self.encoded[self.position..];
        let length = usize::try_from(length).map_err(|_| MessageError::Malformed)?;
        let taken = rest.get(..length).ok_or(MessageError::Malformed)?;
        self.position += length;
        Ok(taken)
    }
}

/// Bytes that `number` takes as a varint.
pub fn varint_len(number: u64) -> usize {
    // 1 for up to 7 bits, 2 for up to 14, …
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Writes a number as a varint.
pub fn put_varint(buffer: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        buffer.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    buffer.put_u8(number as u8);
}

/// Bytes of a length-delimited field with `length` bytes inside. Field numbers here are below 2048.
pub fn bytes_field_len(field: u32, length: usize) -> usize {
    key_len(field) + varint_len(length as u64) + length
}

/// Writes a length-delimited field.
pub fn put_bytes_field(buffer: &mut BytesMut, field: u32, content: &[u8]) {
    put_length(buffer, field, content.len());
    buffer.put_slice(content);
}

/// The key and the length of a field whose content the caller writes next.
pub fn put_length(buffer: &mut BytesMut, field: u32, length: usize) {
    put_varint(buffer, u64::from(field << 3 | LENGTH_DELIMITED));
    put_varint(buffer, length as u64);
}

/// Bytes of a varint field; none if it has protobuf's default, which is not written.
pub fn varint_field_len(field: u32, number: u64) -> usize {
    if number == 0 {
        0
    } else {
        key_len(field) + varint_len(number)
    }
}

/// Writes a varint field; nothing if it has protobuf's default.
pub fn put_varint_field(buffer: &mut BytesMut, field: u32, number: u64) {
    if number != 0 {
        put_varint(buffer, u64::from(field << 3 | VARINT));
        put_varint(buffer, number);
    }
}

fn key_len(field: u32) -> usize {
    varint_len(u64::from(field << 3))
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

            let mut fields = Fields::of(&buffer);
            if number != 0 {
                prop_assert_eq!(fields.next_field(), Ok(Some((field, Value::Varint(number)))));
            }
            prop_assert_eq!(fields.next_field(), Ok(Some((field, Value::Bytes(&content)))));
            prop_assert_eq!(fields.next_field(), Ok(None));
        }

        /// Catches a panic or an endless walk on bytes that a broken server might send.
        #[test]
        fn garbage_ends(bytes: Vec<u8>) {
            let mut fields = Fields::of(&bytes);
            for _ in 0..=bytes.len() {
                match fields.next_field() {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Ok(()),
                }
            }
            prop_assert!(false, "more fields than bytes");
        }
    }
}
