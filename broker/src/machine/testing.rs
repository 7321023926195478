//! A machine with tables and a log of its own, all in memory: for the tests of machine and view.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use host::Host;
use host::testing::{CrashDisk, ManualClock};
use prost::Message;
use proto::command::command::Body;
use proto::command::{Append, Command, CommandReply, Entry, IdRun, PutGroup, PutTopic, Reply};
use raft::{Application, Committed};
use store::{CommitLog, DataDir, EntryKind, Identity, Kv, KvEngine, LogConfig, MemEngine, Pair};
use tokio::sync::oneshot;

use super::Machine;
use crate::view::View;

/// The dedup bounds that entries carry unless a test says otherwise.
pub(crate) const WINDOW_MS: u64 = 1_000;
pub(crate) const BYTES_MAX: u64 = 1 << 20;

pub(crate) struct Harness {
    pub(crate) machine: Machine,
    pub(crate) view: View,
    pub(crate) kv: Arc<dyn Kv>,
    engine: MemEngine,
    log: CommitLog,
    forks: u32,
}

impl Harness {
    pub(crate) async fn new() -> Harness {
        let disk = Arc::new(CrashDisk::new());
        let host = Host {
            clock: Arc::new(ManualClock::default()),
            disk: disk.clone(),
        };
        let config = LogConfig {
            segment_bytes: 1 << 20,
            reserve_bytes: 0,
            spare_segments: 0,
            ..LogConfig::default()
        };
        let identity = Identity {
            cluster_id: "test".into(),
            group: "group".into(),
            broker_id: 1,
        };
        let dir = DataDir::open(&host, Path::new("/replica"), &identity, &config)
            .await
            .unwrap();
        let (log, _) = CommitLog::open(&Arc::new(dir), config).await.unwrap();
        let engine = MemEngine::new(disk);
        let kv = engine.open("/tables".into()).await.unwrap();
        let harness = Harness::over(kv, log, engine);
        // Every log begins with an entry that holds no commands.
        harness
            .write(EntryKind::Blank, std::iter::once(Bytes::new()))
            .await;
        harness
    }

    fn over(kv: Arc<dyn Kv>, log: CommitLog, engine: MemEngine) -> Harness {
        let (mut machine, view) = Machine::new();
        machine.restore(kv.clone(), log.clone()).unwrap();
        Harness {
            machine,
            view,
            kv,
            engine,
            log,
            forks: 0,
        }
    }

    /// The index of the next entry.
    pub(crate) fn next_index(&self) -> u64 {
        self.log.last().map_or(0, |last| last.index + 1)
    }

    /// Writes bodies to the log, as openraft does before it applies them.
    pub(crate) async fn append(&self, bodies: Vec<Bytes>) -> Vec<Committed> {
        let bodies = bodies.into_iter();
        let entries = self.write(EntryKind::Normal, bodies).await.into_iter();
        entries
            .map(|entry| Committed {
                index: entry.index,
                term: entry.term,
                body: entry.body,
            })
            .collect()
    }

    async fn write(
        &self,
        kind: EntryKind,
        bodies: impl Iterator<Item = Bytes>,
    ) -> Vec<store::Entry> {
        let entry = |(index, body)| store::Entry {
            term: 1,
            index,
            kind,
            body,
        };
        let entries: Vec<store::Entry> = (self.next_index()..).zip(bodies).map(entry).collect();
        let (done, synced) = oneshot::channel();
        let done = Box::new(move |outcome| drop(done.send(outcome)));
        self.log.append(entries.clone(), done).unwrap();
        synced.await.unwrap().unwrap();
        entries
    }

    /// Applies committed entries in one call.
    pub(crate) fn apply_committed(&mut self, entries: &[Committed]) -> Vec<Reply> {
        let kv = self.kv.clone();
        let replies = self
            .machine
            .apply(entries, &mut |batch| kv.write(batch))
            .unwrap();
        replies
            .into_iter()
            .map(|reply| Reply::decode(reply).unwrap())
            .collect()
    }

    /// Has one entry written and applied; the reply of each command.
    pub(crate) async fn entry(&mut self, time_ms: u64, commands: Vec<Body>) -> Vec<CommandReply> {
        let committed = self
            .append(vec![encode(time_ms, WINDOW_MS, BYTES_MAX, commands)])
            .await;
        self.apply_committed(&committed).remove(0).commands
    }

