//! One call's way through failures: whom to ask next, after what wait, and when to stop asking.
//!
//! The decisions of `Connection::call`, of the producer and of the fetcher, without their waiting and sending.

use std::sync::Arc;
use std::time::Duration;

use proto::v2::Code;

use crate::answer::{Attempt, Patience, Refusal};
use crate::backoff::Backoff;
use crate::broker_table::BrokerTable;

/// Redirects that are followed without a wait; further ones wait, so that two brokers that point at each other are not
/// asked in a tight loop.
const REDIRECTS_AT_ONCE_MAX: u32 = 3;

/// Progress of one call.
#[derive(Debug)]
pub(crate) struct Pursuit {
    group: Arc<str>,
    turn: usize,
    redirects: u32,
    refusals: u32,
    refusals_max: u32,
    backoff: Backoff,
    /// Who did not answer the last attempt.
    lost: Option<Arc<str>>,
    /// An attempt may have taken effect although it failed.
    pub(crate) maybe_done: bool,
    once: bool,
}

/// What a failed attempt calls for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// Ask again after this wait.
    Again(Duration),
    /// The refusal stands.
    GiveUp,
}

impl Pursuit {
    /// Of a call to a broker group. `refusals_max`: how often to ask again after a refusal of few patience.
    pub(crate) fn new(group: Arc<str>, refusals_max: u32) -> Pursuit {
        Pursuit {
            group,
            turn: 0,
            redirects: 0,
            refusals: 0,
            refusals_max,
            backoff: Backoff::default(),
            lost: None,
            maybe_done: false,
            once: false,
        }
    }

    /// No further attempt once one may have taken effect, or may still.
    pub(crate) fn once(self, once: bool) -> Pursuit {
        Pursuit { once, ..self }
    }

    /// The same call, to another broker group: refusals go on counting.
    pub(crate) fn elsewhere(&self, group: Arc<str>) -> Pursuit {
        Pursuit {
            refusals: self.refusals,
            backoff: self.backoff.clone(),
            ..Pursuit::new(group, self.refusals_max)
        }
    }

    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    /// Whom to ask now. Not whom was just asked in vain, if there is anybody else: the table puts its addresses in another
    /// order when it hears of another leader.
    pub(crate) fn address(&self, brokers: &BrokerTable) -> Arc<str> {
        let address = brokers.address(&self.group, self.turn);
        match &self.lost {
            Some(lost) if *lost == address => brokers.address(&self.group, self.turn + 1),
            _ => address,
        }
    }

