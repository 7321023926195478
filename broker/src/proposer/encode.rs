//! Writes an entry (`raftmq.command.v1.Entry`) in one pass into one buffer.
//!
//! Byte for byte what `prost` would write, without first gathering the messages of an append in a
//! buffer of their own: a message is copied once on its way from the socket's buffer into the log's.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::item::{Group, IdRun, Item, Sender};
use crate::log_time::Moment;

// Field numbers of proto/internal/command.proto.
const ENTRY_TIME_MS: u32 = 1;
const ENTRY_COMMANDS: u32 = 2;
const ENTRY_DEDUP_WINDOW_MS: u32 = 3;
const ENTRY_DEDUP_BYTES_MAX: u32 = 4;
const ENTRY_PASSED_MS: u32 = 5;
const COMMAND_APPEND: u32 = 1;
const APPEND_TOPIC_ID: u32 = 1;
const APPEND_QUEUE: u32 = 2;
const APPEND_SIZES: u32 = 3;
const APPEND_IDS: u32 = 4;
const APPEND_MESSAGES: u32 = 5;
const APPEND_DIGESTS: u32 = 6;
const RUN_FIRST: u32 = 1;
const RUN_COUNT: u32 = 2;
const RUN_SEQUENCED: u32 = 3;
const RUN_CLIENT: u32 = 4;

/// All these field numbers are below 16: a key is one byte.
const KEY_BYTES: usize = 1;
const ID_BYTES: usize = size_of::<u128>();
const DIGEST_BYTES: usize = size_of::<u64>();

/// What the leader adds to every entry.
pub(super) struct Stamp {
    pub(super) moment: Moment,
    pub(super) dedup_window_ms: u64,
    pub(super) dedup_bytes_max: u64,
}

/// Lengths of the parts of one append, computed once.
struct AppendLengths {
    sizes: usize,
    append: usize,
    command: usize,
}

pub(super) fn entry(stamp: &Stamp, items: &[Item]) -> Bytes {
    let lengths: Vec<AppendLengths> = items.iter().map(lengths).collect();
    let commands: usize = lengths
        .iter()
        .map(|lengths| delimited_len(lengths.command))
        .sum();
    let scalars = number_len(stamp.moment.time_ms)
        + number_len(stamp.dedup_window_ms)
        + number_len(stamp.dedup_bytes_max)
        + number_len(stamp.moment.passed_ms);
    let mut out = BytesMut::with_capacity(commands + scalars);
    number(ENTRY_TIME_MS, stamp.moment.time_ms, &mut out);
    for (item, lengths) in items.iter().zip(&lengths) {
        delimiter(ENTRY_COMMANDS, lengths.command, &mut out);
        match item {
            Item::Append(group) => {
                delimiter(COMMAND_APPEND, lengths.append, &mut out);
                append(group, lengths, &mut out);
            }
            Item::Other(command) => {
                command
                    .encode(&mut out)
                    .expect("a BytesMut grows as far as is needed");
            }
        }
    }
    number(ENTRY_DEDUP_WINDOW_MS, stamp.dedup_window_ms, &mut out);
    number(ENTRY_DEDUP_BYTES_MAX, stamp.dedup_bytes_max, &mut out);
    number(ENTRY_PASSED_MS, stamp.moment.passed_ms, &mut out);
    debug_assert_eq!(
        out.len(),
        commands + scalars,
        "the lengths were computed from the same items"
    );
    out.freeze()
}

fn lengths(item: &Item) -> AppendLengths {
    match item {
        Item::Append(group) => {
            let sizes = group
                .messages
                .iter()
                .map(|m| encoded_len_varint(m.len() as u64))
                .sum::<usize>();
            let runs: usize = group
                .runs
                .iter()
                .map(|run| delimited_len(run_len(run)))
                .sum();
            let append = number_len(group.topic_id)
                + number_len(group.queue.into())
                + delimited_len(sizes)
                + runs
                + delimited_len(group.bytes)
                + digests_len(group);
            AppendLengths {
                sizes,
                append,
                command: delimited_len(append),
            }
        }
        Item::Other(command) => AppendLengths {
            sizes: 0,
            append: 0,
            command: command.encoded_len(),
        },
    }
}

fn append(group: &Group, lengths: &AppendLengths, out: &mut BytesMut) {
    number(APPEND_TOPIC_ID, group.topic_id, out);
    number(APPEND_QUEUE, group.queue.into(), out);
    delimiter(APPEND_SIZES, lengths.sizes, out);
    for message in &group.messages {
        encode_varint(message.len() as u64, out);
    }
    for run in &group.runs {
        delimiter(APPEND_IDS, run_len(run), out);
        delimiter(RUN_FIRST, ID_BYTES, out);
        out.put_u128(run.first);
        number(RUN_COUNT, run.count.into(), out);
        match run.sender {
            Sender::Sequenced => number(RUN_SEQUENCED, 1, out),
            Sender::Client(0) => {}
            Sender::Client(client) => {
                encode_key(RUN_CLIENT, WireType::SixtyFourBit, out);
                out.put_u64_le(client);
            }
        }
    }
    delimiter(APPEND_MESSAGES, group.bytes, out);
    for message in &group.messages {
        out.put_slice(message);
    }
    if !group.digests.is_empty() {
        delimiter(APPEND_DIGESTS, group.digests.len() * DIGEST_BYTES, out);
        for digest in &group.digests {
            out.put_u64_le(*digest);
        }
    }
}

fn run_len(run: &IdRun) -> usize {
    let sender = match run.sender {
        Sender::Sequenced => number_len(1),
        Sender::Client(0) => 0,
        Sender::Client(_) => KEY_BYTES + size_of::<u64>(),
    };
    delimited_len(ID_BYTES) + number_len(run.count.into()) + sender
}

fn digests_len(group: &Group) -> usize {
    match group.digests.len() {
        0 => 0,
        digests => delimited_len(digests * DIGEST_BYTES),
    }
}

fn delimited_len(len: usize) -> usize {
    KEY_BYTES + encoded_len_varint(len as u64) + len
}

fn delimiter(field: u32, len: usize, out: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// proto3 leaves out a number that is 0.
fn number_len(value: u64) -> usize {
    if value == 0 {
        0
    } else {
        KEY_BYTES + encoded_len_varint(value)
    }
}

fn number(field: u32, value: u64, out: &mut BytesMut) {
    if value != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(value, out);
    }
}
