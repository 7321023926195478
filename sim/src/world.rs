//! One world: machines, the network between them, and what can be done to them.
//!
//! Built inside a simulation, from a seed and a plan. Knows how to crash and to start, not when: that is
//! the nemesis's business; not what is right: that is the invariants' and the oracle's.

mod differing;
mod groups;
mod keeper;
mod restored;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{BrokerConfig, MemberConfig};
use host::Host;
use madsim::runtime::Handle;
use madsim::task::NodeId;
use nameserver::NameServerConfig;

use crate::broker_group::BrokerGroup;
use crate::broker_process::BrokerProcess;
use crate::clock::SimClock;
use crate::disk::{DiskCopy, SimDisk};
use crate::machine::{ADMIN_PORT, CLIENT_PORT, Machine, NAME_SERVER_PORT, PEER_PORT};
use crate::name_server_process::NameServerProcess;
use crate::network::Network;
use crate::trace::Trace;

const KIB: u64 = 1 << 10;

/// How large a world is, and how it is configured.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Brokers with which the first group begins.
    pub brokers: u8,
    /// Brokers with which each further group begins.
    pub more_groups: Vec<u8>,
    /// Name servers.
    pub name_servers: u8,
    /// What all brokers have in common.
    pub broker: BrokerConfig,
    /// What all name servers have in common.
    pub name_server: NameServerConfig,
}

impl Default for Shape {
    /// Three brokers and two name servers, with everything small, so that segments end, checkpoints are
    /// taken and leases expire within seconds.
    fn default() -> Shape {
        let broker = BrokerConfig {
            cluster_id: "sim".to_owned(),
            group: BrokerGroup::FIRST.name().to_owned(),
            data_dir: "/data".into(),
            message_bytes_max: 4 * KIB,
            request_bytes_max: 72 * KIB,
            segment_bytes: 256 * KIB,
            disk_reserve_bytes: 512 * KIB,
            checkpoint_log_bytes: 128 * KIB,
            log_retain_ms: 0,
            registration_lease_ms: 6_000,
            client_expiry_ms: 8_000,
            ..BrokerConfig::default()
        };
        let name_server = NameServerConfig {
            cluster_id: "sim".to_owned(),
            ..NameServerConfig::default()
        };
        Shape {
            brokers: 3,
            more_groups: Vec::new(),
            name_servers: 2,
            broker,
            name_server,
        }
    }
}

impl Shape {
    /// How many broker groups there are.
    pub fn group_count(&self) -> u8 {
        1 + self.more_groups.len() as u8
    }

    /// Brokers with which each group begins.
    pub fn group_sizes(&self) -> Vec<u8> {
        let more = self.more_groups.iter().copied();
        std::iter::once(self.brokers).chain(more).collect()
    }

    /// The groups, each with the numbers of those brokers.
    fn first_members(&self) -> impl Iterator<Item = (BrokerGroup, Vec<u8>)> {
        let groups = BrokerGroup::all(self.group_count()).zip(self.group_sizes());
        groups.map(|(group, size)| (group, (group.base() + 1..=group.base() + size).collect()))
    }
}

/// What a process died of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// It was killed; the machine goes on.
    Process,
    /// The machine lost power; the number decides what of its disk is left.
    Power(u64),
}

impl Crash {
    /// What is left of a disk.
    fn strike(self, disk: &SimDisk) {
        match self {
            Crash::Process => disk.unmount(),
            Crash::Power(seed) => disk.lose_power(seed),
        }
    }
}

/// Whether a machine's process should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Running,
    Paused,
    Down,
}

/// The world.
pub struct World {
    /// The seed that it was built from.
    pub seed: u64,
    /// What happens in it.
    pub trace: Arc<Trace>,
    /// What lies between its machines.
    pub network: Network,
    shape: Shape,
    simulator: Handle,
    brokers: Mutex<BTreeMap<u8, Arc<BrokerProcess>>>,
    name_servers: BTreeMap<u8, Arc<NameServerProcess>>,
    nodes: Mutex<BTreeMap<Machine, Node>>,
    on_new_broker: Mutex<Option<OnNewBroker>>,
    /// Of clients and the operator: what their processes leave to the next ones.
    client_disks: Mutex<BTreeMap<Machine, SimDisk>>,
    wiped: Mutex<BTreeSet<u8>>,
    rolled_back: Mutex<BTreeMap<u8, u64>>,
    members: Mutex<groups::Voters>,
    restored: restored::RestoredGroups,
}

type OnNewBroker = Box<dyn Fn(Arc<BrokerProcess>) + Send>;

struct Node {
    id: NodeId,
    wanted: Wanted,
}

