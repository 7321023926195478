//! What must come back within a bounded time once nothing goes wrong any more. (`design.md` 9.8, 9.9.)

#[cfg(test)]
mod liveness_test;
mod pushing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use raft::Phase as ReplicaPhase;

use crate::broker_group::BrokerGroup;
use crate::commands::Commands;
use crate::history::{Event, Outcome, Queue, Record};
use crate::liveness::pushing::worked_off;
use crate::machine::{CLIENT_PORT, Machine};
use crate::operator::Operator;
use crate::oracle::lives::all_read;
use crate::violation::Violation;
use crate::workload::{Clients, Plan};
use crate::world::World;

/// Simulated time until every part serves again.
pub const SERVES_WITHIN: Duration = Duration::from_secs(60);

/// Simulated time until every group has caught up, and everything is read once more.
pub const DRAINS_WITHIN: Duration = Duration::from_secs(120);

/// The longest deadline of a producer, and a bit.
const SENDS_RETURN_WITHIN: Duration = Duration::from_secs(12);

/// Simulated time until logs that all clocks led astray say what time it is: a minute in which the clocks are right and nobody
/// else leads, and one until a leader that has nothing to write writes again.
const LED_BACK_WITHIN: Duration = Duration::from_secs(150);

/// Time between two looks.
const TICK: Duration = Duration::from_millis(100);

/// Of each broker group: one leader, followers that follow, name servers that say so. Producers that are answered.
pub async fn serves_again(world: &World, clients: &Clients) -> Result<(), Violation> {
    wait("serves-again", SERVES_WITHIN, || {
        for group in world.groups() {
            let leader = leader(world, group)?;
            routes(world, group, leader)?;
        }
        clients
            .history
            .look(|records| sends(&clients.plan, records))
    })
    .await
}

/// Every message that is in a queue was delivered to every group of its topic; and can be read again.
pub async fn everything_is_read(
    world: &World,
    clients: &Clients,
    operator: &Operator,
) -> Result<(), Violation> {
    wait("retries-drain", DRAINS_WITHIN, || {
        let history = &clients.history;
        history.look(|records| no_retries(&clients.plan, records))
    })
    .await?;
    if !clients.plan.lives.is_empty() {
        let history = &clients.history;
        wait("what-is-owed-is-read", DRAINS_WITHIN, || {
            history.look(all_read)
        })
        .await?;
    }
    let plan = &clients.plan;
    let bounds = settled_bounds(clients, operator).await?;
    if let Err(violation) = drains(clients, &bounds).await {
        // What retention took meanwhile nobody can be given.
        let left = operator.bounds().await;
        let left = left.map_err(|error| Violation::new("serves-again", error.to_string()))?;
        let bounds = still_there(&bounds, &left);
        let drained = |records: &[Record]| {
            drained(plan, &bounds, records).and_then(|()| worked_off(plan, &bounds, records))
        };
        clients.history.look(drained).map_err(|_| violation)?;
    }
    let reading = operator.read_everything(plan, &bounds, DRAINS_WITHIN).await;
    reading.map_err(|what| Violation::new("readable", format!("cannot be read again: {what}")))?;
    // Retention may have gone on while this was read.
    let bounds = operator.bounds().await;
    bounds.map_err(|error| Violation::new("serves-again", error.to_string()))?;
    wait("followers-catch-up", SERVES_WITHIN, || caught_up(world)).await
}

async fn drains(clients: &Clients, bounds: &BTreeMap<Queue, (u64, u64)>) -> Result<(), Violation> {
    let plan = &clients.plan;
    wait("drains", DRAINS_WITHIN, || {
        let history = &clients.history;
        history.look(|records| {
            drained(plan, bounds, records).and_then(|()| worked_off(plan, bounds, records))
        })
    })
    .await
}

/// No log's time is ahead any more.
pub async fn time_is_led_back(logs: &[Arc<Commands>]) -> Result<(), Violation> {
    wait("time-is-led-back", LED_BACK_WITHIN, || {
        logs.iter().try_for_each(|log| log.time.is_right())
    })
    .await
}

