//! Replies reach those who asked, in whatever way requests are merged; bounds hold; time never goes
//! back.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use host::Clock;
use proptest::prelude::*;
use prost::Message;
use proto::command::{self, Append, Entry, PlacedRun, Reply, command::Body};
use tokio::sync::Semaphore;

use super::*;

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Gives every message of an append the next offset of its queue, and keeps the entries.
#[derive(Clone, Default)]
struct Recorder {
    entries: Arc<Mutex<Vec<Entry>>>,
    queues: Arc<Mutex<std::collections::BTreeMap<QueueKey, u64>>>,
    /// Entries may be agreed on as far as there are permits; absent: all of them.
    gate: Option<Arc<Semaphore>>,
    refuse: Arc<AtomicBool>,
    full: Arc<AtomicBool>,
    last_time_ms: Arc<AtomicU64>,
    last_passed_ms: Arc<AtomicU64>,
}

impl Agreement for Recorder {
    async fn propose(&self, entry: Bytes, upkeep: bool) -> Result<Bytes, ProposalError> {
        let entry = Entry::decode(entry).unwrap();
        if self.full.load(Ordering::Relaxed) && !upkeep {
            return Err(ProposalError::Full);
        }
        if self.refuse.load(Ordering::Relaxed) {
            return Err(ProposalError::NotLeader);
        }
        let commands = entry
            .commands
            .iter()
            .map(|command| self.apply(command))
            .collect();
        self.entries.lock().unwrap().push(entry);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        Ok(Reply { commands }.encode_to_vec().into())
    }

    fn last_moment(&self) -> Moment {
        Moment {
            time_ms: self.last_time_ms.load(Ordering::Relaxed),
            passed_ms: self.last_passed_ms.load(Ordering::Relaxed),
        }
    }
}