impl World {
    /// Builds the machines and starts brokers and name servers. Must be called on the operator's machine.
    pub fn build(seed: u64, shape: Shape, trace: Arc<Trace>) -> Arc<World> {
        let network = Network::new(trace.clone());
        host::network::simulated::set_wire(Some(Arc::new(network.clone())));
        let name_servers = (1..=shape.name_servers)
            .map(|number| (number, name_server(&shape, number, &trace)))
            .collect();
        let first_members: Vec<_> = shape.first_members().collect();
        let members = first_members.iter().cloned();
        let members = members.map(|(group, members)| (group, (None, members)));
        let world = Arc::new(World {
            seed,
            trace,
            network,
            simulator: Handle::current(),
            brokers: Mutex::default(),
            name_servers,
            nodes: Mutex::default(),
            on_new_broker: Mutex::default(),
            client_disks: Mutex::default(),
            wiped: Mutex::default(),
            rolled_back: Mutex::default(),
            members: Mutex::new(members.collect()),
            restored: restored::RestoredGroups::default(),
            shape,
        });
        let operator = Node {
            id: madsim::plugin::node(),
            wanted: Wanted::Running,
        };
        world.network.add(Machine::Operator, operator.id);
        world.nodes().insert(Machine::Operator, operator);
        for server in world.name_servers.values().cloned() {
            world.add_machine(server.machine, move || server.clone().run());
        }
        for (_, members) in first_members {
            for id in members.clone() {
                world.add_broker(id, &members);
            }
        }
        world
    }

    /// Adds a machine whose process is what `init` makes, and starts it.
    pub fn add_machine<F>(&self, machine: Machine, init: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let node = self
            .simulator
            .create_node()
            .name(machine.to_string())
            .ip(machine.ip())
            .init(init)
            .build();
        self.network.add(machine, node.id());
        let node = Node {
            id: node.id(),
            wanted: Wanted::Running,
        };
        self.nodes().insert(machine, node);
    }

    /// Adds a broker that is configured with `members`, itself included, and starts it.
    pub fn add_broker(self: &Arc<Self>, id: u8, members: &[u8]) {
        self.install(self.new_broker(id, members));
    }

    /// A broker that is configured with `members`, itself included, and has an empty disk.
    fn new_broker(&self, id: u8, members: &[u8]) -> Arc<BrokerProcess> {
        let machine = Machine::Broker(id);
        let group = self.group_of(id);
        let mut config = BrokerConfig {
            group: group.name().to_owned(),
            broker_id: id.into(),
            dead_letter_queue: group.first_queue(),
            listen: machine.address(CLIENT_PORT),
            peer_listen: machine.address(PEER_PORT),
            admin_listen: machine.address(ADMIN_PORT),
            members: members.iter().copied().map(member).collect(),
            name_servers: self.name_server_addresses(),
            ..self.shape.broker.clone()
        };
        differing::differ(self.seed, id, &mut config);
        let process = Arc::new(BrokerProcess::new(machine, config, self.trace.clone()));
        (process.tables).remember_for(self.shape.broker.dedup_window_ms);
        process
    }

    /// Adds a broker and starts it.
    fn install(self: &Arc<Self>, process: Arc<BrokerProcess>) {
        let machine = process.machine;
        if let Machine::Broker(id) = machine {
            self.brokers().insert(id, process.clone());
        }
        let started = process.clone();
        self.add_machine(machine, move || started.clone().run());
        let on_new = self.on_new_broker.lock();
        if let Some(tell) = &*on_new.unwrap_or_else(PoisonError::into_inner) {
            tell(process.clone());
        }
        tokio::spawn(keeper::keep_broker(self.clone(), process));
    }

    /// Has the configurations of these brokers name them, as the guide says: whoever lost its tables, and with them who is in the
    /// group, asks those whom it is configured with.
    pub fn write_members(&self, group: BrokerGroup, ids: &[u64]) {
        for broker in self.brokers_of(group) {
            let mut config = broker.config();
            if ids.contains(&config.broker_id) {
                let ids = ids.iter().filter_map(|id| u8::try_from(*id).ok());
                config.members = ids.map(member).collect();
            }
        }
    }

    /// Tells of each broker that is added from now on.
    pub fn watch_new_brokers(&self, tell: impl Fn(Arc<BrokerProcess>) + Send + 'static) {
        let mut on_new = self
            .on_new_broker
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *on_new = Some(Box::new(tell));
    }

    /// All brokers that there ever were, by id.
    pub fn all_brokers(&self) -> Vec<Arc<BrokerProcess>> {
        self.brokers().values().cloned().collect()
    }