/// Of what queues held, what they hold still.
fn still_there(
    held: &BTreeMap<Queue, (u64, u64)>,
    left: &BTreeMap<Queue, (u64, u64)>,
) -> BTreeMap<Queue, (u64, u64)> {
    let still = |(queue, (_, max)): (&Queue, &(u64, u64))| {
        let (min, _) = left.get(queue)?;
        Some((queue.clone(), (*min, *max)))
    };
    held.iter().filter_map(still).collect()
}

/// What the queues hold once all sends have returned.
async fn settled_bounds(
    clients: &Clients,
    operator: &Operator,
) -> Result<BTreeMap<Queue, (u64, u64)>, Violation> {
    let returned = tokio::time::timeout(SENDS_RETURN_WITHIN, clients.all_returned()).await;
    returned.map_err(|_| {
        let detail = format!("a send did not return within {SENDS_RETURN_WITHIN:?}");
        Violation::new("every-wait-ends", detail)
    })?;
    operator
        .bounds()
        .await
        .map_err(|error| Violation::new("serves-again", error.to_string()))
}

async fn wait(
    invariant: &'static str,
    within: Duration,
    look: impl Fn() -> Result<(), String>,
) -> Result<(), Violation> {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        match look() {
            Ok(()) => return Ok(()),
            Err(missing) if tokio::time::Instant::now() > deadline => {
                let detail =
                    format!("not within {within:?} after everything was healed: {missing}");
                return Err(Violation::new(invariant, detail));
            }
            Err(_) => tokio::time::sleep(TICK).await,
        }
    }
}

/// The one broker that serves, and that all members follow.
fn leader(world: &World, group: BrokerGroup) -> Result<Machine, String> {
    let mut leader = None;
    let members = world.members(group);
    for id in &members {
        let broker = world.broker(*id).ok_or_else(|| format!("no broker-{id}"))?;
        let Some(live) = broker.live() else {
            let reason = broker.ended().reason;
            return Err(format!("{} does not run: {reason}", broker.machine));
        };
        let status = live.group.status();
        if status.phase != ReplicaPhase::Running {
            return Err(format!("{} is {}", broker.machine, status.phase.name()));
        }
        let Some(follows) = status.leadership.leader.as_ref() else {
            return Err(format!("{} knows no leader", broker.machine));
        };
        if *leader.get_or_insert(follows.broker_id) != follows.broker_id {
            return Err(format!("members of {members:?} follow different leaders"));
        }
        if follows.broker_id == u64::from(*id) && !status.leadership.serving {
            return Err(format!("{} leads and does not serve", broker.machine));
        }
    }
    let leader = leader.ok_or("there are no members")?;
    Ok(Machine::Broker(leader as u8))
}

/// Every name server sends clients to the leader.
fn routes(world: &World, group: BrokerGroup, leader: Machine) -> Result<(), String> {
    let address = leader.address(CLIENT_PORT);
    for server in world.all_name_servers() {
        let machine = server.machine;
        let table = server
            .table()
            .ok_or_else(|| format!("{machine} does not run"))?;
        let registrations = table.registrations();
        let mut registrations = registrations.iter();
        let registration = registrations.find(|one| one.group == group.name());
        let leads = registration.and_then(|registration| {
            let led_by =
                |replica: &&proto::cluster::Replica| replica.broker_id == registration.leader;
            let replica = registration.replicas.iter().find(led_by)?;
            Some(replica.client_address.clone())
        });
        if leads.as_deref() != Some(&address) {
            return Err(format!(
                "{machine} says that {leads:?} leads {}, not {address}",
                group.name()
            ));
        }
    }
    Ok(())
}

