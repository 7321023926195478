//! Who speaks: this replica's introduction to its peers, and what is remembered of theirs.
//!
//! Two processes must not pass for one replica: each would keep only half of the promises that the
//! group counts as one. Every peer remembers which process it last heard under each broker id, and
//! refuses another one while the first is alive. Only a later start of the same data directory,
//! whose lock proves that the earlier one ended, takes over at once. What peers have promised is
//! remembered on the disk too ([`Promises`]), and an older copy of one is refused for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::raft::{Announcement, Sender};
use store::Identity;
use tokio::time::Instant;
use tonic::Status;

use crate::addresses::Addresses;
use crate::incarnation::{Incarnation, starts_of};
use crate::member::Member;
use crate::promises::{Promise, Promises};

/// A process that was not heard for so long counts as gone. Several intervals of [`HELLO_INTERVAL`].
pub(crate) const ALIVE: Duration = Duration::from_secs(5);

/// Time between introductions to each peer.
pub(crate) const HELLO_INTERVAL: Duration = Duration::from_secs(1);

/// Who we are, what group we are in, and whom we heard.
#[derive(Clone)]
pub(crate) struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    /// What this replica held of what it had promised when it started.
    own: Promise,
    addresses: Addresses,
    heard: Mutex<BTreeMap<u64, Heard>>,
    promises: Mutex<Promises>,
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addressee {
    /// The broker; 0: whoever has the address.
    pub(crate) broker_id: u64,
    /// Its data directory; 0: whichever it has.
    pub(crate) replica_id: u64,
}

/// The process last heard under a broker id.
#[derive(Clone, Copy, Debug)]
struct Heard {
    incarnation: Incarnation,
    at: Instant,
}

impl Peers {
    /// `members` are the configured ones.
    pub(crate) fn new(
        identity: Identity,
        own: Promise,
        promises: Promises,
        members: &[Member],
    ) -> Peers {
        let member = members
            .iter()
            .find(|one| one.broker_id == identity.broker_id);
        let announcement = Announcement {
            broker_id: identity.broker_id,
            replica_id: own.replica_id,
            incarnation: own.incarnation,
            peer_address: member.map_or_else(String::new, |own| own.peer_address.clone()),
            client_address: member.map_or_else(String::new, |own| own.client_address.clone()),
        };
        let addresses = Addresses::new(announcement, members);
        Peers {
            inner: Arc::new(Inner {
                identity,
                addresses,
                own,
                heard: Mutex::new(BTreeMap::new()),
                promises: Mutex::new(promises),
            }),
        }
    }