    /// One broker.
    pub fn broker(&self, id: u8) -> Option<Arc<BrokerProcess>> {
        self.brokers().get(&id).cloned()
    }

    /// All name servers.
    pub fn all_name_servers(&self) -> impl Iterator<Item = &Arc<NameServerProcess>> {
        self.name_servers.values()
    }

    /// Addresses of all name servers.
    pub fn name_server_addresses(&self) -> Vec<String> {
        let addresses = self.name_servers.keys();
        addresses
            .map(|number| Machine::NameServer(*number).address(NAME_SERVER_PORT))
            .collect()
    }

    /// All machines.
    pub fn machines(&self) -> Vec<Machine> {
        self.nodes().keys().copied().collect()
    }

    /// Whether there is such a machine.
    pub fn has(&self, machine: Machine) -> bool {
        self.nodes().contains_key(&machine) && !self.is_lost(machine)
    }

    /// What a new process with clients may ask of its machine. Its disk is as earlier processes left it.
    pub fn client_host(&self, machine: Machine, clock: Arc<SimClock>) -> Host {
        let mut disks = self.client_disks();
        let disk = disks
            .entry(machine)
            .or_insert_with(|| SimDisk::new(machine, self.trace.clone()))
            .mount();
        Host { clock, disk }
    }

    /// Whether the machine's process should be there and act.
    pub fn is_running(&self, machine: Machine) -> bool {
        let nodes = self.nodes();
        let node = nodes.get(&machine);
        node.is_some_and(|node| node.wanted == Wanted::Running)
    }

    /// Whether the machine has no process at the moment.
    pub fn has_ended(&self, machine: Machine) -> bool {
        let nodes = self.nodes();
        let node = nodes.get(&machine);
        node.is_some_and(|node| self.simulator.is_exit(node.id))
    }

    /// Ends a process by force. It stays down until it is started.
    pub fn crash(&self, machine: Machine, crash: Crash) {
        let id = self.nodes().get(&machine).map(|node| node.id);
        let Some(id) = id else {
            return;
        };
        self.want(machine, Wanted::Down);
        // Also one that is down or about to end: its machine has power, and a cache that is not on the disk.
        self.simulator.kill(id);
        self.clean_up(machine, crash);
    }

    /// Crashes a broker and empties its disk. It stays down until it is started.
    pub fn wipe(&self, id: u8) {
        self.crash(Machine::Broker(id), Crash::Process);
        if let Some(broker) = self.broker(id) {
            broker.disk.wipe();
            broker.forget_promises();
            self.wiped().insert(id);
        }
    }

    /// Crashes a broker and puts an older copy of its disk in the place of what is there. It stays down until it is
    /// started.
    pub fn roll_back(&self, id: u8, copy: &DiskCopy) {
        self.crash(Machine::Broker(id), Crash::Process);
        if let Some(broker) = self.broker(id) {
            broker.disk.put_back(copy);
            *self.rolled_back().entry(id).or_default() += 1;
        }
    }

    /// How many times a broker's disk was replaced by an older copy.
    pub fn times_rolled_back(&self, id: u8) -> u64 {
        self.rolled_back().get(&id).copied().unwrap_or(0)
    }

    /// Whether a broker's disk was ever replaced by an older copy.
    pub fn is_rolled_back(&self, id: u8) -> bool {
        self.times_rolled_back(id) > 0
    }

    /// Whether a broker must never take part again, because its disk does not hold what it promised.
    pub fn must_be_replaced(&self, id: u8) -> bool {
        self.is_wiped(id) || self.is_rolled_back(id)
    }

    /// Whether a broker has lost its disk.
    pub fn is_wiped(&self, id: u8) -> bool {
        self.wiped().contains(&id)
    }

    /// Starts a process that is down, or lets one go on that is paused.
    pub fn start(&self, machine: Machine) {
        if self.is_lost(machine) {
            return;
        }
        let before = self.nodes().get(&machine).map(|node| node.wanted);
        let Some(id) = self.want(machine, Wanted::Running) else {
            return;
        };
        match before {
            Some(Wanted::Down) => {
                if !self.simulator.is_exit(id) {
                    // Asked to end, and not done with it.
                    self.clean_up(machine, Crash::Process);
                }
                self.simulator.kill(id);
                self.simulator.restart(id);
            }
            Some(Wanted::Paused) => self.simulator.resume(id),
            _ => {}
        }
    }

    /// Stops a process from doing anything, as if its machine were suspended. One that has ended by itself is about to
    /// be started again, and is not there to be stopped.
    pub fn pause(&self, machine: Machine) {
        if self.is_running(machine)
            && !self.has_ended(machine)
            && let Some(id) = self.want(machine, Wanted::Paused)
        {
            self.simulator.pause(id);
        }
    }