impl Recorder {
    fn apply(&self, command: &Command) -> CommandReply {
        match command.body.as_ref().unwrap() {
            Body::Append(append) => {
                let mut queues = self.queues.lock().unwrap();
                let next = queues.entry((append.topic_id, append.queue)).or_default();
                let (count, first_offset) = (append.sizes_bytes.len() as u32, *next);
                *next += u64::from(count);
                let placed = vec![PlacedRun {
                    first: 0,
                    count,
                    first_offset,
                    stored: true,
                    queue: append.queue,
                    too_late: false,
                }];
                CommandReply {
                    placed,
                    ..Default::default()
                }
            }
            Body::DropLog(drop) => CommandReply {
                value: drop.first_index,
                ..Default::default()
            },
            other => panic!("unexpected {other:?}"),
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }
}

fn config() -> ProposerConfig {
    ProposerConfig {
        entry_bytes_target: 1_000,
        proposals_inflight_max: 2,
        inflight_bytes_max: 1 << 20,
        inflight_requests_max: 1_000,
        dedup_window_ms: 5,
        dedup_bytes_max: 6,
    }
}

fn start(config: ProposerConfig, recorder: &Recorder) -> (Proposer, Arc<TestClock>) {
    let clock = Arc::new(TestClock(AtomicU64::new(1_000)));
    let agreed = clock.clone();
    let agreed = Box::new(move || Some(agreed.now_ms()));
    let log_time = Arc::new(LogTime::new(clock.clone(), agreed, Box::new(|| Some(1))));
    let (proposer, _) = Proposer::start(config, recorder.clone(), log_time);
    (proposer, clock)
}

fn send(topic_id: u64, queue: QueueId, bodies: &[&[u8]], first_id: u128) -> QueueSend {
    let messages: Vec<Bytes> = bodies
        .iter()
        .map(|body| Bytes::copy_from_slice(body))
        .collect();
    let ids = (0..bodies.len() as u128)
        .map(|place| MessageId {
            number: first_id + place,
            digest: place as u64,
            sender: Sender::Client(0),
        })
        .collect();
    let bytes = messages.iter().map(Bytes::len).sum();
    QueueSend {
        topic_id,
        queue,
        messages,
        ids,
        bytes,
    }
}

fn appends(entry: &Entry) -> Vec<Append> {
    let body = |command: &Command| match command.body.clone() {
        Some(Body::Append(append)) => Some(append),
        _ => None,
    };
    entry.commands.iter().filter_map(body).collect()
}

/// Catches a hand-made encoding that prost reads as something else.
#[test]
fn an_entry_is_what_prost_reads_back() {
    let group = |topic_id, queue, bodies: Vec<&'static [u8]>, runs: Vec<(u128, u32, Sender)>| {
        let messages: Vec<Bytes> = bodies.into_iter().map(Bytes::from_static).collect();
        let bytes = messages.iter().map(Bytes::len).sum();
        item::Item::Append(item::Group {
            topic_id,
            queue,
            digests: (7..).take(messages.len()).collect(),
            messages,
            runs: runs
                .into_iter()
                .map(|(first, count, sender)| item::IdRun {
                    first,
                    count,
                    sender,
                })
                .collect(),
            bytes,
        })
    };
    let drop_log = Body::DropLog(command::DropLog { first_index: 300 });
    let items = [
        group(1, 0, vec![b"a", b"bc"], vec![(7, 2, Sender::Sequenced)]),
        item::Item::Other(Command {
            body: Some(drop_log.clone()),
        }),
        group(
            u64::MAX,
            200,
            vec![&[9; 300], b"x"],
            vec![
                (u128::MAX - 5, 1, Sender::Client(0)),
                (0, 1, Sender::Client(9)),
            ],
        ),
    ];
    let stamp = encode::Stamp {
        moment: Moment {
            time_ms: 1 << 40,
            passed_ms: 1 << 41,
        },
        dedup_window_ms: 0,
        dedup_bytes_max: 9,
    };
    let encoded = encode::entry(&stamp, &items);
    let entry = Entry::decode(encoded.clone()).unwrap();
    assert_eq!(entry.encode_to_vec(), encoded, "the same bytes as prost's");
    assert_eq!((entry.time_ms, entry.passed_ms), (1 << 40, 1 << 41));
    assert_eq!((entry.dedup_window_ms, entry.dedup_bytes_max), (0, 9));
    assert_eq!(entry.commands[1].body, Some(drop_log));
    let appends = appends(&entry);
    assert_eq!((appends[0].topic_id, appends[0].queue), (1, 0));
    assert_eq!(appends[0].sizes_bytes, [1, 2]);
    assert_eq!(appends[0].messages, "abc");
    assert_eq!(appends[0].ids[0].first, 7_u128.to_be_bytes().to_vec());
    assert_eq!(appends[0].ids[0].count, 2);
    assert_eq!(appends[0].digests, [7, 8]);
    let senders = |append: &Append| -> Vec<(bool, u64)> {
        append
            .ids
            .iter()
            .map(|run| (run.sequenced, run.client))
            .collect()
    };
    assert_eq!(senders(&appends[0]), [(true, 0)]);
    assert_eq!(senders(&appends[1]), [(false, 0), (false, 9)]);
    assert_eq!(appends[1].sizes_bytes, [300, 1]);
    assert_eq!(appends[1].ids.len(), 2);
    assert_eq!(appends[1].ids[1].first, vec![0; 16]);
}

/// Catches sends that get another's offsets when they share an entry.
#[tokio::test]
async fn sends_of_one_queue_share_an_append_and_get_their_own_offsets() {
    let gate = Arc::new(Semaphore::new(0));
    let recorder = Recorder {
        gate: Some(gate.clone()),
        ..Default::default()
    };
    let (proposer, _) = start(config(), &recorder);
    let first = tokio::spawn({
        let proposer = proposer.clone();
        async move { proposer.send(send(1, 0, &[b"a"], 10)).await }
    });
    while recorder.entries().is_empty() {
        tokio::task::yield_now().await;
    }
    // These wait for the first entry together.
    let second = proposer.send(send(1, 0, &[b"b", b"c"], 11));
    let third = proposer.send(send(1, 1, &[b"d"], 20));
    let fourth = proposer.send(send(1, 0, &[b"e"], 13));
    let drop_log = Command {
        body: Some(Body::DropLog(command::DropLog { first_index: 7 })),
    };
    let fifth = proposer.command(drop_log);
    gate.add_permits(2);
    let (second, third, fourth, fifth) = tokio::join!(second, third, fourth, fifth);
    let placed = |queue, first_offset, count| {
        vec![Placed {
            count,
            first_offset,
            queue,
            fate: Fate::Stored,
        }]
    };
    assert_eq!(first.await.unwrap().unwrap(), placed(0, 0, 1));
    assert_eq!(second.unwrap(), placed(0, 1, 2));
    assert_eq!(third.unwrap(), placed(1, 0, 1));
    assert_eq!(fourth.unwrap(), placed(0, 3, 1));
    assert_eq!(fifth.unwrap().value, 7);
    let entries = recorder.entries();
    assert_eq!(entries.len(), 2);
    let shared = appends(&entries[1]);
    assert_eq!(shared.len(), 2);
    assert_eq!(shared[0].messages, "bce");
    assert_eq!(
        shared[0].ids.len(),
        1,
        "ids that follow each other are one run"
    );
    assert_eq!(
        (entries[1].dedup_window_ms, entries[1].dedup_bytes_max),
        (5, 6)
    );
}

