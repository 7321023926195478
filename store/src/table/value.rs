//! Reads the fixed fields of keys and values, and complains instead of panicking.

use crate::error::StoreError;
use crate::table::Kind;

/// A cursor over the fields of one key or value.
pub(super) struct Fields<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(kind: Kind, bytes: &'a [u8]) -> Fields<'a> {
        Fields { kind, rest: bytes }
    }

    pub(super) fn u8(&mut self) -> Result<u8, StoreError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, StoreError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, StoreError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, StoreError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, StoreError> {
        self.array().map(u128::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, StoreError> {
        let len = usize::from(self.u16()?);
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|_| self.kind.corrupt("a name that is not text"))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may be left: a longer row was written by another version or is not a row at all.
    pub(super) fn end(self) -> Result<(), StoreError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self
            .kind
            .corrupt(format!("{} bytes too many", self.rest.len())))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let bytes = self.take(N)?;
        Ok(bytes
            .try_into()
            .expect("take gives as many bytes as it was asked for"))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], StoreError> {
        if self.rest.len() < len {
            let missing = len - self.rest.len();
            return Err(self.kind.corrupt(format!("{missing} bytes are missing")));
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }
}
