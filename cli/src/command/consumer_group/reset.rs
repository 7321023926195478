//! `consumer-group reset-offset` and `skip-backlog`: show what would change; with `--yes` change it.

use clap::{ArgGroup, Args};
use host::{Clock, SystemClock};
use raftmq_client::{Admin, GroupState, TopicQueue};
use serde_json::{Value, json};

use super::plan::{Move, Place, Target, moves};
use super::refuse_while_alive;
use crate::failure::Failure;
use crate::moments::Moment;
use crate::output::Output;
use crate::terminal::{note, table};

/// Flags of `raftmq consumer-group reset-offset`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("target").required(true))]
pub(crate) struct ResetArguments {
    /// The consumer group
    name: String,
    #[command(flatten)]
    scope: Scope,
    /// To the first message stored at or after a time: 2026-01-31T08:00:00Z, milliseconds, or 10m (ago)
    #[arg(long, group = "target", value_name = "TIME", value_parser = Moment::parse)]
    to_time: Option<Moment>,
    /// To this offset
    #[arg(long, group = "target", value_name = "OFFSET")]
    to_offset: Option<u64>,
    /// To the oldest message that is still there
    #[arg(long, group = "target")]
    to_begin: bool,
    /// Behind the newest message
    #[arg(long, group = "target")]
    to_end: bool,
}

/// Flags of `raftmq consumer-group skip-backlog`.
#[derive(Args, Debug)]
pub(crate) struct SkipArguments {
    /// The consumer group
    name: String,
    #[command(flatten)]
    scope: Scope,
}

#[derive(Args, Debug)]
struct Scope {
    /// Only this topic; without it, every topic in which the group has committed something
    #[arg(long)]
    topic: Option<String>,
    /// Only this queue of the topic
    #[arg(long, requires = "topic")]
    queue: Option<u32>,
    /// Do it; without this it is only shown
    #[arg(long)]
    yes: bool,
    /// Also while consumers of the group are alive, which go on from where they are
    #[arg(long)]
    force: bool,
}

pub(super) async fn reset(
    admin: &Admin,
    asked: &ResetArguments,
    output: Output,
) -> Result<(), Failure> {
    let target = match (asked.to_time, asked.to_offset) {
        (Some(moment), _) => Target::TimeMs(moment.at_ms(SystemClock.now_ms())),
        (None, Some(offset)) => Target::Offset(offset),
        (None, None) if asked.to_begin => Target::Begin,
        (None, None) => Target::End,
    };
    carry_out(admin, &asked.name, &asked.scope, target, output).await
}

pub(super) async fn skip(
    admin: &Admin,
    asked: &SkipArguments,
    output: Output,
) -> Result<(), Failure> {
    carry_out(
        admin,
        &asked.name,
        &asked.scope,
        Target::BehindBacklog,
        output,
    )
    .await
}

async fn carry_out(
    admin: &Admin,
    name: &str,
    scope: &Scope,
    target: Target,
    output: Output,
) -> Result<(), Failure> {
    let group = admin.describe_group(name).await?;
    let places = places(admin, &group, scope, target).await?;
    let moves = moves(places, target)?;
    if scope.yes {
        refuse_while_alive(admin, name, scope.force).await?;
        for (done, one) in moves.iter().enumerate() {
            let queue = &one.place.queue;
            let reset = match target {
                Target::BehindBacklog => admin.skip_to(name, queue, one.to).await,
                _ => admin.reset_offset(name, queue, one.to).await,
            };
            reset.map_err(|error| {
                Failure::from(error).after(format_args!("{done} queues done, then queue {queue}"))
            })?;
        }
    }
    output.show(
        || json!({ "group": name, "done": scope.yes, "queues": moves.iter().map(as_json).collect::<Vec<_>>() }),
        || shown(&moves),
    );
    match (moves.is_empty(), scope.yes) {
        (true, _) => note("nothing to change: the group is there already"),
        (false, true) => note(format_args!("{} queues changed", moves.len())),
        (false, false) => note("nothing was changed; give --yes to do it"),
    }
    Ok(())
}

/// The queues that are meant, as they are now.
async fn places(
    admin: &Admin,
    group: &GroupState,
    scope: &Scope,
    target: Target,
) -> Result<Vec<Place>, Failure> {
    let mut places: Vec<Place> = match &scope.topic {
        None => {
            let queues = group.queues.iter();
            queues
                .map(|queue| Place {
                    queue: queue.queue.clone(),
                    min_offset: queue.min_offset,
                    max_offset: queue.max_offset,
                    committed: queue.committed,
                    next: Some(queue.max_offset - queue.unread),
                    retries: queue.retries,
                    at_time: None,
                })
                .collect()
        }
        Some(topic) => places_of_topic(admin, group, topic).await?,
    };
    if let Some(queue) = scope.queue {
        places.retain(|place| place.queue.queue == queue);
        if places.is_empty() {
            let topic = scope.topic.as_deref().unwrap_or_default();
            return Err(Failure::NotFound(format!(
                "topic {topic} has no queue {queue}"
            )));
        }
    }
    if let Target::TimeMs(at_ms) = target {
        for place in &mut places {
            place.at_time = Some(admin.offset_at(&place.queue, at_ms).await?);
        }
    }
    Ok(places)
}

async fn places_of_topic(
    admin: &Admin,
    group: &GroupState,
    name: &str,
) -> Result<Vec<Place>, Failure> {
    let topic = admin.topic(name).await?;
    let topic = topic.ok_or_else(|| Failure::NotFound(format!("topic {name} does not exist")))?;
    let known = |queue: u32| {
        let mut known = group.queues.iter();
        known.find(|one| &*one.queue.topic == name && one.queue.queue == queue)
    };
    let places = topic.queues.iter().map(|bounds| {
        let known = known(bounds.queue);
        Place {
            queue: TopicQueue::new(name, bounds.queue),
            min_offset: bounds.min_offset,
            max_offset: bounds.max_offset,
            committed: known.and_then(|one| one.committed),
            next: known.map(|one| one.max_offset - one.unread),
            retries: known.map_or(0, |one| one.retries),
            at_time: None,
        }
    });
    Ok(places.collect())
}

fn as_json(one: &Move) -> Value {
    json!({
        "topic": &*one.place.queue.topic,
        "queue": one.place.queue.queue,
        "from": one.place.committed,
        "to": one.to,
        "delivered_again": one.again().map(|again| again.max(0) as u64),
        "skipped": one.again().map(|again| (-again).max(0) as u64),
        "retries_given_up": one.given_up,
    })
}

fn shown(moves: &[Move]) -> String {
    let rows: Vec<Vec<String>> = moves
        .iter()
        .map(|one| {
            let mut effect = match one.again() {
                None => "-".to_owned(),
                Some(again) if again >= 0 => format!("{again} again"),
                Some(skipped) => format!("{} skipped", -skipped),
            };
            if one.given_up > 0 {
                effect += &format!(", {} retries given up", one.given_up);
            }
            let from = one.place.committed;
            vec![
                one.place.queue.to_string(),
                from.map_or("-".to_owned(), |offset| offset.to_string()),
                one.to.to_string(),
                effect,
            ]
        })
        .collect();
    table(&["queue", "from", "to", "messages"], &rows)
}