/// Catches a proposer that takes whatever comes, and one that never gives room back.
#[tokio::test]
async fn too_much_in_flight_is_refused_at_once_and_room_comes_back() {
    let gate = Arc::new(Semaphore::new(0));
    let recorder = Recorder {
        gate: Some(gate.clone()),
        ..Default::default()
    };
    let bounded = ProposerConfig {
        inflight_bytes_max: 1_000,
        ..config()
    };
    let (proposer, _) = start(bounded, &recorder);
    let waiting = tokio::spawn({
        let proposer = proposer.clone();
        async move { proposer.send(send(1, 0, &[&[0; 600]], 1)).await }
    });
    while recorder.entries().is_empty() {
        tokio::task::yield_now().await;
    }
    let refused = proposer.send(send(1, 0, &[&[0; 600]], 2)).await;
    assert_eq!(refused, Err(ProposalError::TooMuchInFlight("bytes")));
    gate.add_permits(2);
    waiting.await.unwrap().unwrap();
    assert_eq!(proposer.inflight_bytes(), 0);
    proposer.send(send(1, 0, &[&[0; 600]], 2)).await.unwrap();
}

/// Catches an unbounded queue behind a proposer that does not get on.
#[tokio::test]
async fn too_many_requests_are_refused_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let recorder = Recorder {
        gate: Some(gate.clone()),
        ..Default::default()
    };
    let bounded = ProposerConfig {
        inflight_requests_max: 4,
        entry_bytes_target: 1,
        ..config()
    };
    let (proposer, _) = start(bounded, &recorder);
    let mut waiting = FuturesUnordered::new();
    for id in 0..32 {
        let proposer = proposer.clone();
        waiting.push(async move { proposer.send(send(1, 0, &[b"m"], id)).await });
    }
    let first = tokio::time::timeout(Duration::from_secs(10), waiting.next()).await;
    assert_eq!(
        first.unwrap().unwrap(),
        Err(ProposalError::TooMuchInFlight("requests"))
    );
}

/// Catches an entry that is larger than the target by more than one request.
#[tokio::test]
async fn entries_are_bounded_and_no_request_is_lost() {
    let recorder = Recorder::default();
    let (proposer, _) = start(config(), &recorder);
    let sends = (0..200_u128).map(|id| {
        let proposer = proposer.clone();
        async move {
            proposer
                .send(send(1, 0, &[&[7; 300]], id * 2))
                .await
                .unwrap()
        }
    });
    let mut offsets: Vec<u64> = futures::future::join_all(sends)
        .await
        .iter()
        .map(|placed| placed[0].first_offset)
        .collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..200).collect::<Vec<u64>>());
    for entry in recorder.entries() {
        let bytes: usize = appends(&entry)
            .iter()
            .map(|append| append.messages.len())
            .sum();
        assert!(bytes < 1_000 + 300, "{bytes}");
    }
    // One that is larger than the target travels alone.
    proposer
        .send(send(1, 0, &[&[7; 5_000]], 1 << 64))
        .await
        .unwrap();
}