    /// Has one command written and applied; its reply.
    pub(crate) async fn command(&mut self, time_ms: u64, command: Body) -> CommandReply {
        self.entry(time_ms, vec![command]).await.remove(0)
    }

    /// Creates a topic; its id.
    pub(crate) async fn topic(&mut self, name: &str, queue_count: u32) -> u64 {
        let topic = PutTopic {
            name: name.into(),
            queue_count,
            create: true,
            ..Default::default()
        };
        self.command(0, Body::PutTopic(topic)).await.value
    }

    /// Creates a consumer group; its id.
    pub(crate) async fn group(&mut self, name: &str) -> u64 {
        let group = PutGroup {
            name: name.into(),
            create: true,
            ..Default::default()
        };
        self.command(0, Body::PutGroup(group)).await.value
    }

    /// The same machine after a restart of its process: everything from the tables.
    pub(crate) fn restart(self) -> Harness {
        Harness::over(self.kv, self.log, self.engine)
    }

    /// A second machine from a copy of the tables, on the same log: what a snapshot makes.
    pub(crate) async fn fork(&mut self) -> Harness {
        self.forks += 1;
        let copy = format!("/copy-{}-{}", self.forks, self.next_index());
        self.kv
            .clone()
            .checkpoint(copy.clone().into(), store::table::applied::key())
            .await
            .unwrap();
        let kv = self.engine.open(copy.into()).await.unwrap();
        let engine = MemEngine::new(Arc::new(CrashDisk::new()));
        Harness::over(kv, self.log.clone(), engine)
    }

    pub(crate) fn dump(&self) -> Vec<Pair> {
        store::table::dump(&*self.kv).unwrap()
    }
}

pub(crate) fn encode(
    time_ms: u64,
    dedup_window_ms: u64,
    dedup_bytes_max: u64,
    commands: Vec<Body>,
) -> Bytes {
    let commands = commands
        .into_iter()
        .map(|body| Command { body: Some(body) })
        .collect();
    Bytes::from(
        Entry {
            time_ms,
            // Clocks are right unless a test says otherwise.
            passed_ms: time_ms,
            commands,
            dedup_window_ms,
            dedup_bytes_max,
        }
        .encode_to_vec(),
    )
}

/// Messages with the ids of `runs` (first and count), each with its id as its text.
pub(crate) fn append(topic_id: u64, queue: u32, runs: &[(u128, u32)]) -> Body {
    let ids = runs.iter().map(|(first, count)| id_run(*first, *count));
    append_saying(topic_id, queue, ids.collect(), 0)
}

/// Ids of no client.
pub(crate) fn id_run(first: u128, count: u32) -> IdRun {
    IdRun {
        first: Bytes::copy_from_slice(&first.to_be_bytes()),
        count,
        ..IdRun::default()
    }
}

/// Messages with these ids, each with its id and `says` as its text.
pub(crate) fn append_saying(topic_id: u64, queue: u32, ids: Vec<IdRun>, says: u32) -> Body {
    let each: Vec<u128> = ids
        .iter()
        .flat_map(|run| {
            let first = u128::from_be_bytes(run.first.as_ref().try_into().unwrap());
            (0..u128::from(run.count)).map(move |n| first + n)
        })
        .collect();
    let texts: Vec<String> = each.iter().map(|id| text(*id, says)).collect();
    let digest = |id: &u128| digest(*id, says);
    Body::Append(Append {
        topic_id,
        queue,
        sizes_bytes: texts.iter().map(|text| text.len() as u32).collect(),
        digests: each.iter().map(digest).collect(),
        ids,
        messages: Bytes::from(texts.concat()),
    })
}

pub(crate) fn text(id: u128, says: u32) -> String {
    match says {
        0 => format!("message {id}"),
        says => format!("message {id} says {says}"),
    }
}

pub(crate) fn digest(id: u128, says: u32) -> u64 {
    u64::from(id as u32) | (u64::from(says) << 32)
}

/// Offset and "was it new" of each message of an append.
pub(crate) fn placed(reply: &CommandReply) -> Vec<(u64, bool)> {
    let runs = reply.placed.iter();
    runs.flat_map(|run| (0..u64::from(run.count)).map(|n| (run.first_offset + n, run.stored)))
        .collect()
}
