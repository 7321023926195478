//! What lies between machines: links that are cut, hang, are slow, lose packets or connections, or say
//! things twice.
//!
//! Two ways of being cut, because programs meet both. A link that *refuses* fails connections at once and
//! holds what is on its way (the simulator's own clogging). A link that *hangs* lets everything begin and
//! nothing arrive, until it heals: then what waited arrives late.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use host::network::simulated::{Event, Passing, Wire};
use madsim::net::NetSim;
use madsim::rand::Rng;
use madsim::task::NodeId;
use proto::{cluster, opaque, raft, redelivery, v2};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tonic::codegen::BoxMessage;

use crate::effect::Effect;
use crate::machine::Machine;
use crate::trace::Trace;

/// Latency of a message while nothing is wrong.
const LATENCY: std::ops::Range<Duration> = Duration::from_micros(200)..Duration::from_millis(3);

/// A request that arrives twice mostly does within this time, in milliseconds.
const SOON_MS: u64 = 300;

/// And at the latest within this: others lead by then, and what it asked for is long done.
const LATE_MS: u64 = 10_000;

/// When commits of offsets arrive again, where all of them do, in milliseconds.
const LATE_COMMIT_MS: std::ops::Range<u64> = 200..3_000;

/// How a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Connections fail at once.
    Refuses,
    /// Nothing fails and nothing arrives.
    Hangs,
}

/// How bad all links are at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weather {
    /// Packets lost, in a thousand; they are sent again.
    pub loss: u64,
    /// Messages that are lost with their connection, in a thousand.
    #[serde(default)]
    pub broken: u64,
    /// Messages that wait longer, in a thousand.
    pub slow: u64,
    /// How long they wait at most, in milliseconds.
    pub slow_ms: u64,
    /// Single requests that arrive twice, in a thousand.
    pub twice: u64,
}

/// The network of one world. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    healed: Notify,
    trace: Arc<Trace>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<Machine, NodeId>,
    /// How often each link is cut, and how: faults overlap.
    cuts: BTreeMap<(Machine, Machine, Cut), u32>,
    weather: Weather,
    /// Whether each commit of an offset arrives twice.
    late_commits: bool,
    /// Messages of each link that set out, and the last of them that has arrived.
    messages: BTreeMap<(Machine, Machine), (u64, u64)>,
}

impl Network {
    /// A network in order, without machines.
    pub fn new(trace: Arc<Trace>) -> Network {
        NetSim::current().update_config(|config| config.send_latency = LATENCY);
        let inner = Inner {
            state: Mutex::default(),
            healed: Notify::new(),
            trace,
        };
        Network {
            inner: Arc::new(inner),
        }
    }

    /// Adds a machine.
    pub fn add(&self, machine: Machine, node: NodeId) {
        self.state().nodes.insert(machine, node);
    }

    /// Whether each commit of an offset arrives a second time, some moments later: what it is about may be another thing by then.
    pub fn repeat_commits(&self, repeats: bool) {
        self.state().late_commits = repeats;
    }

    /// Cuts the link in one direction.
    pub fn cut(&self, from: Machine, to: Machine, how: Cut) {
        let mut state = self.state();
        self.inner.trace.happened(match how {
            Cut::Refuses => Effect::LinkRefused,
            Cut::Hangs => Effect::LinkHung,
        });
        *state.cuts.entry((from, to, how)).or_default() += 1;
        if how == Cut::Refuses
            && let Some((from, to)) = state.link(from, to)
        {
            NetSim::current().clog_link(from, to);
        }
    }

    /// Takes one cut back.
    pub fn mend(&self, from: Machine, to: Machine, how: Cut) {
        let mut state = self.state();
        let Some(times) = state.cuts.get_mut(&(from, to, how)) else {
            return;
        };
        *times -= 1;
        if *times > 0 {
            return;
        }
        state.cuts.remove(&(from, to, how));
        if how == Cut::Refuses
            && let Some((from, to)) = state.link(from, to)
        {
            NetSim::current().unclog_link(from, to);
        }
        drop(state);
        self.inner.healed.notify_waiters();
    }

    /// Mends everything.
    pub fn heal(&self) {
        self.set_weather(Weather::default());
        let cuts = self.state().cuts.clone();
        for ((from, to, how), times) in cuts {
            (0..times).for_each(|_| self.mend(from, to, how));
        }
    }

    /// Changes how bad all links are.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
        NetSim::current()
            .update_config(|config| config.packet_loss_rate = weather.loss as f64 / 1000.0);
    }

    /// Whether nothing is wrong with it.
    pub fn is_whole(&self) -> bool {
        let state = self.state();
        state.cuts.is_empty() && state.weather == Weather::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self, from: Machine, to: Machine, number: u64) {
        if self.state().is_overtaken(from, to, number) {
            self.inner.trace.happened(Effect::MessageOvertaken);
        }
    }

    fn count(&self, passing: &Passing<'_>) {
        let method = passing.path;
        match passing.event {
            Event::Request => self.inner.trace.count(&format!("rpc {method}")),
            Event::Answer(code) if code != tonic::Code::Ok => {
                self.inner.trace.count(&format!("status {code:?}"));
            }
            _ => {}
        }
    }
}

impl State {
    fn link(&self, from: Machine, to: Machine) -> Option<(NodeId, NodeId)> {
        Some((*self.nodes.get(&from)?, *self.nodes.get(&to)?))
    }