/// Catches stamps that follow clocks that were set back a little, or a former leader's faster clock; and time that
/// passes because a clock says so.
#[tokio::test]
async fn stamps_follow_the_log() {
    let recorder = Recorder::default();
    let (proposer, clock) = start(config(), &recorder);
    for (now_ms, applied_ms) in [(1_000, 0), (500, 0), (1_200, 3_000), (1_300, 0), (9_000, 0)] {
        clock.0.store(now_ms, Ordering::Relaxed);
        recorder.last_time_ms.store(applied_ms, Ordering::Relaxed);
        let passed_ms = recorder.entries().last().map_or(7, |entry| entry.passed_ms);
        recorder.last_passed_ms.store(passed_ms, Ordering::Relaxed);
        proposer
            .send(send(1, 0, &[b"m"], u128::from(now_ms)))
            .await
            .unwrap();
    }
    let times: Vec<u64> = recorder
        .entries()
        .iter()
        .map(|entry| entry.time_ms)
        .collect();
    // While the clock is behind, time goes on a little: half as much as this test takes.
    let slow = |from: u64, time: u64| (from..from + 1_000).contains(&time);
    assert!(times[0] == 1_000 && slow(1_000, times[1]), "{times:?}");
    assert!(slow(3_000, times[2]) && slow(3_000, times[3]), "{times:?}");
    assert!(times.is_sorted() && times[4] == 9_000, "{times:?}");
    let passed = |entry: &Entry| entry.passed_ms;
    let passed: Vec<u64> = recorder.entries().iter().map(passed).collect();
    assert!(passed.is_sorted() && passed[0] == 7, "{passed:?}");
    assert!(passed[4] < 1_007, "{passed:?}");
}

/// Catches requests that are never answered when an entry is not agreed on.
#[tokio::test]
async fn a_refused_entry_refuses_everyone_in_it() {
    let recorder = Recorder::default();
    recorder.refuse.store(true, Ordering::Relaxed);
    let (proposer, _) = start(config(), &recorder);
    let both = tokio::join!(
        proposer.send(send(1, 0, &[b"a"], 1)),
        proposer.send(send(1, 1, &[b"b"], 2))
    );
    assert_eq!(
        both,
        (Err(ProposalError::NotLeader), Err(ProposalError::NotLeader))
    );
    assert_eq!(proposer.inflight_bytes(), 0);
}

/// Catches a full disk that nobody can make room on, because what makes room shares an entry with sends.
#[tokio::test]
async fn upkeep_goes_through_while_the_disk_is_full() {
    let recorder = Recorder::default();
    recorder.full.store(true, Ordering::Relaxed);
    let (proposer, _) = start(config(), &recorder);
    let drop_log = Command {
        body: Some(Body::DropLog(command::DropLog { first_index: 7 })),
    };
    let (sent, dropped) = tokio::join!(
        proposer.send(send(1, 0, &[b"a"], 1)),
        proposer.upkeep(drop_log)
    );
    assert_eq!(sent, Err(ProposalError::Full));
    assert_eq!(dropped.unwrap().value, 7);
}

proptest! {
    /// Catches runs cut at the wrong place: requests are slices of an append, the reply's runs are other
    /// slices of it, and each request must get exactly its own messages' offsets.
    #[test]
    fn runs_are_cut_along_the_requests(
        requests in prop::collection::vec(1_u32..20, 1..30),
        cuts in prop::collection::vec((1_u32..25, any::<u32>(), any::<bool>()), 1..60),
    ) {
        let total: u32 = requests.iter().sum();
        let mut runs = Vec::new();
        let mut expected = Vec::new();
        let mut first = 0;
        for (count, first_offset, stored) in cuts.into_iter().cycle() {
            let count = count.min(total - first);
            if count == 0 {
                break;
            }
            let first_offset = u64::from(first_offset);
            runs.push(PlacedRun { first, count, first_offset, stored, queue: 3, too_late: false });
            expected.extend((0..u64::from(count)).map(|place| (first_offset + place, stored)));
            first += count;
        }
        let mut got = Vec::new();
        let mut position = 0;
        for count in requests {
            let parts = reply::placed(&runs, position, count).unwrap();
            prop_assert_eq!(parts.iter().map(|part| part.count).sum::<u32>(), count);
            for part in parts {
                let offsets = (0..u64::from(part.count)).map(|place| part.first_offset + place);
                got.extend(offsets.map(|offset| (offset, part.fate == Fate::Stored)));
            }
            position += count;
        }
        prop_assert_eq!(got, expected);
    }

    /// Catches a hole in a reply that is papered over.
    #[test]
    fn a_reply_with_a_hole_answers_nobody_beyond_it(
        total in 2_u32..50,
        hole in 0_u32..50,
        position in 0_u32..50,
    ) {
        let hole = hole % total;
        let position = position % total;
        let run = |first, count| PlacedRun { first, count, stored: true, ..PlacedRun::default() };
        let runs = [run(0, hole), run(hole + 1, total - hole - 1)];
        let parts = reply::placed(&runs, position, 1);
        prop_assert_eq!(parts.is_some(), position != hole);
    }
}
