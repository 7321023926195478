//! Encoded messages: reading the few fields that a broker needs, and adding what a delivery adds.
//!
//! Never decodes a message into a structure, never copies a body to look at it.

mod deliver;
mod digest;
mod error;
mod view;
pub mod wire;

pub use deliver::{Delivery, deliver, deliver_dead_letter};
pub use digest::digest;
pub use error::MessageError;
pub use view::View;
