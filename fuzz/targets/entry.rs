//! Any bytes as the bodies of committed entries: every replica answers the same and keeps the same rows,
//! whether it applies them one by one, all at once, or after a restart.
//!
//! The first byte chooses: pieces of bytes as they are, or a list of small commands, which gets further.
#![no_main]

use std::sync::{Arc, LazyLock};

use broker::Machine;
use bytes::Bytes;
use prost::Message;
use proto::command::command::Body;
use proto::command::{
    Append, Command, CommitOffset, DeleteGroup, DeleteTopic, Delivery, DropDeadLetters, DropLog,
    Entry, IdRun, Keep, PutGroup, PutTopic, Reply, SendBack, Settle, Source,
};
use raft::{Application, Committed};
use raftmq_fuzz::{Input, World, tables};
use store::Kv;

struct Shared(&'static World);
// The fuzzer has one thread.
unsafe impl Sync for Shared {}
unsafe impl Send for Shared {}
static WORLD: LazyLock<Shared> = LazyLock::new(|| Shared(World::leak()));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let bodies = match input.byte() % 2 {
        0 => pieces(input),
        _ => script(input),
    };
    let body = |(place, body): (usize, Bytes)| Committed {
        index: 1 + place as u64,
        term: 1,
        body,
    };
    let entries: Vec<Committed> = bodies.into_iter().enumerate().map(body).collect();
    if entries.is_empty() {
        return;
    }
    let (mut one_by_one, mut at_once, mut restarted) =
        (Replica::new(), Replica::new(), Replica::new());
    let mut replies = Vec::new();
    for entry in &entries {
        replies.extend(one_by_one.apply(std::slice::from_ref(entry)));
        let again = restarted.apply(std::slice::from_ref(entry));
        assert_eq!(
            again,
            replies[replies.len() - 1..],
            "a restart changes what is answered"
        );
        restarted.restart();
    }
    assert_eq!(
        at_once.apply(&entries),
        replies,
        "answers depend on how entries are grouped"
    );
    for reply in replies {
        Reply::decode(reply).expect("an answer decodes");
    }
    let rows = one_by_one.dump();
    assert_eq!(restarted.dump(), rows, "a restart changes the tables");
    assert_eq!(
        at_once.dump(),
        rows,
        "the tables depend on how entries are grouped"
    );
    assert_eq!(at_once.machine.log_floor(), one_by_one.machine.log_floor());
});

struct Replica {
    machine: Machine,
    kv: Arc<dyn Kv>,
}

impl Replica {
    fn new() -> Replica {
        let (machine, _view) = Machine::new();
        let mut replica = Replica {
            machine,
            kv: tables(),
        };
        replica.restart();
        replica
    }

    fn restart(&mut self) {
        (self.machine, _) = Machine::new();
        let restored = self.machine.restore(self.kv.clone(), WORLD.0.log.clone());
        restored.expect("a machine reads its own tables");
    }

    fn apply(&mut self, entries: &[Committed]) -> Vec<Bytes> {
        let applied = self
            .machine
            .apply(entries, &mut |batch| self.kv.write(batch));
        applied.expect("tables in memory can be read and written")
    }

    fn dump(&self) -> Vec<store::Pair> {
        store::table::dump(&*self.kv).expect("tables in memory can be read")
    }
}

fn pieces(mut input: Input<'_>) -> Vec<Bytes> {
    let mut bodies = Vec::new();
    while !input.is_empty() {
        let body = input.long();
        // A replica stops at a command of a newer version.
        let is_newer = Entry::decode(body.clone())
            .is_ok_and(|entry| entry.commands.iter().any(|one| one.body.is_none()));
        if !is_newer {
            bodies.push(body);
        }
    }
    bodies
}