    /// What peers have promised.
    pub(crate) fn promises(&self) -> MutexGuard<'_, Promises> {
        // Plain values: nothing is half done if a holder panicked.
        let promises = self.inner.promises.lock();
        promises.unwrap_or_else(|error| error.into_inner())
    }

    /// Where the others are reached.
    pub(crate) fn addresses(&self) -> &Addresses {
        &self.inner.addresses
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        let Promise {
            replica_id,
            incarnation: number,
            ..
        } = self.inner.own;
        Incarnation { replica_id, number }
    }

    /// How we introduce ourselves to whoever has an address.
    pub(crate) fn sender(&self) -> Sender {
        self.sender_to(Addressee::default())
    }

    /// How we introduce ourselves to one replica: another broker that has its address refuses, and so does the
    /// same broker with another data directory.
    pub(crate) fn sender_to(&self, to: Addressee) -> Sender {
        Sender {
            broker_id: self.inner.identity.broker_id,
            replica_id: self.inner.own.replica_id,
            incarnation: self.inner.own.incarnation,
            target: to.broker_id,
            target_replica_id: to.replica_id,
            promised_term: Some(self.inner.own.term),
            promised_end: Some(self.inner.own.end),
            known_of_target: self.promises().of(to.broker_id).map(Promise::to_wire),
        }
    }

    /// How we introduce ourselves to a broker, whichever data directory it has.
    pub(crate) fn sender_to_broker(&self, broker_id: u64) -> Sender {
        Sender {
            target: 0,
            ..self.sender_to(Addressee {
                broker_id,
                replica_id: 0,
            })
        }
    }

    /// What a caller of our group knows that we have promised, and that our data directory does not hold: then it is an
    /// older copy of what it was.
    pub(crate) fn forgotten(
        &self,
        cluster_id: &str,
        group: &str,
        sender: Option<&Sender>,
    ) -> Option<String> {
        self.check_group(cluster_id, group).ok()?;
        let known = Promise::from_wire(sender?.known_of_target.as_ref()?);
        known.contradiction(&self.inner.own)
    }

    /// Refuses a caller of another group, one who means another replica, and a second process under one broker id.
    #[allow(clippy::result_large_err, reason = "the transport's own error type")]
    pub(crate) fn admit(
        &self,
        cluster_id: &str,
        group: &str,
        sender: Option<&Sender>,
    ) -> Result<(), Status> {
        self.check_group(cluster_id, group)?;
        let sender = sender.ok_or_else(|| Status::invalid_argument("field sender is missing"))?;
        self.check_addressee(sender)?;
        self.check_sender(sender)
    }

    /// Whether a caller of our group means us, with the data directory of another replica.
    pub(crate) fn is_for_another_directory(
        &self,
        cluster_id: &str,
        group: &str,
        sender: Option<&Sender>,
    ) -> bool {
        let ours = self.check_group(cluster_id, group).is_ok();
        sender.is_some_and(|sender| {
            let means_us = sender.target == self.inner.identity.broker_id;
            ours && means_us && !self.is_own_directory(sender)
        })
    }

    fn is_own_directory(&self, sender: &Sender) -> bool {
        let replica_id = sender.target_replica_id;
        replica_id == 0 || replica_id == self.inner.own.replica_id
    }

    /// What another replica promised must not be answered for by this one.
    #[allow(clippy::result_large_err, reason = "the transport's own error type")]
    fn check_addressee(&self, sender: &Sender) -> Result<(), Status> {
        let (target, own) = (sender.target, self.inner.identity.broker_id);
        if target != 0 && target != own {
            let error = format!("request is for broker {target}, this is {own}");
            return Err(Status::failed_precondition(error));
        }
        if !self.is_own_directory(sender) {
            let error = format!(
                "request is for the data directory that broker {own} had when it joined, this is another one"
            );
            return Err(Status::failed_precondition(error));
        }
        Ok(())
    }

    #[allow(clippy::result_large_err, reason = "the transport's own error type")]
    pub(crate) fn check_group(&self, cluster_id: &str, group: &str) -> Result<(), Status> {
        let identity = &self.inner.identity;
        if cluster_id == identity.cluster_id && group == identity.group {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "caller is of cluster {cluster_id:?} group {group:?}, this is broker {} of cluster {:?} group {:?}",
            identity.broker_id, identity.cluster_id, identity.group
        )))
    }

    #[allow(clippy::result_large_err, reason = "the transport's own error type")]
    fn check_sender(&self, sender: &Sender) -> Result<(), Status> {
        let caller = Incarnation {
            replica_id: sender.replica_id,
            number: sender.incarnation,
        };
        if sender.broker_id == self.inner.identity.broker_id {
            if caller == self.incarnation() {
                return Ok(());
            }
            return Err(duplicate(sender.broker_id, "this process"));
        }
        let (promise, rolled_back) = {
            let promises = self.promises();
            let rolled_back = promises.rolled_back(sender.broker_id, sender.incarnation);
            (promises.of(sender.broker_id), rolled_back)
        };
        // An earlier version does not say what it held: that alone is nothing against it.
        let started = Promise {
            replica_id: sender.replica_id,
            incarnation: sender.incarnation,
            term: sender.promised_term.unwrap_or(u64::MAX),
            end: sender.promised_end.unwrap_or(u64::MAX),
        };
        let contradiction = promise.and_then(|promise| promise.contradiction(&started));
        if let Some(contradiction) = rolled_back.or(contradiction) {
            return Err(Status::data_loss(contradiction));
        }
        let now = Instant::now();
        let mut heard = self.heard();
        if let Some(known) = heard.get(&sender.broker_id)
            && !may_take_over(known, &caller, now)
        {
            return Err(duplicate(sender.broker_id, "another process"));
        }
        heard.insert(
            sender.broker_id,
            Heard {
                incarnation: caller,
                at: now,
            },
        );
        Ok(())
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<u64, Heard>> {
        // A map of plain values: nothing is half done if a holder panicked.
        self.inner
            .heard
            .lock()
            .unwrap_or_else(|error| error.into_inner())
    }
}

