//! Which brokers there are, as far as the seeds know: those of registered groups, and those of groups that were.
//!
//! A group whose registration ran out is there for operators to hear of; no client is ever sent to one that it did not name.

use std::collections::BTreeSet;

use futures::future::join_all;
use proto::cluster;

use super::description::BrokerAddress;
use super::{Admin, replicas};
use crate::error::Error;

/// The replicas that seeds know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Of groups that are registered.
    pub(super) live: Vec<BrokerAddress>,
    /// Of groups that are registered with none of those that answered, and were.
    pub(super) expired: Vec<BrokerAddress>,
}

impl Known {
    /// What all of them know together, sorted: what one still knows has not expired.
    fn merged(answers: Vec<Known>) -> Known {
        let (mut live, mut expired) = (BTreeSet::new(), BTreeSet::new());
        for answer in answers {
            live.extend(answer.live);
            expired.extend(answer.expired);
        }
        let groups: BTreeSet<&str> = live.iter().map(|one| one.group.as_str()).collect();
        expired.retain(|one| !groups.contains(one.group.as_str()));
        Known {
            live: live.into_iter().collect(),
            expired: expired.into_iter().collect(),
        }
    }
}

impl Admin {
    /// All replicas of all broker groups that the seeds know, sorted.
    ///
    /// # Errors
    /// No seed answered.
    pub async fn brokers(&self) -> Result<Vec<BrokerAddress>, Error> {
        Ok(self.known().await?.live)
    }

    /// The same, and apart from them the replicas of broker groups whose registration has run out, sorted: such a group is
    /// down as a whole, or reaches no name server. Name servers remember it for ten of its leases (some minutes).
    ///
    /// # Errors
    /// No seed answered.
    pub async fn brokers_and_expired(
        &self,
    ) -> Result<(Vec<BrokerAddress>, Vec<BrokerAddress>), Error> {
        let known = self.known().await?;
        Ok((known.live, known.expired))
    }

    /// What all seeds know that answer.
    pub(super) async fn known(&self) -> Result<Known, Error> {
        let seeds = self.core.connection.brokers.seeds();
        let answers = join_all(seeds.iter().map(|seed| self.known_by(seed))).await;
        let mut answered = Vec::new();
        let mut failure = None;
        for answer in answers {
            match answer {
                Ok(known) => answered.push(known),
                Err(error) => failure = Some(error),
            }
        }
        let known = Known::merged(answered);
        match failure {
            Some(error) if known.live.is_empty() && known.expired.is_empty() => Err(error),
            _ => Ok(known),
        }
    }

    /// A name server has a table of all groups; a broker knows its own.
    async fn known_by(&self, seed: &str) -> Result<Known, Error> {
        let of_each = |registrations: Vec<cluster::Registration>| {
            let registrations = registrations.into_iter();
            registrations
                .flat_map(|registration| replicas(&registration.group, registration.replicas))
                .collect()
        };
        match self.raw_table(seed).await {
            Ok(table) => Ok(Known {
                live: of_each(table.registrations),
                expired: of_each(table.expired),
            }),
            Err(Error::Refused { .. }) => {
                let status = self.raw_status(seed).await?;
                Ok(Known {
                    live: replicas(&status.group, status.replicas),
                    expired: Vec::new(),
                })
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(groups: &[&str]) -> Vec<BrokerAddress> {
        let address = |group: &&str| BrokerAddress {
            group: (*group).to_owned(),
            broker_id: 1,
            client_address: format!("{group}:1"),
            peer_address: format!("{group}:2"),
        };
        groups.iter().map(address).collect()
    }

    fn known(live: &[&str], expired: &[&str]) -> Known {
        Known {
            live: of(live),
            expired: of(expired),
        }
    }

    /// Catches a group called lost because one name server does not hear of it, and one that is lost and left out.
    #[test]
    fn a_group_that_somebody_still_knows_has_not_expired() {
        let answers = vec![known(&["a"], &["b", "c"]), known(&["b", "a"], &["c"])];
        assert_eq!(Known::merged(answers), known(&["a", "b"], &["c"]));
        assert_eq!(Known::merged(Vec::new()), Known::default());
    }
}