fn script(mut input: Input<'_>) -> Vec<Bytes> {
    let (mut bodies, mut entry) = (Vec::new(), Entry::default());
    while !input.is_empty() && bodies.len() < 100 {
        let body = match input.byte() % 12 {
            0..=2 => append(&mut input),
            3 => Body::PutTopic(PutTopic {
                name: name(&mut input),
                queue_count: u32::from(input.byte() % 6),
                create: input.byte() % 2 == 0,
                if_absent: input.byte() % 2 == 0,
                ..Default::default()
            }),
            4 => Body::DeleteTopic(DeleteTopic {
                name: name(&mut input),
            }),
            5 => Body::PutGroup(PutGroup {
                name: name(&mut input),
                create: input.byte() % 2 == 0,
                if_absent: input.byte() % 2 == 0,
                consume_from: i32::from(input.byte() % 5),
                max_attempts: i32::from(input.byte() % 4),
                ..Default::default()
            }),
            6 => match input.byte() % 4 {
                0 => Body::DeleteGroup(DeleteGroup {
                    name: name(&mut input),
                }),
                _ => Body::CommitOffset(CommitOffset {
                    group: name(&mut input),
                    topic_id: u64::from(input.byte() % 6),
                    queue: u32::from(input.byte() % 6),
                    offset: number(&mut input),
                    reset: input.byte() % 2 == 0,
                    settle_retries: input.byte() % 2 == 0,
                }),
            },
            7 => Body::DropLog(DropLog {
                first_index: number(&mut input),
            }),
            8 => Body::SendBack(SendBack {
                group: name(&mut input),
                topic_id: u64::from(input.byte() % 6),
                queue: u32::from(input.byte() % 6),
                failed: deliveries(&mut input),
                delay_ms: number(&mut input),
                dead: input.byte() % 4 == 0,
                dead_letter_queue: u32::from(input.byte() % 3),
            }),
            9 => Body::Settle(Settle {
                group: name(&mut input),
                topic_id: u64::from(input.byte() % 6),
                queue: u32::from(input.byte() % 6),
                settled: deliveries(&mut input),
            }),
            10 => match input.byte() % 2 {
                0 => keep(&mut input),
                _ => Body::DropDeadLetters(DropDeadLetters {
                    before_passed_ms: number(&mut input),
                }),
            },
            _ => {
                entry.time_ms = number(&mut input);
                entry.passed_ms = number(&mut input);
                entry.dedup_window_ms = number(&mut input);
                entry.dedup_bytes_max = number(&mut input);
                bodies.push(std::mem::take(&mut entry).encode_to_vec().into());
                continue;
            }
        };
        entry.commands.push(Command { body: Some(body) });
    }
    bodies.push(entry.encode_to_vec().into());
    bodies
}

fn append(input: &mut Input<'_>) -> Body {
    let (topic_id, queue) = (u64::from(input.byte() % 6), u32::from(input.byte() % 6));
    let mut ids = Vec::new();
    for _ in 0..input.byte() % 4 {
        let first = match input.byte() {
            255 => u128::MAX - u128::from(input.byte()),
            first => u128::from(first),
        };
        ids.push(IdRun {
            first: Bytes::copy_from_slice(&first.to_be_bytes()),
            count: u32::from(input.byte() % 8),
            sequenced: input.byte() % 2 == 0,
            client: u64::from(input.byte() % 3),
        });
    }
    let count = match ids.is_empty() {
        true => u32::from(input.byte() % 4),
        false => ids.iter().map(|run| run.count).sum(),
    };
    Body::Append(Append {
        topic_id,
        queue,
        sizes_bytes: vec![1; count as usize],
        digests: match ids.is_empty() {
            true => Vec::new(),
            false => vec![u64::from(input.byte() % 2); count as usize],
        },
        ids,
        messages: Bytes::from(vec![b'm'; count as usize]),
    })
}

fn deliveries(input: &mut Input<'_>) -> Vec<Delivery> {
    let count = input.byte() % 4;
    let delivery = |_| Delivery {
        offset: number(input),
        attempt: u32::from(input.byte() % 5),
    };
    (0..count).map(delivery).collect()
}

fn keep(input: &mut Input<'_>) -> Body {
    let count = usize::from(input.byte() % 4);
    let source = |_| Source {
        log_index: number(input),
        command: u32::from(input.byte() % 4),
        position: u32::from(input.byte() % 4),
    };
    Body::Keep(Keep {
        from: (0..count).map(source).collect(),
        sizes_bytes: vec![1; count],
        messages: Bytes::from(vec![b'k'; count]),
    })
}

fn name(input: &mut Input<'_>) -> String {
    char::from(b'a' + input.byte() % 3).to_string()
}

/// Small, or about the largest there is.
fn number(input: &mut Input<'_>) -> u64 {
    match input.byte() {
        number @ 0..=239 => u64::from(number),
        number => u64::MAX - u64::from(255 - number),
    }
}
