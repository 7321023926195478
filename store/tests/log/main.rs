//! The commit log against its contract, on disks that fail, forget and rot.

mod adopting;
mod appending;
mod damage;
mod disk_full;
mod model;
mod opening;
mod truncating;
mod world;
