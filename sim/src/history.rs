//! What clients did and saw, in order: the only thing that the oracle judges by.
//!
//! A call is written down before it is made and when it returned; one that never returned has an unknown
//! outcome. Nothing of what servers hold or say among themselves stands here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::trace::{Trace, now};

/// What a message says: unique in its world.
pub type Value = u64;

/// A queue of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Queue {
    /// The topic.
    pub topic: Arc<str>,
    /// The queue's number in it.
    pub queue: u32,
}

/// A place in a queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Which queue.
    #[serde(flatten)]
    pub queue: Queue,
    /// The offset in it.
    pub offset: u64,
}

/// Where a message is to go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Any queue.
    Any,
    /// This queue.
    Queue(u32),
    /// The queue of a message group.
    Group(String),
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    /// It was done.
    Done(T),
    /// It was not done, and will not be.
    NotDone(String),
    /// Nobody knows.
    Unknown(String),
}

/// Who consumes: one consumer, from its making to its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Its consumer group.
    pub group: Arc<str>,
    /// Its number; never used again.
    pub member: u64,
}

/// One thing that a client did or saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Event {
    /// A producer begins to send.
    Send {
        /// The message.
        value: Value,
        /// Its topic.
        topic: Arc<str>,
        /// Where in it.
        target: Target,
        /// Whose message this is: those of one lane are handed over in this order.
        lane: u64,
    },
    /// These messages are handed over together; a send of each stands right behind.
    Batch {
        /// The messages.
        values: Vec<Value>,
    },
    /// A send returned.
    Sent {
        /// The message.
        value: Value,
        /// Where it is stored.
        outcome: Outcome<Place>,
    },
    /// A consumer is made.
    Join {
        /// Which.
        #[serde(flatten)]
        member: Member,
        /// Its topic.
        topic: Arc<str>,
        /// Whether it reads queues that were chosen for it, alone in its group.
        assigned: bool,
    },
    /// A consumer is gone.
    Leave {
        /// Which.
        #[serde(flatten)]
        member: Member,
    },
    /// A consumer that shares queues looked which ones it holds.
    Holds {
        /// Which consumer.
        #[serde(flatten)]
        member: Member,
        /// All of them.
        queues: Vec<Queue>,
    },
    /// A consumer got a message.
    Delivery {
        /// Which consumer.
        #[serde(flatten)]
        member: Member,
        /// From where.
        #[serde(flatten)]
        place: Place,
        /// What it says; none if it says nothing that was ever sent.
        value: Option<Value>,
    },
    /// A consumer begins to commit: everything below the offset is done.
    Commit {
        /// Which call.
        call: u64,
        /// Which consumer.
        #[serde(flatten)]
        member: Member,
        /// What it commits.
        #[serde(flatten)]
        place: Place,
    },
    /// A commit returned.
    Committed {
        /// Which call.
        call: u64,
        /// What became of it.
        outcome: Outcome<()>,
    },
    /// Somebody begins to ask what a group committed in a queue.
    AskCommitted {
        /// Which call.
        call: u64,
        /// The group.
        group: Arc<str>,
        /// The queue.
        #[serde(flatten)]
        queue: Queue,
    },
    /// The answer.
    ToldCommitted {
        /// Which call.
        call: u64,
        /// The offset; none if there is none.
        offset: Option<u64>,
    },
    /// Somebody begins to ask where a queue ends.
    AskEnd {
        /// Which call.
        call: u64,
        /// The queue.
        #[serde(flatten)]
        queue: Queue,
    },
    /// The answer.
    ToldEnd {
        /// Which call.
        call: u64,
        /// The offset that the next message will get.
        offset: u64,
    },
    /// An operator begins to set a group's offset.
    Reset {
        /// Which call.
        call: u64,
        /// The group.
        group: Arc<str>,
        /// Where it shall stand.
        #[serde(flatten)]
        place: Place,
    },
    /// A reset returned.
    WasReset {
        /// Which call.
        call: u64,
        /// What became of it.
        outcome: Outcome<()>,
    },
    /// A consumer begins to send a message back.
    SendBack {
        /// Which call.
        call: u64,
        /// The group.
        group: Arc<str>,
        /// The message.
        #[serde(flatten)]
        place: Place,
        /// Which delivery of it failed.
        attempt: u32,
        /// Whether it shall have no other.
        dead: bool,
        /// How long it shall wait for the next one, in milliseconds.
        delay_ms: u64,
    },
    /// A send-back returned.
    SentBack {
        /// Which call.
        call: u64,
        /// What became of it.
        outcome: Outcome<()>,
    },
    /// A consumer begins to ask which retries of a queue are due.
    AskRetries {
        /// Which call.
        call: u64,
        /// The group.
        group: Arc<str>,
        /// The queue.
        #[serde(flatten)]
        queue: Queue,
    },
    /// One of the answer's messages.
    Redelivery {
        /// Which call.
        call: u64,
        /// The group.
        group: Arc<str>,
        /// The message.
        #[serde(flatten)]
        place: Place,
        /// Which delivery of it this is.
        attempt: u32,
        /// What it says; none if it says nothing that was ever sent.
        value: Option<Value>,
    },
    /// The answer was that none is left, due or not.
    NoRetries {
        /// Which call.
        call: u64,
    },
    /// A consumer begins to settle a message.
    Settle {
        /// Which call.
        call: u64,
        /// The group.
        group: Arc<str>,
        /// The message.
        #[serde(flatten)]
        place: Place,
        /// Which delivery of it succeeded.
        attempt: u32,
    },
    /// A settle returned.
    Settled {
        /// Which call.
        call: u64,
        /// What became of it.
        outcome: Outcome<()>,
    },
    /// A push consumer was given a message.
    Handed {
        /// Which consumer.
        #[serde(flatten)]
        member: Member,
        /// From where.
        #[serde(flatten)]
        place: Place,
        /// Which delivery of it this is.
        attempt: u32,
        /// What it says; none if it says nothing that was ever sent.
        value: Option<Value>,
    },
    /// A push consumer says that it is done with a message.
    Finished {
        /// Which consumer.
        #[serde(flatten)]
        member: Member,
        /// The message.
        #[serde(flatten)]
        place: Place,
        /// Which delivery of it succeeded.
        attempt: u32,
    },
    /// A push consumer says that it failed a message.
    Failed {
        /// Which consumer.
        #[serde(flatten)]
        member: Member,
        /// The message.
        #[serde(flatten)]
        place: Place,
        /// Which delivery of it failed.
        attempt: u32,
        /// Whether it shall have no other.
        dead: bool,
    },
    /// Somebody read a dead-letter queue.
    DeadLetter {
        /// The group whose message it was.
        group: Arc<str>,
        /// Its place there.
        #[serde(flatten)]
        place: Place,
        /// The topic that it came from, as it says.
        origin: String,
        /// What it says; none if it says nothing that was ever sent.
        value: Option<Value>,
    },
    /// A group exists, and its messages are delivered so many times at most; or a consumer that gets every message of
    /// its topic and keeps its own progress.
    GroupMade {
        /// The group, or whom that consumer is called by.
        group: Arc<str>,
        /// Deliveries of one message.
        attempts_max: u32,
        /// Whether its members work on one message of a queue after the other.
        in_order: bool,
        /// Whether what failed for good is just given up: nobody keeps a dead letter.
        alone: bool,
    },
    /// Somebody begins to ask what all queues hold.
    AskBounds {
        /// Which call.
        call: u64,
    },
    /// The whole answer was told.
    ToldBounds {
        /// Which call.
        call: u64,
    },
    /// Brokers keep everything in this world, and no operator lets the log be dropped.
    KeepsAll,
    /// Which queues a topic has in a world of several broker groups. If more than one has some, message groups move to the
    /// others while one is not heard of.
    Shared {
        /// Which.
        topic: Arc<str>,
        /// How many of them have any.
        groups: u8,
        /// Numbers of its queues.
        queues: Vec<u32>,
    },
    /// One broker group at a time goes away in this world, and nothing else goes wrong: what the others have goes on.
    OthersGoOn,
    /// The queues of these numbers cannot be reached from now on, in any topic.
    Away {
        /// The first of them.
        first: u32,
        /// The number after the last.
        end: u32,
    },
    /// They can again.
    Back {
        /// The first of them.
        first: u32,
    },
    /// One machine at a time goes wrong in this world, by falling silent: no send may take longer than this.
    SendsWithin {
        /// Milliseconds.
        ms: u64,
    },
    /// Brokers keep each message for so long in this world, and nobody lets it go before.
    KeepsFor {
        /// Milliseconds.
        ms: u64,
    },
    /// Brokers keep each dead letter for so long in this world.
    LettersKeptFor {
        /// Milliseconds.
        ms: u64,
    },
    /// Brokers remember what was settled for so long in this world, at the least.
    RemembersFor {
        /// Milliseconds.
        ms: u64,
    },
    /// A consumer that keeps its own progress begins to save it.
    Save {
        /// Which call.
        call: u64,
        /// Which consumer.
        #[serde(flatten)]
        member: Member,
    },
    /// Its progress is saved.
    Saved {
        /// Which call.
        call: u64,
    },
    /// One queue of the answer.
    Bounds {
        /// Which call.
        call: u64,
        /// The queue.
        #[serde(flatten)]
        queue: Queue,
        /// Its oldest message.
        min_offset: u64,
        /// Its next one.
        max_offset: u64,
    },
    /// A message of a topic that is made again or grows was stored: these groups must get it.
    Owed {
        /// Which.
        groups: Vec<Arc<str>>,
        /// Its topic.
        topic: Arc<str>,
        /// The message.
        value: Value,
    },
    /// The topic is about to be deleted: nothing of it is owed any more.
    Gone {
        /// Which.
        topic: Arc<str>,
    },
    /// A group got a message of such a topic.
    Got {
        /// Which.
        group: Arc<str>,
        /// What it says; none if it says nothing that was ever sent.
        value: Option<Value>,
    },
    /// A message was stored before this group was made, which starts at what comes after that.
    NotFor {
        /// Which.
        group: Arc<str>,
        /// The message.
        value: Value,
    },
    /// The group exists from here on.
    StartsNow {
        /// Which.
        group: Arc<str>,
    },
    /// Nothing more will be owed.
    AllOwed,
    /// A copy of a broker's disk is about to be made, with everything that was acknowledged until now.
    Copied,
    /// The broker group is lost: what it acknowledged after the latest copy may be gone. Whatever is answered from now on is said
    /// by those who go on from that copy. Clients that had places of the lost group's start again where their group has come to.
    Restored,
    /// All faults ended.
    Healed,
    /// Everything that is to be read has been read.
    End,
}

/// An event, where and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Simulated nanoseconds since the world began.
    pub at: u64,
    /// The machine of the client.
    pub machine: Machine,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The history of one world.
pub struct History {
    records: Mutex<Vec<Record>>,
    calls: Mutex<u64>,
    trace: Arc<Trace>,
}

impl History {
    /// Nothing has happened yet.
    pub fn new(trace: Arc<Trace>) -> History {
        History {
            records: Mutex::default(),
            calls: Mutex::default(),
            trace,
        }
    }

    /// Writes an event down.
    pub fn record(&self, machine: Machine, event: Event) {
        self.trace.event(format_args!("{machine} {event:?}"));
        let at = now().as_nanos() as u64;
        self.lock().push(Record { at, machine, event });
    }

    /// A number for a call, or for a member of a group.
    pub fn next_number(&self) -> u64 {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls += 1;
        *calls
    }

    /// Looks at the events so far.
    pub fn look<T>(&self, look: impl FnOnce(&[Record]) -> T) -> T {
        look(&self.lock())
    }

    /// All events.
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