    /// Whom to ask now, and whom next: so many at the most, and nobody twice.
    pub(crate) fn addresses(&self, brokers: &BrokerTable, most: usize) -> Vec<Arc<str>> {
        let mut addresses = Vec::new();
        for turn in self.turn..self.turn + most {
            let address = brokers.address(&self.group, turn);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// The attempt at `address` failed. `redirected`: the failure named another leader.
    pub(crate) fn after<R>(
        &mut self,
        failure: &Attempt<R>,
        redirected: bool,
        brokers: &BrokerTable,
        address: &str,
    ) -> Next {
        match failure {
            Attempt::Answered(_) => Next::Again(Duration::ZERO),
            Attempt::Refused(refusal) => self.after_refusal(refusal, redirected),
            Attempt::Lost { sent, .. } => self.after_loss(*sent, redirected, brokers, address),
        }
    }

    /// There was no answer from `address`.
    pub(crate) fn after_loss(
        &mut self,
        sent: bool,
        redirected: bool,
        brokers: &BrokerTable,
        address: &str,
    ) -> Next {
        self.maybe_done |= sent;
        brokers.failed(&self.group, address);
        self.lost = Some(address.into());
        self.turn += 1;
        self.wait(redirected)
    }

    /// The answer was a refusal, of the whole call or of a part of it.
    pub(crate) fn after_refusal(&mut self, refusal: &Refusal, redirected: bool) -> Next {
        self.maybe_done |= refusal.leaves_outcome_unknown();
        self.lost = None;
        match refusal.patience() {
            Patience::None => return Next::GiveUp,
            Patience::Few if self.refusals >= self.refusals_max => return Next::GiveUp,
            Patience::Few => self.refusals += 1,
            Patience::UntilDeadline => {}
        }
        // Who has too much to do is still the one to ask; anyone else would only pass the call on to it.
        if refusal.code != Code::TooManyRequests {
            self.turn += 1;
        }
        self.wait(redirected)
    }

    /// What was asked for is not where it was asked for, and may be elsewhere: a few more times.
    pub(crate) fn after_lost_way(&mut self, redirected: bool) -> Next {
        if self.refusals >= self.refusals_max {
            return Next::GiveUp;
        }
        self.refusals += 1;
        self.wait(redirected)
    }

    fn wait(&mut self, redirected: bool) -> Next {
        if self.once && self.maybe_done {
            return Next::GiveUp;
        }
        if redirected {
            // The table knows the new leader by now: it is the first in turn.
            self.turn = 0;
            self.redirects += 1;
            if self.redirects <= REDIRECTS_AT_ONCE_MAX {
                return Next::Again(Duration::ZERO);
            }
        }
        Next::Again(self.backoff.next_wait())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(sent: bool) -> Attempt<()> {
        Attempt::Lost {
            reason: "reset".to_owned(),
            sent,
        }
    }

    fn refused(code: Code) -> Attempt<()> {
        Attempt::Refused(Refusal {
            code,
            reason: "no".to_owned(),
        })
    }

    /// Catches a leader change that costs a back-off, and a circle of redirects that costs a processor.
    #[test]
    fn redirects_are_followed_at_once_but_not_for_ever() {
        let brokers = BrokerTable::new(vec!["seed:1".into()]);
        let mut pursuit = Pursuit::new("g".into(), 2);
        let wait = Next::Again(Duration::ZERO);
        for leader in ["a:1", "b:1", "a:1"] {
            let asked = pursuit.address(&brokers);
            assert!(brokers.heard("g", leader, &asked));
            assert_eq!(
                pursuit.after(&refused(Code::HaNotAvailable), true, &brokers, &asked),
                wait
            );
            assert_eq!(&*pursuit.address(&brokers), leader);
        }
        assert_ne!(
            pursuit.after(&refused(Code::HaNotAvailable), true, &brokers, "a:1"),
            wait
        );
    }

    /// Catches endless retries of an error of the server, and a surrender during an election.
    #[test]
    fn few_retries_for_mistakes_and_many_for_what_passes() {
        let brokers = BrokerTable::new(vec!["seed:1".into()]);
        let mut pursuit = Pursuit::new("g".into(), 2);
        for _ in 0..20 {
            let next = pursuit.after(&refused(Code::HaNotAvailable), false, &brokers, "x");
            assert_ne!(next, Next::GiveUp);
        }
        assert!(!pursuit.maybe_done);
        let mistake = refused(Code::InternalServerError);
        assert_ne!(pursuit.after(&mistake, false, &brokers, "x"), Next::GiveUp);
        assert_ne!(pursuit.after(&mistake, false, &brokers, "x"), Next::GiveUp);
        assert_eq!(pursuit.after(&mistake, false, &brokers, "x"), Next::GiveUp);
        assert!(pursuit.maybe_done);
    }

    /// Catches a reset that is repeated while the first one is still on its way, and comes back later.
    #[test]
    fn what_must_not_come_twice_is_not_repeated_once_it_left() {
        let brokers = BrokerTable::new(vec!["seed:1".into()]);
        for failure in [lost(true), refused(Code::InternalServerError)] {
            let mut pursuit = Pursuit::new("g".into(), 2).once(true);
            for surely_not_done in [lost(false), refused(Code::HaNotAvailable)] {
                let next = pursuit.after(&surely_not_done, false, &brokers, "x");
                assert_ne!(next, Next::GiveUp);
            }
            let next = pursuit.after(&failure, false, &brokers, "x");
            assert_eq!(next, Next::GiveUp);
        }
    }

    /// Catches a call that waits twice for a broker which says nothing, because a route named another leader meanwhile.
    #[test]
    fn who_did_not_answer_is_not_asked_again_at_once() {
        let brokers = BrokerTable::new(vec!["seed:1".into()]);
        brokers.routed("g", "a:1");
        let mut pursuit = Pursuit::new("g".into(), 2);
        assert_eq!(&*pursuit.address(&brokers), "a:1");
        pursuit.after(&lost(true), false, &brokers, "a:1");
        brokers.routed("g", "b:1");
        assert_eq!(
            &*pursuit.address(&brokers),
            "seed:1",
            "not a:1, which is its turn"
        );
        let alone = BrokerTable::new(vec!["seed:1".into()]);
        let mut pursuit = Pursuit::new("g".into(), 2);
        pursuit.after(&lost(true), false, &alone, "seed:1");
        assert_eq!(&*pursuit.address(&alone), "seed:1", "there is nobody else");
    }

    /// Catches an outcome that is called certain although a request had left.
    #[test]
    fn one_lost_answer_makes_the_outcome_unknown() {
        let brokers = BrokerTable::new(vec!["seed:1".into(), "seed:2".into()]);
        let mut pursuit = Pursuit::new("g".into(), 2);
        assert_ne!(
            pursuit.after(&lost(false), false, &brokers, "seed:1"),
            Next::GiveUp
        );
        assert!(!pursuit.maybe_done);
        assert_eq!(&*pursuit.address(&brokers), "seed:2");
        assert_ne!(
            pursuit.after(&lost(true), false, &brokers, "seed:2"),
            Next::GiveUp
        );
        assert!(pursuit.maybe_done);
    }
}
