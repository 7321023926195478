//! Who reads topics whose places mean nothing for long: what each got is judged by value alone.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Size;
use crate::chance::Chance;

/// What becomes of topics whose places mean nothing for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lives {
    /// There are none.
    None,
    /// One is made again, and both grow, under their consumers.
    Reborn,
    /// There is one, and its broker group is lost and restored under its consumers.
    Restored,
}

/// The topic that is made again under its consumers. What it holds nobody else looks at.
pub(crate) const LIFE_AGAIN: &str = "brief-again";
/// The topic that gets more queues and stays.
pub(crate) const LIFE_GROWS: &str = "brief-grows";
/// The group that gets everything of both.
pub(crate) const LIFE_ALL: &str = "life-all";
/// The group that gets what is stored after it was made.
pub(crate) const LIFE_LATE: &str = "life-late";
/// The one that gets everything and keeps its own progress.
pub(crate) const LIFE_EACH: &str = "life-each";

/// The topic that lives through the loss of its broker group.
pub(crate) const LIFE_STAYS: &str = "brief-stays";
/// The group of push consumers that gets everything of it.
pub(crate) const LIFE_PUSH: &str = "life-push";
/// The one that begins to read it when everything is stored.
pub(crate) const LIFE_LAST: &str = "life-last";

/// A member of a group that reads topics which are made again and grow, or are restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifePlan {
    /// On which client machine.
    pub machine: u8,
    /// Its group.
    pub group: Arc<str>,
    /// Its topics; other members of its group have others.
    pub topics: Vec<Arc<str>>,
    /// Whether it gets every message and keeps its own progress.
    pub alone: bool,
    /// Whether it is a push consumer that shares the messages of its group, and fails some. Older cases have none.
    #[serde(default)]
    pub push: bool,
    /// Whether an operator makes its group before, or says that it may begin.
    pub waits: bool,
    /// How often it commits, in milliseconds.
    pub commit_ms: u64,
    /// Whether it leaves its group in order when it ends.
    pub leaves: bool,
}

/// Members that subscribe to one of the two topics, or to both.
pub(super) fn reborn(chance: &mut Chance, size: Size) -> Vec<LifePlan> {
    let members: [(&str, &[&str]); 6] = [
        (LIFE_ALL, &[LIFE_AGAIN]),
        (LIFE_ALL, &[LIFE_GROWS]),
        (LIFE_ALL, &[LIFE_AGAIN, LIFE_GROWS]),
        (LIFE_LATE, &[LIFE_AGAIN, LIFE_GROWS]),
        (LIFE_LATE, &[LIFE_GROWS]),
        (LIFE_EACH, &[LIFE_AGAIN, LIFE_GROWS]),
    ];
    let member = |(group, topics): (&str, &[&str])| LifePlan {
        machine: chance.between(1..=size.machines.into()) as u8,
        group: group.into(),
        topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
        alone: group == LIFE_EACH,
        push: false,
        waits: group == LIFE_LATE,
        commit_ms: chance.between(200..=2_000),
        leaves: chance.one_in(2),
    };
    members.map(member).into()
}

/// Members of all kinds, of one topic.
pub(super) fn restored(chance: &mut Chance, size: Size) -> Vec<LifePlan> {
    let groups = [
        LIFE_ALL, LIFE_ALL, LIFE_PUSH, LIFE_PUSH, LIFE_EACH, LIFE_LAST,
    ];
    let member = |group: &str| LifePlan {
        machine: chance.between(1..=size.machines.into()) as u8,
        group: group.into(),
        topics: vec![LIFE_STAYS.into()],
        alone: group == LIFE_EACH,
        push: group == LIFE_PUSH,
        waits: true,
        commit_ms: chance.between(200..=2_000),
        leaves: chance.one_in(2),
    };
    groups.map(member).into()
}
