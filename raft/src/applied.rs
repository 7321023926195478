//! How far the tables have come: the log id and the membership in the `applied` row.
//!
//! ```text
//! value  present u8 | term u64 | index u64 | stored membership as JSON
//! ```
//!
//! Little-endian. `present` is 0 in tables that hold a membership but no entry. The row stands in
//! every batch, so the JSON is made only when the membership changes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::convert::{
    ConvertError, check_index, log_id_of, stored_membership_from_bytes, stored_membership_to_bytes,
};
use crate::types::{RaftLogId, StoredMembership};

const HEADER_BYTES: usize = 17;

/// The last entry in the tables, and the last membership in or before it.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    log_id: Option<RaftLogId>,
    membership: StoredMembership,
    membership_bytes: Bytes,
}

impl Default for Applied {
    fn default() -> Applied {
        Applied::new(None, StoredMembership::default())
    }
}

impl Applied {
    pub(crate) fn new(log_id: Option<RaftLogId>, membership: StoredMembership) -> Applied {
        let membership_bytes = stored_membership_to_bytes(&membership);
        Applied {
            log_id,
            membership,
            membership_bytes,
        }
    }

    pub(crate) fn log_id(&self) -> Option<RaftLogId> {
        self.log_id
    }

    pub(crate) fn membership(&self) -> &StoredMembership {
        &self.membership
    }

    /// Moves on to an entry that changes no membership.
    pub(crate) fn advance(&mut self, log_id: RaftLogId) {
        debug_assert!(
            self.log_id < Some(log_id),
            "entries are applied once, in order"
        );
        self.log_id = Some(log_id);
    }

    /// Moves on to an entry that holds a membership.
    pub(crate) fn advance_membership(&mut self, log_id: RaftLogId, membership: StoredMembership) {
        self.advance(log_id);
        self.membership_bytes = stored_membership_to_bytes(&membership);
        self.membership = membership;
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + self.membership_bytes.len());
        let (term, index) = match self.log_id {
            Some(log_id) => (*log_id.leader_id, log_id.index()),
            None => (0, 0),
        };
        bytes.put_u8(u8::from(self.log_id.is_some()));
        bytes.put_u64_le(term);
        bytes.put_u64_le(index);
        bytes.put_slice(&self.membership_bytes);
        bytes.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Applied, ConvertError> {
        let Some((header, membership)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(ConvertError::Missing("applied"));
        };
        let number = |from: usize| {
            u64::from_le_bytes(
                header[from..from + 8]
                    .try_into()
                    .expect("the header holds both"),
            )
        };
        check_index(number(9))?;
        let log_id = (header[0] != 0).then(|| log_id_of(number(1), number(9)));
        Ok(Applied::new(
            log_id,
            stored_membership_from_bytes(membership)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Node, RaftMembership};

    /// Catches tables that come back with another log id or membership than they were written with.
    #[test]
    fn survives_encoding() {
        let node = Node {
            peer_address: "a:1".into(),
            client_address: "a:2".into(),
            replica_id: 7,
        };
        let membership = RaftMembership::new(
            vec![std::collections::BTreeSet::from([1])],
            std::collections::BTreeMap::from([(1, node)]),
        );
        let stored = StoredMembership::new(Some(log_id_of(1, 0)), membership.unwrap());
        let mut applied = Applied::default();
        assert_eq!(Applied::decode(&applied.encode()).unwrap().log_id(), None);
        applied.advance_membership(log_id_of(1, 0), stored.clone());
        applied.advance(log_id_of(3, 9));
        let decoded = Applied::decode(&applied.encode()).unwrap();
        assert_eq!(decoded.log_id(), Some(log_id_of(3, 9)));
        assert_eq!(decoded.membership(), &stored);
    }

    /// Catches a panic on a row that rotted.
    #[test]
    fn refuses_garbage() {
        assert!(Applied::decode(b"").is_err());
        assert!(Applied::decode(&[1; 16]).is_err());
        assert!(Applied::decode(&[1; 40]).is_err());
    }
}
