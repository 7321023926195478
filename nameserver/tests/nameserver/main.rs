//! Name servers in one process, and what they are told and asked. One binary: linking is what takes long.

extern crate raftmq_nameserver as nameserver;

mod clients;
mod gossip;
#[path = "../../../gateway/tests/support/mod.rs"]
mod owner;
mod registration;
mod support;