    /// Lets a paused process go on.
    pub fn resume(&self, machine: Machine) {
        let nodes = self.nodes();
        let paused = nodes
            .get(&machine)
            .is_some_and(|node| node.wanted == Wanted::Paused);
        drop(nodes);
        if paused {
            self.start(machine);
        }
    }

    /// Asks a process to end in order. It stays down until it is started.
    pub fn stop(&self, machine: Machine) {
        if !self.is_running(machine) || self.want(machine, Wanted::Down).is_none() {
            return;
        }
        match machine {
            Machine::Broker(id) => self
                .broker(id)
                .iter()
                .for_each(|broker| broker.ask_to_stop()),
            Machine::NameServer(id) => self
                .name_servers
                .get(&id)
                .iter()
                .for_each(|server| server.ask_to_stop()),
            Machine::Client(_) | Machine::Operator => self.crash(machine, Crash::Process),
        }
    }

    /// Everything is in order from now on: links, disks, clocks; every machine runs.
    pub fn heal(&self) {
        self.network.heal();
        for broker in self.all_brokers() {
            broker.disk.heal();
            broker.tables.heal();
            broker.clock.heal();
        }
        for server in self.name_servers.values() {
            server.clock.heal();
        }
        for disk in self.client_disks().values() {
            disk.heal();
        }
        for machine in self.machines() {
            self.start(machine);
        }
    }

    /// Nothing lives any more, and nothing of it is left in memory: a sweep has many worlds.
    pub fn end(&self) {
        let on_new = self.on_new_broker.lock();
        *on_new.unwrap_or_else(PoisonError::into_inner) = None;
        for machine in self.machines() {
            if machine != Machine::Operator {
                self.crash(machine, Crash::Process);
            }
        }
        for broker in self.all_brokers() {
            broker.disk.discard();
        }
        for disk in self.client_disks().values() {
            disk.discard();
        }
    }

    /// The disk of a machine, if it has one.
    pub fn disk(&self, machine: Machine) -> Option<SimDisk> {
        match machine {
            Machine::Broker(id) => self.broker(id).map(|broker| broker.disk.clone()),
            Machine::Client(_) => self.client_disks().get(&machine).cloned(),
            _ => None,
        }
    }

    fn clean_up(&self, machine: Machine, crash: Crash) {
        match machine {
            Machine::Broker(id) => {
                if let Some(broker) = self.broker(id) {
                    broker.forget();
                    crash.strike(&broker.disk);
                }
            }
            Machine::NameServer(id) => self
                .name_servers
                .get(&id)
                .iter()
                .for_each(|server| server.forget()),
            Machine::Client(_) | Machine::Operator => {
                if let Some(disk) = self.client_disks().get(&machine) {
                    crash.strike(disk);
                }
            }
        }
    }

    /// The node of a machine, if this changes what is wanted of it.
    fn want(&self, machine: Machine, wanted: Wanted) -> Option<NodeId> {
        let mut nodes = self.nodes();
        let node = nodes.get_mut(&machine)?;
        let changes = node.wanted != wanted;
        node.wanted = wanted;
        changes.then_some(node.id)
    }

    fn brokers(&self) -> MutexGuard<'_, BTreeMap<u8, Arc<BrokerProcess>>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client_disks(&self) -> MutexGuard<'_, BTreeMap<Machine, SimDisk>> {
        let disks = self.client_disks.lock();
        disks.unwrap_or_else(PoisonError::into_inner)
    }

    fn wiped(&self) -> MutexGuard<'_, BTreeSet<u8>> {
        self.wiped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rolled_back(&self) -> MutexGuard<'_, BTreeMap<u8, u64>> {
        let rolled_back = self.rolled_back.lock();
        rolled_back.unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<Machine, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn member(id: u8) -> MemberConfig {
    let machine = Machine::Broker(id);
    MemberConfig {
        broker_id: id.into(),
        client_address: machine.address(CLIENT_PORT),
        peer_address: machine.address(PEER_PORT),
    }
}

fn name_server(shape: &Shape, number: u8, trace: &Arc<Trace>) -> Arc<NameServerProcess> {
    let machine = Machine::NameServer(number);
    let address = |number: u8| Machine::NameServer(number).address(NAME_SERVER_PORT);
    let others = (1..=shape.name_servers).filter(|other| *other != number);
    let config = NameServerConfig {
        listen: address(number),
        advertise: address(number),
        peers: others.map(address).collect(),
        ..shape.name_server.clone()
    };
    Arc::new(NameServerProcess::new(machine, config, trace.clone()))
}
