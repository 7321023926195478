//! Random histories, with failures and power cuts, against a model of a few lines.
//!
//! The promise: what was answered well is there after any crash, byte for byte; what was taken back
//! and answered is not; what is there was appended; and honest crashes are never taken for damage.

use proptest::prelude::*;
use proptest::test_runner::Config;
use store::{CommitLog, Entry, StoreError};

use crate::world::{Acknowledged, World, entry, id, read_all, roll, small_config};

/// How a process ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    /// It dies where it stands; what it wrote is in the page cache.
    Kill,
    PowerCut {
        seed: u64,
    },
}

#[derive(Clone, Debug)]
enum Step {
    /// Entries of one of few sizes, so that old and new records often begin at the same place.
    Append {
        count: u64,
        size: usize,
        term_up: u64,
    },
    Settle,
    Truncate {
        keep_part: u64,
    },
    Purge {
        part: u64,
    },
    Drop,
    End(End),
    StopAfter {
        changes: u64,
    },
    Read {
        part: u64,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..12_u64, 0..5_usize, 0..3_u64).prop_map(|(count, size, term_up)| Step::Append {
            count,
            size: [0, 68, 68, 700, 5000][size],
            term_up,
        }),
        4 => Just(Step::Settle),
        2 => (0..=100_u64).prop_map(|keep_part| Step::Truncate { keep_part }),
        1 => (0..=100_u64).prop_map(|part| Step::Purge { part }),
        1 => Just(Step::Drop),
        1 => Just(Step::End(End::Close)),
        1 => Just(Step::End(End::Kill)),
        2 => any::<u64>().prop_map(|seed| Step::End(End::PowerCut { seed })),
        1 => (0..25_u64).prop_map(|changes| Step::StopAfter { changes }),
        2 => (0..=100_u64).prop_map(|part| Step::Read { part }),
    ]
}

/// What the log should hold.
struct Model {
    world: World,
    log: CommitLog,
    /// Everything that may be in the log, from index 0 on.
    entries: Vec<Entry>,
    acknowledged: Acknowledged,
    /// Entries below this were not being taken back.
    safe_end: u64,
    purged: u64,
    appends: u64,
}

impl Model {
    async fn new(prefill: bool) -> Model {
        let config = store::LogConfig {
            prefill,
            ..small_config()
        };
        let world = World::with(config);
        let log = world.open().await;
        Model {
            world,
            log,
            entries: Vec::new(),
            acknowledged: Acknowledged::default(),
            safe_end: u64::MAX,
            purged: 0,
            appends: 0,
        }
    }

    fn part(&self, from: u64, part: u64) -> u64 {
        from + (self.entries.len() as u64 - from) * part / 100
    }

    async fn step(&mut self, step: &Step) {
        let failed = match step {
            Step::Append {
                count,
                size,
                term_up,
            } => self.append(*count, *size, *term_up).is_err(),
            Step::Settle => self.settle().await.is_err(),
            Step::Truncate { keep_part } => self.truncate(*keep_part).await.is_err(),
            Step::Purge { part } => self.purge(*part).await.is_err(),
            Step::Drop => self.log.drop_to(self.purged).await.is_err(),
            Step::End(end) => {
                self.recover(*end).await;
                false
            }
            Step::StopAfter { changes } => {
                self.world.disk.stop_after(*changes);
                false
            }
            Step::Read { part } => self.read(*part).await,
        };
        if failed {
            // The process stops, as it must; sometimes the machine with it.
            let end = match self.appends % 3 {
                0 => End::Kill,
                _ => End::PowerCut { seed: self.appends },
            };
            self.recover(end).await;
        }
    }

    fn append(&mut self, count: u64, size: usize, term_up: u64) -> store::Result<()> {
        let start = self.entries.len() as u64;
        // Sometimes below a term that was taken back.
        let term = self.entries.last().map_or(1, |last| last.term) + term_up / 2;
        let new: Vec<Entry> = (start..start + count)
            .map(|index| match size == 0 && index % 4 == 0 {
                true => roll(term, index),
                false => entry(term, index, size),
            })
            .collect();
        self.appends += 1;
        let done = self.acknowledged.done(self.appends, start + count);
        self.log.append(new.clone(), done)?;
        self.entries.extend(new);
        Ok(())
    }

