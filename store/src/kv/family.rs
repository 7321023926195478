//! Which tables lie in files of their own.
//!
//! Must never say what a table holds: whoever owns tables declares their families when they are opened.

/// Tables that are written and read alike. Those that no family names lie together in one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// What it is called on the disk: another name would be another, empty one.
    pub name: &'static str,
    /// First bytes of its tables' keys. No two families have one in common.
    pub tags: &'static [u8],
}
