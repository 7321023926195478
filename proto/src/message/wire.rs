//! Reads protobuf's wire form, as strictly as prost does.

use super::MessageError;

/// One field as it stands in the encoded form.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64,
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self, field: &'static str) -> Result<&'a [u8], MessageError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(MessageError::WireType { field }),
        }
    }

    pub(super) fn text(self, field: &'static str) -> Result<&'a str, MessageError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| MessageError::NotUtf8 { field })
    }

    pub(super) fn int64(self, field: &'static str) -> Result<i64, MessageError> {
        match self {
            Value::Varint(number) => Ok(number as i64),
            _ => Err(MessageError::WireType { field }),
        }
    }

    /// The low half, as every parser takes it.
    pub(super) fn int32(self, field: &'static str) -> Result<i32, MessageError> {
        self.int64(field).map(|number| number as i32)
    }
}

/// Walks the fields of one message.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    encoded: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn of(encoded: &'a [u8]) -> Self {
        Self {
            encoded,
            position: 0,
        }
    }

    /// Where the next field begins.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The next field's number and value.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, MessageError> {
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