    async fn settle(&mut self) -> store::Result<()> {
        crate::world::append(&self.log, Vec::new()).await?;
        assert_eq!(self.acknowledged.end(), self.entries.len() as u64);
        Ok(())
    }

    async fn truncate(&mut self, keep_part: u64) -> store::Result<()> {
        let keep = self.part(self.purged, keep_part);
        self.safe_end = keep;
        self.log.truncate_after(keep.checked_sub(1)).await?;
        self.safe_end = u64::MAX;
        self.entries.truncate(keep as usize);
        self.acknowledged.set_end(keep);
        Ok(())
    }

    async fn purge(&mut self, part: u64) -> store::Result<()> {
        self.settle().await?;
        let purged = self.part(self.purged, part);
        if let Some(index) = purged.checked_sub(1) {
            // A failed purge may have happened or not.
            self.log
                .purge_to(id(self.entries[index as usize].term, index))
                .await?;
            self.purged = purged;
        }
        Ok(())
    }

    async fn read(&mut self, part: u64) -> bool {
        let first = self.log.positions().dropped;
        let end = self.entries.len() as u64;
        if first >= end {
            return false;
        }
        let start = first + (end - 1 - first) * part / 100;
        match self.log.read(start, end, 4000).await {
            Ok(read) => {
                assert!(!read.is_empty());
                assert_eq!(read[..], self.entries[start as usize..][..read.len()]);
                match self.log.entry(start).await {
                    Ok(entry) => assert_eq!(Some(&entry), read.first()),
                    Err(error) => expect_stopped(&error),
                }
                false
            }
            Err(error) => {
                expect_stopped(&error);
                true
            }
        }
    }

    async fn recover(&mut self, end: End) {
        match end {
            End::Close => {}
            End::Kill => self.world.disk.kill(),
            End::PowerCut { seed } => {
                self.world.disk.kill();
                self.world.memory.crash(seed);
            }
        }
        self.log.close().await;
        // Lets go of the lock.
        self.log = World::new().open().await;
        self.world.disk.heal();
        let (log, recovered) = self.world.try_open().await.unwrap();
        assert_eq!(recovered.damage, None, "an honest crash is not damage");
        self.log = log;
        let positions = self.log.positions();
        let end = positions.appended.map_or(0, |last| last.index + 1);
        let promised = self.acknowledged.end().min(self.safe_end);
        assert!(
            end >= promised,
            "{end} entries of {promised} that were promised"
        );
        assert!(end <= self.entries.len() as u64, "more than was appended");
        let expected = &self.entries[positions.dropped.min(end) as usize..end as usize];
        assert_eq!(read_all(&self.log).await, expected);
        self.purged = positions
            .purged
            .map_or(0, |purged| purged.index + 1)
            .max(self.purged);
        self.entries.truncate(end as usize);
        self.acknowledged = Acknowledged::default();
        self.acknowledged.set_end(end);
        self.safe_end = u64::MAX;
    }
}

/// Only a disk that was stopped fails to read.
fn expect_stopped(error: &StoreError) {
    assert!(
        error.to_string().contains("the disk was stopped"),
        "{error}"
    );
}

fn run(steps: &[Step], prefill: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut model = Model::new(prefill).await;
        for step in steps {
            model.step(step).await;
        }
        model.recover(End::Kill).await;
        model.recover(End::PowerCut { seed: 1 }).await;
    });
}

proptest! {
    #![proptest_config(Config { cases: 400, max_shrink_iters: 2000, ..Config::default() })]

    #[test]
    fn random_histories_keep_the_promise(
        steps in proptest::collection::vec(any_step(), 1..60),
        prefill: bool,
    ) {
        run(&steps, prefill);
    }
}
