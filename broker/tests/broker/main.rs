//! Brokers in one process, asked as clients ask them. One binary: linking is what takes long.

mod clients;
mod cluster;
mod redelivery;
mod registration;
mod send_pull;
mod storage;
mod support;
