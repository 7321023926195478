//! Replicas of one group in one process, on real disks and ports. One binary: linking is what takes long.

mod addresses;
mod clocks;
mod common;
mod damage;
mod group;
mod restore;
mod rot_in_tables;
mod snapshot;
mod startup;
