//! Operating-system processes of this same binary: name servers and brokers that `dev`, `demo`,
//! `bench` and the tests start, watch, hurt and end.
//!
//! Must never outlive its purpose: a child ends when the pipe on its standard input closes, so even
//! a parent killed with SIGKILL leaves nothing behind.

mod admin;
mod certificate;
mod child;
mod file_limit;
mod group;
mod ports;
mod usage;

pub use admin::{status, with_admin};
pub use certificate::Certificate;
pub use child::{Child, Ending};
pub use file_limit::raise_file_limit;
pub use group::{BrokerPorts, Group, GroupPlan, Led, Member};
pub use ports::free_ports;
pub use usage::{Usage, reset_peak};
