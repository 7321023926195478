//! Partitions: from the name of a shape to the links that it cuts.

use std::collections::BTreeSet;

use super::{Nemesis, sleep};
use crate::effect::FaultKind;
use crate::machine::Machine;
use crate::network::Cut;
use crate::schedule::{Shape, Side, Who};

type Links = BTreeSet<(Machine, Machine)>;

impl Nemesis {
    pub(super) async fn partition(&self, kind: FaultKind, shape: &Shape, how: Cut, for_ms: u64) {
        let links = self.links(shape);
        if links.is_empty() {
            return;
        }
        let what = self.in_words(shape);
        self.strikes(kind, format_args!("{what}, {how:?}, for {for_ms} ms"));
        let alone = Shape::Between {
            from: Side::Group,
            to: Side::Everybody,
            both: true,
        };
        if *shape == alone {
            self.goes_away();
        }
        for (from, to) in &links {
            self.world.network.cut(*from, *to, how);
        }
        sleep(for_ms).await;
        for (from, to) in links {
            self.world.network.mend(from, to, how);
        }
        if *shape == alone {
            self.comes_back();
        }
        self.tell(format_args!("{} ends", kind.name()));
    }

    /// One link after the other, mended in the opposite order from the middle on.
    pub(super) async fn swizzle(&self, links: &[(Machine, Machine)], how: Cut, for_ms: u64) {
        self.strikes(
            FaultKind::Swizzle,
            format_args!("{}, one after the other, {how:?}", one_way(links)),
        );
        let pause = for_ms / (2 * links.len().max(1) as u64);
        for (from, to) in links {
            self.world.network.cut(*from, *to, how);
            sleep(pause).await;
        }
        let (front, back) = links.split_at(links.len() / 2);
        for (from, to) in back.iter().chain(front) {
            self.world.network.mend(*from, *to, how);
            sleep(pause).await;
        }
    }

    /// Who is cut off from whom, as things are now.
    fn in_words(&self, shape: &Shape) -> String {
        let who = |who: &Who| match self.find(*who) {
            Some(machine) => machine.to_string(),
            None => who.to_string(),
        };
        match shape {
            Shape::Isolate(one) => format!("{} from all others", who(one)),
            Shape::Split(side) => format!("{} from all others", names(side)),
            Shape::LeaderWithClients => format!("{} from the other brokers", who(&Who::Leader)),
            Shape::Followers => format!("brokers from {} and all others", who(&Who::Leader)),
            Shape::OneWay(from, to) => format!("{} to {}", who(from), who(to)),
            Shape::Between { from, to, both } => {
                let back = if *both { ", and back" } else { "" };
                let side = |side| names(&self.side(side));
                format!("{} to {}{back}", side(*from), side(*to))
            }
            Shape::Deaf(deaf) => format!("all others to {}", who(deaf)),
            Shape::Mute(mute) => format!("{} to all others", who(mute)),
            Shape::Ring => "each broker from half of the others".to_owned(),
            Shape::Bridge(bridge) => format!("brokers but through {}", who(bridge)),
            Shape::NameServersFromBrokers => "name servers from brokers".to_owned(),
            Shape::NameServersInPart(links) => format!("{}, and back", one_way(links)),
            Shape::NameServersApart => "name servers from each other".to_owned(),
            Shape::ClientsFrom(broker) => format!("clients from {}", who(broker)),
            Shape::Swizzle(links) => one_way(links),
        }
    }

