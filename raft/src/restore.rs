//! A copy of a replica's data directory becomes the first and only replica of a group.
//!
//! For a group that is lost: its log goes on in the copy, under a membership of one, and other replicas join as they
//! join any group. The copy gets a broker id and a replica id of its own, so that it never speaks for the replica that
//! it was copied from, and a term that no leader of the lost group can have reached: what it registers is newer than
//! whatever name servers remember, and no two entries of one term and index differ.
//!
//! What the lost group stored after the copy was made is not in it. Entries that the copy holds and that were never
//! committed become committed: their senders were told nothing, or that the outcome is unknown. Must never be
//! done to the data directory of a group that lives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::Host;
use openraft::EntryPayload;
use store::{CommitLog, DataDir, Identity, Inspection, LogConfig, LogId, StoreError};
use tokio::sync::oneshot;

use crate::convert::{entry_to_store, log_id_of, vote_to_bytes};
use crate::error::RaftError;
use crate::incarnation::Incarnation;
use crate::member::Member;
use crate::terms::TERM_MAX;
use crate::types::{Payload, RaftEntry, RaftMembership, RaftVote};

/// Terms between the copy's last and its next one. A group that elects a leader every second needs eleven days for so many.
const TERMS_SKIPPED: u64 = 1_000_000;

/// Longest wait for the disk.
const DISK_TIMEOUT: Duration = Duration::from_secs(30);

/// What became of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Whose copy it was.
    pub from: Identity,
    /// Whose data directory it is now.
    pub identity: Identity,
    /// The last entry of the copy: the group goes on after it.
    pub last: LogId,
}

/// Makes the copy in `dir` the first replica of a group, under the broker id and the addresses of `member`. The group
/// keeps its name; `cluster_id` replaces the cluster's, for a look at a backup while the group lives.
///
/// `begins` makes the first entry that the application gets of the new history, from a number that no other history has:
/// what clients were told of the lost group's places means nothing in it.
///
/// May be repeated if it was interrupted.
///
/// # Errors
///
/// If the directory is in use or none, holds nothing, is damaged, or belonged to a broker with this very id.
pub async fn restore(
    host: &Host,
    dir: &Path,
    member: &Member,
    cluster_id: Option<String>,
    begins: &(dyn Fn(u64) -> Bytes + Sync),
) -> Result<Restored, RaftError> {
    let superblock = Inspection::open(host, dir)?.superblock().clone();
    let from = superblock.identity;
    if from.broker_id == member.broker_id {
        return Err(refused(format!(
            "{} is a copy of broker {}: choose a broker id that was never used in group {}",
            dir.display(),
            from.broker_id,
            from.group
        )));
    }
    let config = LogConfig {
        segment_bytes: superblock.segment_bytes,
        reserve_bytes: 0,
        spare_segments: 0,
        prefill: false,
        ..LogConfig::default()
    };
    let data_dir = Arc::new(DataDir::open(host, dir, &from, &config).await?);
    let (log, _) = CommitLog::open(&data_dir, config).await?;
    accept_what_is_left(&log).await?;
    let last = last_entry(&log, dir);
    let result = match last {
        Ok(last) => refound(host, (&data_dir, &log, last), member, begins).await,
        Err(error) => Err(error),
    };
    log.close().await;
    let last = result?;
    let identity = Identity {
        cluster_id: cluster_id.unwrap_or_else(|| from.cluster_id.clone()),
        group: from.group.clone(),
        broker_id: member.broker_id,
    };
    // Last, so that what was interrupted is repeated from its begin.
    data_dir.save_identity(identity.clone()).await?;
    Ok(Restored {
        from,
        identity,
        last,
    })
}

/// Of a copy without a note of what was synced nobody knows what is missing at its end. Whoever restores it has nothing
/// better: what is there counts.
async fn accept_what_is_left(log: &CommitLog) -> Result<(), RaftError> {
    let Some(last) = log.last().filter(|_| log.is_mark_lost()) else {
        return Ok(());
    };
    tracing::warn!(
        ?last,
        "the copy does not say how far it was synced: entries may be missing at its end"
    );
    log.learn_promise(last).await?;
    Ok(log.reset_from(last.index + 1, Vec::new()).await?)
}

fn last_entry(log: &CommitLog, dir: &Path) -> Result<LogId, RaftError> {
    if let Some(damage) = log.damage() {
        return Err(refused(format!(
            "the log in {} is damaged at entry {}: restore another copy",
            dir.display(),
            damage.first_bad_index
        )));
    }
    log.last()
        .ok_or_else(|| refused(format!("{} holds no entries", dir.display())))
}

/// Writes the membership of one, the first entry for the application, and the vote of the term that they were written in.
async fn refound(
    host: &Host,
    (data_dir, log, last): (&DataDir, &CommitLog, LogId),
    member: &Member,
    begins: &(dyn Fn(u64) -> Bytes + Sync),
) -> Result<LogId, RaftError> {
    let replica_id = Incarnation::renew(host, data_dir.path()).await?;
    let id = member.broker_id;
    let nodes = BTreeMap::from([(id, member.to_node(replica_id))]);
    let membership = RaftMembership::new(vec![BTreeSet::from([id])], nodes)
        .map_err(|error| refused(error.to_string()))?;
    let term = last.term.checked_add(TERMS_SKIPPED);
    let Some(term) = term.filter(|term| *term <= TERM_MAX) else {
        return Err(refused(format!(
            "the last entry of {} is of term {}, which no group reaches: somebody forged it; restore a copy from before",
            data_dir.path().display(),
            last.term
        )));
    };
    let alone = RaftEntry {
        log_id: log_id_of(term, last.index + 1),
        payload: EntryPayload::Membership(membership),
    };
    let first = RaftEntry {
        log_id: log_id_of(term, last.index + 2),
        payload: EntryPayload::Normal(Payload(begins(replica_id))),
    };
    let (done, synced) = oneshot::channel();
    let told = move |result: Result<(), StoreError>| drop(done.send(result));
    let entries = vec![entry_to_store(alone), entry_to_store(first)];
    log.append(entries, Box::new(told))?;
    match tokio::time::timeout(DISK_TIMEOUT, synced).await {
        Ok(Ok(result)) => result?,
        _ => {
            return Err(refused(format!(
                "the log was not synced within {DISK_TIMEOUT:?}"
            )));
        }
    }
    let vote = RaftVote::new_committed(term, id);
    data_dir.save_vote(vote_to_bytes(&vote)).await?;
    Ok(last)
}

fn refused(detail: String) -> RaftError {
    RaftError::Store(StoreError::Refused { detail })
}