    /// The number of a message on its link.
    fn sets_out(&mut self, from: Machine, to: Machine) -> u64 {
        let (count, _) = self.messages.entry((from, to)).or_default();
        *count += 1;
        *count
    }

    /// Whether a message arrives after one that set out later.
    fn is_overtaken(&mut self, from: Machine, to: Machine, number: u64) -> bool {
        let (_, last) = self.messages.entry((from, to)).or_default();
        let overtaken = number < *last;
        *last = number.max(*last);
        overtaken
    }

    fn hangs(&self, from: Machine, to: Machine) -> bool {
        self.cuts.contains_key(&(from, to, Cut::Hangs))
    }
}

fn happens(per_mille: u64) -> bool {
    per_mille > 0 && madsim::rand::thread_rng().gen_range(0..1000) < per_mille
}

impl Wire for Network {
    fn pass(&self, passing: Passing<'_>) -> BoxFuture<'static, bool> {
        let (from, to) = match (Machine::at(passing.from), Machine::at(passing.to)) {
            (Some(from), Some(to)) => (from, to),
            _ => unreachable!("every node of a world is a machine"),
        };
        self.inner.trace.event(format_args!(
            "{from} > {to} {} {:?}",
            passing.path, passing.event
        ));
        self.count(&passing);
        let weather = self.state().weather;
        if happens(weather.broken) {
            self.inner.trace.event(format_args!("lost"));
            self.inner.trace.happened(Effect::MessageLost);
            return futures::future::ready(false).boxed();
        }
        let number = self.state().sets_out(from, to);
        let delay = happens(weather.slow).then(|| {
            let ms = madsim::rand::thread_rng().gen_range(1..=weather.slow_ms.max(1));
            Duration::from_millis(ms)
        });
        let hangs = self.state().hangs(from, to);
        if delay.is_none() && !hangs {
            self.arrived(from, to, number);
            return futures::future::ready(true).boxed();
        }
        self.inner.trace.happened(match hangs {
            true => Effect::MessageHeldBack,
            false => Effect::MessageSlow,
        });
        let network = self.clone();
        async move {
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
            loop {
                let healed = network.inner.healed.notified();
                if !network.state().hangs(from, to) {
                    network.arrived(from, to, number);
                    return true;
                }
                healed.await;
            }
        }
        .boxed()
    }

    fn duplicate(&self, path: &str, request: &BoxMessage) -> Option<(Duration, BoxMessage)> {
        let is_late_commit = self.state().late_commits && request.is::<v2::UpdateOffsetRequest>();
        if !is_late_commit && !happens(self.state().weather.twice) {
            return None;
        }
        let copy = copy(request)?;
        let mut random = madsim::rand::thread_rng();
        let ms = match is_late_commit {
            true => random.gen_range(LATE_COMMIT_MS),
            false => match random.gen_range(0..4) {
                0 => random.gen_range(0..LATE_MS),
                _ => random.gen_range(0..SOON_MS),
            },
        };
        let delay = Duration::from_millis(ms);
        self.inner
            .trace
            .event(format_args!("{path} arrives again in {delay:?}"));
        Some((delay, copy))
    }

    fn may_repeat(&self, answer: &BoxMessage) -> bool {
        let taken = |status: Option<&v2::Status>| {
            status.is_some_and(|status| status.code == i32::from(v2::Code::Ok))
        };
        let may = if let Some(sent) = answer.downcast_ref::<v2::SendMessageResponse>() {
            let mut entries = sent.entries.iter();
            taken(sent.status.as_ref()) && entries.all(|entry| taken(entry.status.as_ref()))
        } else if let Some(updated) = answer.downcast_ref::<v2::UpdateOffsetResponse>() {
            taken(updated.status.as_ref())
        } else if let Some(answer) = answer.downcast_ref::<redelivery::RedeliveryResponse>() {
            answer.code == i32::from(v2::Code::Ok)
        } else {
            true
        };
        if may {
            self.inner.trace.happened(Effect::RequestTwice);
        }
        may
    }
}

/// A copy of a request that a network may well deliver twice: of every kind that changes something, but what
/// operators ask for, who look what became of it before they ask again.
fn copy(request: &BoxMessage) -> Option<BoxMessage> {
    copy_as::<raft::AppendRequest>(request)
        .or_else(|| copy_as::<raft::VoteRequest>(request))
        .or_else(|| copy_as::<raft::TransferLeaderRequest>(request))
        .or_else(|| copy_as::<raft::SnapshotOffer>(request))
        .or_else(|| copy_as::<raft::InstallRequest>(request))
        .or_else(|| copy_as::<raft::StatusRequest>(request))
        .or_else(|| copy_as::<opaque::SendMessageRequest>(request))
        .or_else(|| copy_as::<v2::UpdateOffsetRequest>(request))
        .or_else(|| copy_as::<redelivery::SendBackRequest>(request))
        .or_else(|| copy_as::<redelivery::SettleRequest>(request))
        .or_else(|| copy_as::<v2::HeartbeatRequest>(request))
        .or_else(|| copy_as::<cluster::RegisterRequest>(request))
        .or_else(|| copy_as::<cluster::GossipRequest>(request))
}

fn copy_as<M: Clone + Send + Sync + 'static>(request: &BoxMessage) -> Option<BoxMessage> {
    let request = request.downcast_ref::<M>()?;
    Some(Box::new(request.clone()))
}