    fn links(&self, shape: &Shape) -> Links {
        let machines = self.world.machines();
        let brokers: Vec<Machine> = self.side(Side::Group);
        let name_servers: Vec<Machine> = machines.iter().copied().filter(is_name_server).collect();
        let clients: Vec<Machine> = machines.iter().copied().filter(is_client).collect();
        let one = |who| self.find(who).into_iter().collect::<Vec<_>>();
        let others = |of: &[Machine], but: &[Machine]| -> Vec<Machine> {
            let rest = of.iter().copied().filter(|machine| !but.contains(machine));
            rest.collect()
        };
        match shape {
            Shape::Isolate(who) => {
                let alone = one(*who);
                apart(&alone, &others(&machines, &alone))
            }
            Shape::Split(side) => {
                let side = side.iter().copied().filter(|one| machines.contains(one));
                let side: Vec<Machine> = side.collect();
                apart(&side, &others(&machines, &side))
            }
            Shape::LeaderWithClients => {
                let leader = self.side(Side::Leader);
                apart(&leader, &others(&brokers, &leader))
            }
            Shape::Followers => {
                let followers = others(&brokers, &self.side(Side::Leader));
                apart(&followers, &others(&machines, &followers))
            }
            Shape::OneWay(from, to) => towards(&one(*from), &one(*to)),
            Shape::Between { from, to, both } => {
                let (from, to) = (self.side(*from), self.side(*to));
                match both {
                    true => apart(&from, &to),
                    false => towards(&from, &to),
                }
            }
            Shape::Deaf(who) => {
                let deaf = one(*who);
                towards(&others(&machines, &deaf), &deaf)
            }
            Shape::Mute(who) => {
                let mute = one(*who);
                towards(&mute, &others(&machines, &mute))
            }
            Shape::Ring => ring(&brokers),
            Shape::Bridge(who) => {
                let rest = others(&brokers, &one(*who));
                let (left, right) = rest.split_at(rest.len() / 2);
                apart(left, right)
            }
            Shape::NameServersFromBrokers => apart(&name_servers, &brokers),
            Shape::NameServersInPart(links) => {
                let back = links.iter().map(|(from, to)| (*to, *from));
                links.iter().copied().chain(back).collect()
            }
            Shape::NameServersApart => apart(&name_servers, &name_servers),
            Shape::ClientsFrom(who) => apart(&clients, &one(*who)),
            Shape::Swizzle(links) => links.iter().copied().collect(),
        }
    }
}

impl Nemesis {
    /// The machines of one side, as things are now.
    fn side(&self, side: Side) -> Vec<Machine> {
        let machines = self.world.machines().into_iter();
        let in_group = |machine: &Machine| match machine {
            Machine::Broker(id) => self.world.group_of(*id) == self.group,
            _ => false,
        };
        match side {
            Side::Leader => self.world.leader(self.group).into_iter().collect(),
            Side::Machine(machine) => machines.filter(|one| *one == machine).collect(),
            Side::Group => machines.filter(in_group).collect(),
            Side::OtherGroups => machines
                .filter(|machine| is_broker(machine) && !in_group(machine))
                .collect(),
            Side::NameServers => machines.filter(is_name_server).collect(),
            Side::Clients => machines.filter(is_client).collect(),
            Side::Everybody => machines.filter(|machine| !in_group(machine)).collect(),
        }
    }
}

pub(super) fn names(machines: &[Machine]) -> String {
    let names: Vec<String> = machines.iter().map(Machine::to_string).collect();
    names.join(", ")
}

fn one_way(links: &[(Machine, Machine)]) -> String {
    let links = links.iter().map(|(from, to)| format!("{from} to {to}"));
    links.collect::<Vec<String>>().join(", ")
}

fn is_broker(machine: &Machine) -> bool {
    matches!(machine, Machine::Broker(_))
}

fn is_name_server(machine: &Machine) -> bool {
    matches!(machine, Machine::NameServer(_))
}

fn is_client(machine: &Machine) -> bool {
    matches!(machine, Machine::Client(_) | Machine::Operator)
}

fn towards(from: &[Machine], to: &[Machine]) -> Links {
    let pairs = from
        .iter()
        .flat_map(|from| to.iter().map(|to| (*from, *to)));
    pairs.filter(|(from, to)| from != to).collect()
}

fn apart(some: &[Machine], others: &[Machine]) -> Links {
    let mut links = towards(some, others);
    links.extend(towards(others, some));
    links
}

/// Each machine loses one neighbour of two. With three machines that leaves a chain, whose middle alone sees
/// everybody; with five, five different majorities.
fn ring(brokers: &[Machine]) -> Links {
    let count = brokers.len();
    let mut links = Links::new();
    for (place, broker) in brokers.iter().enumerate() {
        let far = brokers[(place + count / 2) % count];
        if (place, far) != (count - 1, brokers[0]) || count > 3 {
            links.extend(apart(&[*broker], &[far]));
        }
    }
    match count {
        // All three would be alone.
        3 => apart(&brokers[..1], &brokers[1..2]),
        _ => links,
    }
}