/// Every producer sent something after the heal that was stored.
fn sends(plan: &Plan, records: &[Record]) -> Result<(), String> {
    let healed = records
        .iter()
        .rposition(|record| record.event == Event::Healed)
        .unwrap_or(0);
    let mut lanes: BTreeMap<u64, bool> = BTreeMap::new();
    let mut lane_of: BTreeMap<u64, u64> = BTreeMap::new();
    for record in &records[healed..] {
        match &record.event {
            Event::Send { value, lane, .. } => {
                lanes.entry(*lane).or_default();
                lane_of.insert(*value, *lane);
            }
            Event::Sent {
                value,
                outcome: Outcome::Done(_),
            } => {
                if let Some(lane) = lane_of.get(value) {
                    lanes.insert(*lane, true);
                }
            }
            _ => {}
        }
    }
    let served = lanes.values().filter(|served| **served).count();
    let producers = plan.producers.len();
    match served >= producers {
        true => Ok(()),
        false => Err(format!("{served} of {producers} producers are served")),
    }
}

/// The next offset that nobody of a group has seen.
fn drained(
    plan: &Plan,
    bounds: &BTreeMap<Queue, (u64, u64)>,
    records: &[Record],
) -> Result<(), String> {
    let mut seen: BTreeMap<(&str, &Queue), u64> = BTreeMap::new();
    for record in records {
        if let Event::Delivery { member, place, .. } = &record.event {
            let next = seen.entry((&member.group, &place.queue)).or_default();
            *next = (*next).max(place.offset + 1);
        }
    }
    for topic in &plan.topics {
        let retriers = plan.retriers.iter();
        let retriers = retriers.filter(|retrier| retrier.topic == topic.name);
        let retriers = retriers.map(|retrier| retrier.group.clone());
        for group in plan.groups(&topic.name).into_iter().chain(retriers) {
            for (queue, (min, max)) in bounds {
                let next = seen.get(&(&*group, queue));
                if queue.topic == topic.name && min < max && next.is_none_or(|next| next < max) {
                    return Err(format!(
                        "{group} has come to {next:?} of {max} in {}/{}",
                        queue.topic, queue.queue
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Every group that sends messages back was told that none is left, after it had sent back the last one.
fn no_retries(plan: &Plan, records: &[Record]) -> Result<(), String> {
    let mut asked: BTreeMap<u64, (&str, &Queue, usize)> = BTreeMap::new();
    let mut sent_back: BTreeMap<(&str, &Queue), usize> = BTreeMap::new();
    let mut none_left: BTreeMap<(&str, &Queue), usize> = BTreeMap::new();
    let mut calls = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        match &record.event {
            Event::SendBack {
                call, group, place, ..
            } => {
                calls.insert(*call, (&**group, &place.queue));
                sent_back.insert((group, &place.queue), at);
            }
            Event::SentBack { call, .. } => {
                if let Some(key) = calls.get(call) {
                    sent_back.insert(*key, at);
                }
            }
            Event::AskRetries { call, group, queue } => {
                asked.insert(*call, (group, queue, at));
            }
            Event::NoRetries { call } => {
                if let Some((group, queue, at)) = asked.get(call) {
                    none_left.insert((group, queue), *at);
                }
            }
            _ => {}
        }
    }
    for retrier in &plan.retriers {
        for ((group, queue), last) in &sent_back {
            let told = none_left.get(&(*group, *queue));
            if **group == *retrier.group && told.is_none_or(|told| told < last) {
                return Err(format!(
                    "{group} has retries in {}/{}",
                    queue.topic, queue.queue
                ));
            }
        }
    }
    Ok(())
}

/// All members of each group have applied the same.
fn caught_up(world: &World) -> Result<(), String> {
    world
        .groups()
        .try_for_each(|group| caught_up_in(world, group))
}

fn caught_up_in(world: &World, group: BrokerGroup) -> Result<(), String> {
    let mut applied = BTreeMap::new();
    for id in world.members(group) {
        let live = world.broker(id).and_then(|broker| broker.live());
        let live = live.ok_or_else(|| format!("broker-{id} does not run"))?;
        applied.insert(id, live.group.status().applied);
    }
    let first = applied.values().next().copied();
    match applied.values().all(|other| Some(*other) == first) {
        true => Ok(()),
        false => Err(format!("applied: {applied:?}")),
    }
}
