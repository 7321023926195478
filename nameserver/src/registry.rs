//! Who leads which broker group, as far as this name server has heard.
//!
//! Everything known about a group is one registration. Registrations of a group are ordered by
//!
//! ```text
//! (epoch, version, renewal, content, lease)
//! ```
//!
//! and the highest wins, from wherever and in whatever order they arrive: merging is taking the maximum, so it is
//! commutative, associative and idempotent, and name servers that have heard the same things hold the same table. The epoch is
//! the leader's term, so a deposed leader cannot overwrite its successor.
//!
//! A registration is visible while its lease lasts, measured by the local monotonic clock from when its newest renewal was
//! first seen here. An expired one is remembered for a while: were it forgotten at once, a peer whose clock runs a little behind
//! would bring it back, and the two would revive it for each other for ever.
//!
//! Pure: `now` is passed in, nothing is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use proto::cluster::{Digest, GossipEntry, Registration};

use crate::registration::{LEAP_MAX, RegistrationError, checked};

/// Milliseconds on this process's monotonic clock, from any fixed start.
pub type MonotonicMs = u64;

/// An expired registration is remembered for this many of its leases. A peer may first see a renewal just before another
/// peer's copy expires, and hand it on just before its own does: this many name servers in a row may do that.
pub const REMEMBERED_LEASES: u64 = 10;

/// What a registry lets in.
#[derive(Clone, Debug)]
pub struct RegistryLimits {
    /// Only registrations of this cluster; empty for any.
    pub cluster_id: String,
    /// Most groups held, expired ones included.
    pub groups_max: usize,
    /// Shorter leases are lengthened to this.
    pub lease_ms_min: u64,
    /// Longer leases are cut to this.
    pub lease_ms_max: u64,
}

/// What became of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It is held now.
    Accepted,
    /// A newer one is held, and stays.
    Older {
        /// Epoch of the newer one.
        epoch: u64,
        /// Version of the newer one.
        version: u64,
    },
}

/// The registrations of all groups.
#[derive(Clone, Debug)]
pub struct Registry {
    limits: RegistryLimits,
    held: BTreeMap<String, Held>,
    /// Counts the visible changes.
    version: u64,
}

#[derive(Clone, Debug)]
struct Held {
    registration: Arc<Registration>,
    renewal: u64,
    lease_ms: u64,
    expires: MonotonicMs,
    expired: bool,
}

impl Registry {
    /// A registry that has heard of nobody.
    pub fn new(limits: RegistryLimits) -> Registry {
        Registry {
            limits,
            held: BTreeMap::new(),
            version: 0,
        }
    }

    /// Grows with every visible change; renewals are none.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A leader registers, or renews what it registered.
    ///
    /// `wall_ms` orders renewals that different name servers accept: the renewal number is one more than the last one
    /// known here, and at least the wall clock. So the later renewal wins in almost every case; where clocks differ the
    /// lease only ends earlier or later by the difference, once.
    ///
    /// # Errors
    ///
    /// The registration makes no sense, or there is no room for it.
    pub fn register(
        &mut self,
        registration: Registration,
        lease_ms: u64,
        wall_ms: u64,
        now: MonotonicMs,
    ) -> Result<Registered, RegistrationError> {
        let registration = self.admit(registration)?;
        let mut renewal = wall_ms;
        if let Some(held) = self.held.get(&registration.group) {
            let (epoch, version) = (held.registration.epoch, held.registration.version);
            if (registration.epoch, registration.version) < (epoch, version) {
                return Ok(Registered::Older { epoch, version });
            }
            renewal = renewal.max(held.renewal.saturating_add(1));
        }
        self.take(registration, renewal, lease_ms, now);
        Ok(Registered::Accepted)
    }

    /// What a peer says about one group.
    ///
    /// # Errors
    ///
    /// The entry makes no sense, or there is no room for it; it changed nothing.
    pub fn merge(&mut self, entry: GossipEntry, now: MonotonicMs) -> Result<(), RegistrationError> {
        let registration = self.admit(entry.registration.ok_or(RegistrationError::Missing)?)?;
        self.take(registration, entry.renewal, entry.lease_ms, now);
        Ok(())
    }

    /// Hides what was not renewed in time, and forgets what was hidden for long.
    pub fn expire(&mut self, now: MonotonicMs) {
        for held in self.held.values_mut() {
            if !held.expired && held.expires <= now {
                held.expired = true;
                self.version += 1;
            }
        }
        self.held
            .retain(|_, held| !held.expired || now < held.forgotten_at());
    }

    /// When [`expire`](Registry::expire) will next have something to do.
    pub fn next_expiry(&self) -> Option<MonotonicMs> {
        let next = |held: &Held| {
            if held.expired {
                held.forgotten_at()
            } else {
                held.expires
            }
        };
        self.held.values().map(next).min()
    }

    /// The registrations that clients may be told of, by group.
    pub fn visible(&self) -> impl Iterator<Item = &Arc<Registration>> {
        self.held
            .values()
            .filter(|held| !held.expired)
            .map(|held| &held.registration)
    }

    /// What was not renewed in time and is not forgotten yet, by group: no place to send clients to, but an operator has to
    /// hear that a group is gone.
    pub fn expired(&self) -> impl Iterator<Item = &Arc<Registration>> {
        self.held
            .values()
            .filter(|held| held.expired)
            .map(|held| &held.registration)
    }