fn may_take_over(known: &Heard, caller: &Incarnation, now: Instant) -> bool {
    let known_number = known.incarnation.number;
    if known.incarnation.replica_id != caller.replica_id {
        return !is_alive(known, now);
    }
    match starts_of(caller.number).cmp(&starts_of(known_number)) {
        std::cmp::Ordering::Greater => true,
        // The directory's lock forbids it, so somebody copied the directory.
        std::cmp::Ordering::Equal => caller.number == known_number || !is_alive(known, now),
        // A later start was heard: this one should have ended.
        std::cmp::Ordering::Less => false,
    }
}

fn is_alive(heard: &Heard, now: Instant) -> bool {
    now.saturating_duration_since(heard.at) < ALIVE
}

fn duplicate(broker_id: u64, holder: &str) -> Status {
    Status::already_exists(format!(
        "broker id {broker_id} is held by {holder}, which is alive"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promises::Heard;

    fn peers() -> Peers {
        let identity = Identity {
            cluster_id: "c".into(),
            group: "g".into(),
            broker_id: 1,
        };
        let own = Promise {
            replica_id: 11,
            incarnation: 1 << 32,
            term: 4,
            end: 100,
        };
        Peers::new(identity, own, Promises::default(), &[])
    }

    fn sender(replica_id: u64, starts: u64, random: u64) -> Sender {
        Sender {
            broker_id: 2,
            replica_id,
            incarnation: starts << 32 | random,
            target: 1,
            target_replica_id: 11,
            promised_term: Some(4),
            promised_end: Some(100),
            known_of_target: None,
        }
    }

    fn admits(peers: &Peers, sender: Sender) -> bool {
        peers.admit("c", "g", Some(&sender)).is_ok()
    }

    /// Catches a restart that is locked out, and a second process that is let in.
    #[tokio::test]
    async fn only_a_later_start_takes_over_from_a_living_process() {
        let peers = peers();
        assert!(admits(&peers, sender(22, 5, 9)));
        assert!(admits(&peers, sender(22, 5, 9)), "the same process again");
        assert!(!admits(&peers, sender(33, 9, 1)), "another data directory");
        assert!(
            !admits(&peers, sender(22, 5, 8)),
            "a copy of the data directory"
        );
        assert!(!admits(&peers, sender(22, 4, 9)), "an earlier start");
        assert!(admits(&peers, sender(22, 6, 1)), "a restart");
        assert!(
            !admits(&peers, sender(22, 5, 9)),
            "the process before the restart"
        );
    }

    /// Catches a broker id that can never be used again after its process died.
    #[tokio::test]
    async fn a_process_not_heard_for_long_gives_way() {
        let peers = peers();
        assert!(admits(&peers, sender(22, 5, 9)));
        for heard in peers.heard().values_mut() {
            heard.at = Instant::now().checked_sub(ALIVE).unwrap();
        }
        assert!(admits(&peers, sender(33, 1, 1)));
    }

    /// Catches calls from another group, and from a twin of this very replica.
    #[test]
    fn strangers_and_twins_are_refused() {
        let peers = peers();
        assert!(peers.admit("other", "g", Some(&sender(22, 1, 1))).is_err());
        assert!(peers.admit("c", "other", Some(&sender(22, 1, 1))).is_err());
        assert!(peers.admit("c", "g", None).is_err());
        let twin = Sender {
            broker_id: 1,
            ..sender(11, 2, 0)
        };
        assert!(peers.admit("c", "g", Some(&twin)).is_err());
        assert!(peers.admit("c", "g", Some(&peers.sender())).is_ok());
    }

    /// Catches a broker that confirms entries, or votes, in the place of a dead voter whose address it was given.
    #[test]
    fn what_is_for_another_broker_is_refused() {
        let (peers, sender) = (peers(), sender(22, 1, 1));
        assert!(admits(&peers, sender));
        assert!(!admits(
            &peers,
            Sender {
                target: 3,
                ..sender
            }
        ));
        assert!(
            admits(
                &peers,
                Sender {
                    target: 0,
                    ..sender
                }
            ),
            "to anybody"
        );
    }

    /// Catches a broker that lost its disk and votes, or confirms entries, as if it still knew what it had promised.
    #[test]
    fn what_is_for_a_data_directory_that_is_gone_is_refused() {
        let (peers, sender) = (peers(), sender(22, 1, 1));
        let to = |target_replica_id| Sender {
            target_replica_id,
            ..sender
        };
        assert!(admits(&peers, to(11)));
        assert!(!admits(&peers, to(12)));
        assert!(admits(&peers, to(0)), "whichever it has");
        let knows_better = |sender| peers.is_for_another_directory("c", "g", Some(&sender));
        assert!(knows_better(to(12)));
        assert!(!knows_better(to(11)) && !knows_better(to(0)));
        let elsewhere = Sender {
            target: 3,
            ..to(12)
        };
        assert!(!knows_better(elsewhere), "of another broker's directory");
    }

    /// Catches an older copy of a replica that is let in by peers that were started again, and one that answers for what
    /// it has forgotten.
    #[tokio::test]
    async fn an_older_copy_is_refused_by_whoever_remembers() {
        let peers = peers();
        let known = Heard {
            replica_id: 22,
            incarnation: 5 << 32 | 9,
            term: Some(4),
            end: Some(0),
        };
        peers.promises().note(2, known, Instant::now());
        let refused = peers.admit("c", "g", Some(&sender(22, 4, 1))).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::DataLoss);
        assert!(admits(&peers, sender(22, 6, 1)), "a restart");
        let forgot = Sender {
            promised_term: Some(3),
            ..sender(22, 7, 1)
        };
        assert!(!admits(&peers, forgot), "a forgotten vote");
        let silent = Sender {
            promised_term: None,
            promised_end: None,
            ..sender(22, 7, 1)
        };
        assert!(admits(&peers, silent), "an earlier version does not say");
        // A machine that was put back with its memory: the very process that was heard says less than it said.
        for term in [5, 4] {
            let heard = Heard {
                incarnation: 7 << 32 | 1,
                term: Some(term),
                ..known
            };
            peers.promises().note(2, heard, Instant::now());
        }
        let refused = peers.admit("c", "g", Some(&sender(22, 7, 1))).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::DataLoss);

        let asked = |incarnation, end| Sender {
            known_of_target: Some(proto::raft::Promise {
                replica_id: 11,
                incarnation,
                term: 4,
                end,
            }),
            ..sender(22, 6, 1)
        };
        let forgotten = |sender| peers.forgotten("c", "g", Some(&sender));
        assert_eq!(forgotten(asked(1 << 32, 300)), None, "this very process");
        assert_eq!(forgotten(asked(3, 100)), None, "an earlier one");
        assert!(forgotten(asked(3, 101)).is_some(), "an entry");
        assert!(forgotten(asked(2 << 32, 0)).is_some(), "a later process");
        assert_eq!(peers.forgotten("c", "other", Some(&asked(3, 101))), None);
    }
}
