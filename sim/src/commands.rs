//! Counts the commands that brokers apply, by kind, each once, and looks at the time that their entries tell.
//!
//! Follows whichever replica is ahead and reads what it applied, while that still is in memory. Judges
//! nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use proto::command::command::Body;

use crate::broker_process::{BrokerProcess, Live};
use crate::log_time::LogTime;
use crate::trace::Trace;

/// Entries read in one go.
const READ_BYTES: usize = 1 << 20;

/// Follows all brokers of a world.
pub struct Commands {
    trace: Arc<Trace>,
    /// What time the log says it is.
    pub time: LogTime,
    /// The first index that is not counted yet.
    next: Mutex<u64>,
}

/// What a command is called in its .proto file.
pub fn name(body: &Body) -> &'static str {
    match body {
        Body::Append(_) => "append",
        Body::PutTopic(_) => "put_topic",
        Body::DeleteTopic(_) => "delete_topic",
        Body::PutGroup(_) => "put_group",
        Body::DeleteGroup(_) => "delete_group",
        Body::CommitOffset(_) => "commit_offset",
        Body::DropLog(_) => "drop_log",
        Body::SendBack(_) => "send_back",
        Body::Settle(_) => "settle",
        Body::Keep(_) => "keep",
        Body::DropDeadLetters(_) => "drop_dead_letters",
        Body::BeginHistory(_) => "begin_history",
    }
}

impl Commands {
    /// Nothing is counted yet.
    pub fn new(trace: Arc<Trace>) -> Arc<Commands> {
        Arc::new(Commands {
            time: LogTime::new(trace.clone()),
            trace,
            next: Mutex::new(0),
        })
    }

    /// Follows a broker through all its processes.
    pub async fn follow(self: Arc<Self>, broker: Arc<BrokerProcess>) {
        let mut lives = broker.lives();
        loop {
            let live = lives.borrow_and_update().clone();
            tokio::select! {
                biased;
                changed = lives.changed() => if changed.is_err() {
                    return;
                },
                () = self.follow_life(live) => {}
            }
        }
    }

    async fn follow_life(&self, live: Option<Live>) {
        let Some(live) = live else {
            return std::future::pending().await;
        };
        let mut past = None;
        loop {
            let (applied, _) = live.group.tables_past(past).await;
            past = Some(applied.index);
            self.count_to(&live, applied.index).await;
        }
    }

    async fn count_to(&self, live: &Live, applied: u64) {
        let log = live.group.log();
        loop {
            let first = (*self.next()).max(log.positions().dropped);
            if first > applied {
                return;
            }
            // What cannot be read here is counted elsewhere, or not at all.
            let Ok(entries) = log.read(first, applied + 1, READ_BYTES).await else {
                return;
            };
            for entry in entries {
                self.count(entry);
            }
        }
    }

    fn count(&self, entry: store::Entry) {
        let mut next = self.next();
        if entry.index < *next {
            return;
        }
        *next = entry.index + 1;
        if entry.kind != store::EntryKind::Normal {
            return;
        }
        let commands = proto::command::Entry::decode(entry.body).unwrap_or_default();
        self.time.seen(commands.time_ms);
        for body in commands
            .commands
            .into_iter()
            .filter_map(|command| command.body)
        {
            self.trace.count(&format!("command {}", name(&body)));
        }
    }

    fn next(&self) -> MutexGuard<'_, u64> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