    /// What is known of every group, without the content. Of expired ones too, so that peers do not send those back.
    pub fn digests(&self) -> Vec<Digest> {
        let digest = |held: &Held| Digest {
            group: held.registration.group.clone(),
            epoch: held.registration.epoch,
            version: held.registration.version,
            renewal: held.renewal,
        };
        self.held.values().map(digest).collect()
    }

    /// The visible entries that the owner of `digests` lacks, up to about `bytes_max`, but one at least.
    pub fn newer_than(&self, digests: &[Digest], bytes_max: usize) -> Vec<GossipEntry> {
        let theirs = by_group(digests);
        let newer = |held: &&Held| match theirs.get(held.registration.group.as_str()) {
            Some(digest) => *digest < held.order(),
            None => true,
        };
        limited(
            self.held
                .values()
                .filter(|held| !held.expired)
                .filter(newer),
            bytes_max,
        )
    }

    /// The groups of which the owner of `digests` knows more than is known here.
    pub fn wanted(&self, digests: &[Digest]) -> Vec<String> {
        let newer = |digest: &&Digest| match self.held.get(&digest.group) {
            Some(held) => held.order() < order(digest),
            None => true,
        };
        digests
            .iter()
            .filter(newer)
            .map(|digest| digest.group.clone())
            .collect()
    }

    /// The visible entries of the first of `groups`, up to about `bytes_max` but one at least, and how many of the names
    /// that has dealt with.
    pub fn entries(&self, groups: &[String], bytes_max: usize) -> (Vec<GossipEntry>, usize) {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (place, group) in groups.iter().enumerate() {
            let Some(held) = self.held.get(group).filter(|held| !held.expired) else {
                continue;
            };
            bytes += held.registration.encoded_len();
            if bytes > bytes_max && !entries.is_empty() {
                return (entries, place);
            }
            entries.push(held.entry());
        }
        (entries, groups.len())
    }

    fn admit(&self, registration: Registration) -> Result<Registration, RegistrationError> {
        let registration = checked(registration)?;
        let ours = &self.limits.cluster_id;
        if !ours.is_empty() && *ours != registration.cluster_id {
            return Err(RegistrationError::Cluster {
                group: registration.group,
                theirs: registration.cluster_id,
                ours: ours.clone(),
            });
        }
        self.check_leap(&registration)?;
        let max = self.limits.groups_max;
        if self.held.len() >= max && !self.held.contains_key(&registration.group) {
            return Err(RegistrationError::GroupsFull {
                group: registration.group,
                max,
            });
        }
        Ok(registration)
    }

    /// Refuses an epoch or a version that nothing can have led to.
    fn check_leap(&self, registration: &Registration) -> Result<(), RegistrationError> {
        let held = self.held.get(&registration.group);
        let (epoch, version) = held.map_or((0, 0), |held| {
            (held.registration.epoch, held.registration.version)
        });
        for (what, known, told) in [
            ("epoch", epoch, registration.epoch),
            ("version", version, registration.version),
        ] {
            if told.saturating_sub(known) > LEAP_MAX {
                return Err(RegistrationError::Leap {
                    group: registration.group.clone(),
                    what,
                    known,
                    told,
                });
            }
        }
        Ok(())
    }

    /// The maximum of what is held and this. The lease counts from now only if this is news.
    fn take(&mut self, registration: Registration, renewal: u64, lease_ms: u64, now: MonotonicMs) {
        let lease_ms = lease_ms.clamp(self.limits.lease_ms_min, self.limits.lease_ms_max);
        let new = Held {
            registration: Arc::new(registration),
            renewal,
            lease_ms,
            expires: now.saturating_add(lease_ms),
            expired: false,
        };
        let Some(held) = self.held.get_mut(&new.registration.group) else {
            self.held.insert(new.registration.group.clone(), new);
            self.version += 1;
            return;
        };
        if !held.is_older_than(&new) {
            return;
        }
        if held.expired || held.registration != new.registration {
            self.version += 1;
        }
        *held = new;
    }
}

impl Held {
    fn is_older_than(&self, other: &Held) -> bool {
        match self.order().cmp(&other.order()) {
            std::cmp::Ordering::Equal => {
                // Two contents under one pair: a broken registrant. Any fixed choice lets name servers agree.
                let tie = |held: &Held| (held.registration.encode_to_vec(), held.lease_ms);
                tie(self) < tie(other)
            }
            ordering => ordering.is_lt(),
        }
    }

    fn order(&self) -> (u64, u64, u64) {
        (
            self.registration.epoch,
            self.registration.version,
            self.renewal,
        )
    }

    fn forgotten_at(&self) -> MonotonicMs {
        self.expires
            .saturating_add(self.lease_ms.saturating_mul(REMEMBERED_LEASES))
    }

    fn entry(&self) -> GossipEntry {
        GossipEntry {
            registration: Some(Registration::clone(&self.registration)),
            renewal: self.renewal,
            lease_ms: self.lease_ms,
        }
    }
}

fn order(digest: &Digest) -> (u64, u64, u64) {
    (digest.epoch, digest.version, digest.renewal)
}

fn by_group(digests: &[Digest]) -> BTreeMap<&str, (u64, u64, u64)> {
    digests
        .iter()
        .map(|digest| (digest.group.as_str(), order(digest)))
        .collect()
}

fn limited<'a>(held: impl Iterator<Item = &'a Held>, bytes_max: usize) -> Vec<GossipEntry> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for held in held {
        bytes += held.registration.encoded_len();
        if bytes > bytes_max && !entries.is_empty() {
            break;
        }
        entries.push(held.entry());
    }
    entries
}

#[cfg(test)]
mod tests;
