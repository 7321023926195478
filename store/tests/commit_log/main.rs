//! The commit log against its contract, on disks that fail, forget and rot.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod adopting;
mod appending;
mod damage;
mod disk_full;
mod inspecting;
mod model;
mod opening;
mod racing;
mod truncating;
mod world;
