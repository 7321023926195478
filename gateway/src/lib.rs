//! Passes a client's call on to the process that owns its answer.
//!
//! Used by brokers (follower to leader) and by name servers (to the leader of the group that has the topic). Calls stay
//! typed: the simulator hands objects over, so both ends must name the same Rust types, those of [`proto::opaque`].
//! Nothing here decides *where* a call goes, keeps state of a client, or tries a call twice: the callers do.

// The simulator's tokio and tonic.
#[cfg(madsim)]
extern crate madsim_tokio as tokio;
#[cfg(madsim)]
extern crate madsim_tonic as tonic;

mod answer;
mod failure;
mod forwarder;
mod metadata;
mod pool;
mod route_room;
mod stream;

pub use answer::Answer;
pub use failure::is_unreachable;
pub use forwarder::{Forwarder, TELEMETRY_OPEN_DEADLINE, UNARY_DEADLINE};
pub use metadata::{
    BEAT_INTERVAL_MS, BROKER, CLIENT_ID, HOPS, HOPS_MAX, INCARNATION, LEADER, QUEUES, ROUTE,
    ROUTE_LEADER, SEQUENCED, SEQUENCED_ALL, deadline, follows_leader, is_sequenced, meant_group,
    set_leader,
};
pub use pool::{CHANNEL_IDLE_MAX, CHANNELS_MAX};
pub use route_room::{
    ACCESS_POINT_ADDRESSES_MAX, ACCESS_POINT_BYTES_MAX, is_access_point, route_room,
};
pub use stream::{AnswerStream, STREAM_ITEM_DEADLINE};
