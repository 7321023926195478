//! Which kinds of faults a world has: not all that its scenario knows, so that rare ones get worlds of their own.
//!
//! Where everything goes wrong at once, frequent faults cover rare ones up: a crash ends what a partition has begun. So each
//! world has about half of the kinds (swarm testing: Groce and others, ISSTA 2012). The first kind of a scenario is on in
//! each of its worlds; of the others each has its turn, by the number of the seed, and is then as frequent as the most
//! frequent one. Draws nothing of the faults themselves.

use super::kind::Kind;
use crate::chance::Chance;

/// One world of so many has all kinds.
const EVERYTHING_ONE_IN: u64 = 4;

/// The kinds of one world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Swarm {
    /// Those that are on, and their weights.
    pub(super) kinds: Vec<(Kind, u64)>,
    /// The one that has its turn: it happens for certain, however the rest is drawn.
    pub(super) turn: Option<Kind>,
}

impl Swarm {
    /// What is on in the world of a seed, of all kinds of its scenario.
    pub(super) fn draw(seed: u64, scenario: &str, all: &[(Kind, u64)]) -> Swarm {
        let Some((first, others)) = all.split_first() else {
            return Swarm {
                kinds: Vec::new(),
                turn: None,
            };
        };
        let mut chance = Chance::new(seed, &format!("swarm of {scenario}"));
        let everything = chance.one_in(EVERYTHING_ONE_IN);
        let turn = others.get((seed % others.len().max(1) as u64) as usize);
        let heaviest = all.iter().map(|(_, weight)| *weight).max().unwrap_or(1);
        let mut swarm = Swarm {
            kinds: vec![*first],
            turn: turn.map(|turn| turn.0),
        };
        for kind in others {
            let is_on = chance.one_in(2) || everything;
            if Some(kind) == turn {
                swarm.kinds.push((kind.0, heaviest));
            } else if is_on {
                swarm.kinds.push(*kind);
            }
        }
        swarm
    }
}

/// Of so many things at least one, each as likely as not; now and then all.
pub(super) fn some_of(chance: &mut Chance, count: u64) -> Vec<u64> {
    let everything = chance.one_in(EVERYTHING_ONE_IN);
    let some: Vec<u64> = (0..count)
        .filter(|_| chance.one_in(2) || everything)
        .collect();
    match some.is_empty() {
        true => vec![chance.below(count)],
        false => some,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[(Kind, u64)] = &[
        (Kind::Replace, 3),
        (Kind::Wipe, 1),
        (Kind::Transfer, 4),
        (Kind::Kill, 2),
        (Kind::PowerLoss, 1),
    ];

    /// Catches a world that lacks what gives its scenario the name, or the kind whose turn it is; and one in which a rare kind
    /// stays rare when it has its turn.
    #[test]
    fn the_first_kind_is_always_on_and_each_other_one_has_its_turn() {
        for seed in 1..100 {
            let swarm = Swarm::draw(seed, "test", ALL);
            let turn = ALL[1 + (seed % 4) as usize].0;
            assert_eq!(swarm.turn, Some(turn));
            assert_eq!(swarm.kinds[0], ALL[0]);
            assert!(swarm.kinds.contains(&(turn, 4)), "{swarm:?}");
        }
    }

    /// Catches a swarm that leaves nothing out, or never leaves everything in.
    #[test]
    fn worlds_have_some_kinds_and_now_and_then_all() {
        let counts = (1..100).map(|seed| Swarm::draw(seed, "test", ALL).kinds.len());
        let counts: Vec<usize> = counts.collect();
        for expected in 2..=ALL.len() {
            assert!(counts.contains(&expected), "none has {expected}");
        }
        assert!(counts.iter().filter(|count| **count < ALL.len()).count() > 50);
    }

    /// Catches a scenario of one kind, or of none, that cannot be drawn.
    #[test]
    fn a_scenario_of_one_kind_has_that_one() {
        let alone = &ALL[..1];
        let swarm = Swarm::draw(7, "test", alone);
        assert_eq!((&swarm.kinds[..], swarm.turn), (alone, None));
        assert!(Swarm::draw(7, "test", &[]).kinds.is_empty());
    }

    /// Catches a choice of nothing.
    #[test]
    fn some_are_never_none() {
        for seed in 0..100 {
            let some = some_of(&mut Chance::new(seed, "test"), 2);
            assert!(!some.is_empty() && some.iter().all(|one| *one < 2));
        }
    }
}
