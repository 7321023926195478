//! What the parts of one consumer share: who it is, what it was told to do, and what it holds.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::join_all;
use host::{Shutdown, ShutdownTrigger};
use model::GroupName;
use proto::place::{CONSUME_FROM, Life};
use proto::v2::{ClientType, Code};
use tokio::sync::Notify;

use crate::connection::Identity;
use crate::consumer::allocation::Allocation;
use crate::consumer::delivery::{ConsumeFrom, TopicQueue};
use crate::consumer::holdings::{Due, Finishing, Holdings, PrefetchBounds};
use crate::consumer::progress::{Progress, Whose};
use crate::consumer::turns::{Turn, Turns};
use crate::core::Core;
use crate::deadline;
use crate::error::Error;
use crate::measure;
use crate::offsets::Start;
use crate::pursuit::Pursuit;

/// Attempts after a mistake of the server before the user hears of it.
pub(super) const REFUSALS_MAX: u32 = 5;

/// Who reads the queues of a topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sharing {
    /// Each queue is one member's.
    AmongMembers,
    /// Each member reads all of them.
    AllForEach,
}

/// What the user chose, and of what kind the consumer is.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) client_type: ClientType,
    pub(crate) sharing: Sharing,
    pub(crate) finishing: Finishing,
    /// Whether the servers are asked for retries of failed messages.
    pub(crate) retries: bool,
    /// How long a queue that is given up waits for those who work on its messages.
    pub(crate) leave_timeout: Duration,
    /// Heartbeat intervals for which a queue that another living member held before is left to it, so that it can finish
    /// and commit.
    pub(crate) handover_intervals: u32,
    /// How often the lag is measured.
    pub(crate) lag_interval: Option<Duration>,
    /// Where the group starts, should this consumer make it.
    pub(crate) consume_from: Option<ConsumeFrom>,
    /// `None`: only when told to.
    pub(crate) auto_commit: Option<Duration>,
    pub(crate) allocation: Arc<dyn Allocation>,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) long_polling_timeout: Duration,
    pub(crate) pull_messages_max: usize,
    pub(crate) prefetch: PrefetchBounds,
}

/// What came of telling a queue's offset: where the consumer keeps it itself, what is to be saved.
type Told = Result<Option<Due>, Error>;

/// See the module's text.
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) identity: Identity,
    pub(crate) group: GroupName,
    pub(crate) settings: Settings,
    /// Messages came, or an error that a poll should return.
    pub(crate) arrived: Notify,
    /// Somebody's work on a delivery ended.
    pub(crate) settled: Notify,
    progress: Progress,
    holdings: Mutex<Holdings>,
    turns: Turns,
    closing: (ShutdownTrigger, Shutdown),
}

impl Shared {
    pub(crate) fn new(
        core: Arc<Core>,
        identity: Identity,
        group: GroupName,
        settings: Settings,
        progress: Progress,
    ) -> Shared {
        Shared {
            core,
            identity: match settings.consume_from {
                Some(start) => identity.with(CONSUME_FROM, &start.to_header()),
                None => identity,
            },
            group,
            holdings: Mutex::new(Holdings::new(settings.prefetch, settings.finishing)),
            settings,
            arrived: Notify::new(),
            settled: Notify::new(),
            progress,
            turns: Turns::default(),
            closing: Shutdown::new(),
        }
    }

    pub(crate) fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings
            .lock()
            .expect("nothing panics while the holdings are locked")
    }

    /// The user closes the consumer.
    pub(crate) fn close(&self) {
        self.closing.0.shut_down();
    }

    /// Returns when the user closes the consumer.
    pub(crate) async fn closed(&self) {
        self.closing.1.wait().await;
    }

    /// How long to wait for a broker group that did not answer before.
    pub(crate) fn brief_timeout(&self) -> Duration {
        let full = self.core.connection.request_timeout;
        full.min(self.settings.heartbeat_interval)
    }

    /// Whose progress is kept.
    fn whose(&self) -> Whose<'_> {
        Whose {
            core: &self.core,
            identity: &self.identity,
            group: self.group.as_str(),
        }
    }

    /// Begins to look for the leader of a queue's broker group.
    pub(crate) async fn pursuit(&self, queue: &TopicQueue) -> Pursuit {
        let group = self.core.group_of(&queue.topic, queue.queue).await;
        Pursuit::new(group.unwrap_or_else(|_| "".into()), REFUSALS_MAX)
    }

    /// Gives up queues to other members: from here on nothing of them is handed out. Waits for those who work on their
    /// messages, but not longer than the leave timeout; then commits what is done in them. Each queue for itself: one of
    /// which a message takes long does not keep the others.
    pub(crate) async fn give_up(&self, queues: &[TopicQueue]) {
        let timeout = self.settings.leave_timeout;
        self.give_up_within(queues, timeout).await;
    }

    /// The same because the user says so.
    pub(crate) async fn give_up_at_once(&self, queues: &[TopicQueue]) {
        self.give_up_within(queues, self.finishing_timeout()).await;
    }

    /// How long a queue waits for those who work on its messages if the user gives it up: of what is handed out at once,
    /// nobody could say meanwhile that it is finished with.
    pub(crate) fn finishing_timeout(&self) -> Duration {
        match self.settings.finishing {
            Finishing::AtOnce => Duration::ZERO,
            Finishing::OneByOne => self.settings.leave_timeout,
        }
    }

    async fn give_up_within(&self, queues: &[TopicQueue], timeout: Duration) {
        if let Err(error) = self.release(queues, timeout).await {
            // Its next owner starts a little earlier and delivers a few messages again.
            tracing::warn!(group = %self.group, %error, "offsets of given-up queues not committed");
        }
    }

    /// As `give_up`, and says what went wrong with the commits: the first of it.
    pub(crate) async fn release(
        &self,
        queues: &[TopicQueue],
        timeout: Duration,
    ) -> Result<(), Error> {
        self.holdings().leave(queues);
        let each = queues.iter().map(|queue| self.release_one(queue, timeout));
        let told: Vec<Told> = join_all(each).await;
        // What was committed before may not be saved yet, also if none of these queues had anything to commit.
        self.settle(told).await
    }

    /// Everything that was handed out is finished with. For consumers of which it is said at once.
    pub(crate) fn all_done(&self) {
        self.holdings().all_done();
        self.settled.notify_waiters();
    }

    /// The same of what lies below an offset of one queue.
    pub(crate) fn done_below(&self, queue: &TopicQueue, offset: u64) {
        self.holdings().done_below(queue, offset);
        self.settled.notify_waiters();
    }

    async fn release_one(&self, queue: &TopicQueue, timeout: Duration) -> Told {
        self.wait_for_work_on(queue, timeout).await;
        let _turn = self.turns.wait(queue).await;
        let due = self.holdings().due_in(queue);
        let told = self.tell(due).await;
        // Not before: if this ends early, whoever gives the queue up then commits it.
        self.holdings().give_up(queue);
        told
    }

    /// Returns when nothing of a queue is in anybody's hands, or the timeout is over.
    async fn wait_for_work_on(&self, queue: &TopicQueue, timeout: Duration) {
        let idle = self.idle(std::slice::from_ref(queue));
        let timed_out = match timeout.is_zero() {
            true => return,
            false => tokio::time::timeout(timeout.min(deadline::LONGEST), idle).await,
        };
        if timed_out.is_err() {
            let running = self.holdings().running(queue);
            tracing::warn!(group = %self.group, %queue, running, "messages are still worked on: the queue's next owner gets them too");
        }
    }

    /// Returns when nothing of these queues is in anybody's hands.
    pub(crate) async fn idle(&self, queues: &[TopicQueue]) {
        loop {
            let mut settled = pin!(self.settled.notified());
            // From here on an end is noticed, also one between the look and the wait.
            settled.as_mut().enable();
            let running = |queue| self.holdings().running(queue) > 0;
            if !queues.iter().any(running) {
                return;
            }
            settled.await;
        }
    }

    /// Commits no more.
    pub(crate) fn close_progress(&self) {
        self.progress.close();
    }

    /// What is committed in a queue, if anything.
    pub(crate) async fn committed(&self, queue: &TopicQueue) -> Result<Option<u64>, Error> {
        self.progress.committed(self.whose(), queue).await
    }

    /// A held queue's place means nothing: it is asked for anew. Told to the user, in the log and as a number.
    pub(crate) fn start_again(&self, queue: &TopicQueue, life: Option<Life>, why: &str) {
        if self.holdings().start_again(queue, life) {
            tracing::warn!(group = %self.group, %queue, why, "a queue is read from where its group starts, or has committed by now");
            measure::started_again(self.group.as_str(), &queue.topic);
            self.arrived.notify_waiters();
            self.settled.notify_waiters();
        }
    }

    /// Where to start in a queue.
    pub(crate) async fn start(&self, queue: &TopicQueue) -> Result<Start, Error> {
        self.progress.start(self.whose(), queue).await
    }

    /// Forgets the progress in a queue, if it is this consumer's own.
    pub(crate) fn forget_progress(&self, queue: &TopicQueue) -> bool {
        self.progress.forget(queue)
    }

    /// Whether a consumer keeps its own progress, and since when is not known yet.
    pub(crate) fn is_young(&self) -> bool {
        self.progress.is_young()
    }

    /// A consumer that keeps its own progress exists since then.
    pub(crate) fn born(&self, since_ms: u64) {
        self.progress.born(since_ms);
    }

    /// Tells the servers what is done. The first error, if there is any; the others were tried all the same.
    pub(crate) async fn commit_due(&self) -> Result<(), Error> {
        let held = self.holdings().held();
        let each = held.iter().map(|queue| async {
            let turn = self.turns.wait(queue).await;
            self.commit_in_turn(queue, turn).await
        });
        self.settle(join_all(each).await).await
    }

    /// The same of those queues in which no commit is under way: each broker group's by itself, and nobody waits for it.
    pub(crate) fn begin_commits(self: &Arc<Self>) {
        let due = self.holdings().due().into_iter().map(|due| due.queue);
        for queues in self.by_group(due.collect()).into_values() {
            let turns = queues.into_iter().filter_map(|queue| {
                let turn = self.turns.now(&queue)?;
                Some((queue, turn))
            });
            let (turns, shared): (Vec<_>, _) = (turns.collect(), self.clone());
            if turns.is_empty() {
                continue;
            }
            tokio::spawn(async move {
                let each = turns.into_iter().map(|(queue, turn)| {
                    let shared = &shared;
                    async move { shared.commit_in_turn(&queue, turn).await }
                });
                if let Err(error) = shared.settle(join_all(each).await).await {
                    tracing::debug!(group = %shared.group, %error, "offsets not committed");
                }
            });
        }
    }

    /// Tells the servers one offset, whatever is done in the queue.
    pub(crate) async fn commit(&self, due: Due) -> Result<(), Error> {
        let _turn = self.turns.wait(&due.queue).await;
        let told = self.tell(Some(due)).await;
        self.settle(vec![told]).await
    }

    /// Queues by the broker group that has them; by no name, those of which that is not known now.
    pub(crate) fn by_group(&self, queues: Vec<TopicQueue>) -> BTreeMap<Arc<str>, Vec<TopicQueue>> {
        let mut groups: BTreeMap<Arc<str>, Vec<TopicQueue>> = BTreeMap::new();
        for queue in queues {
            let group = self.core.known_group_of(&queue.topic, queue.queue);
            groups
                .entry(group.unwrap_or_default())
                .or_default()
                .push(queue);
        }
        groups
    }

    /// Commits what is done in a queue: what is due is looked up when its turn has come, not before.
    async fn commit_in_turn(&self, queue: &TopicQueue, _turn: Turn) -> Told {
        let due = self.holdings().due_in(queue);
        self.tell(due).await
    }

    /// Tells the servers an offset, if there is one to tell. Whoever calls it has the queue's turn.
    async fn tell(&self, due: Option<Due>) -> Told {
        let Some(due) = due else {
            return Ok(None);
        };
        let broker_group = self.core.known_group_of(&due.queue.topic, due.queue.queue);
        let _room = self.turns.room(broker_group.unwrap_or_default()).await;
        match self.progress.commit(self.whose(), &due).await {
            Ok(()) if self.progress.needs_save() => Ok(Some(due)),
            Ok(()) => {
                self.holdings().committed(&due);
                Ok(None)
            }
            Err(error) => {
                if error.code() == Some(Code::PreconditionFailed) {
                    let why = "its topic was made again or restored";
                    self.start_again(&due.queue, due.queue.life(), why);
                }
                Err(error)
            }
        }
    }

    /// Makes what was told last, where the consumer keeps it itself. The first that failed, if any did.
    async fn settle(&self, told: Vec<Told>) -> Result<(), Error> {
        let saved = self.progress.save().await;
        let mut failure = None;
        for told in told {
            match told {
                Ok(Some(due)) if saved.is_ok() => self.holdings().committed(&due),
                Ok(_) => {}
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        failure.map_or(saved, Err)
    }
}

/// A consumer's parts without servers.
#[cfg(test)]
pub(crate) mod testing {
    use bytes::Bytes;
    use host::Host;

    use super::*;
    use crate::connection::{Connection, Timeouts};
    use crate::consumer::Averagely;
    use crate::consumer::delivery::Delivery;
    use crate::consumer::holdings::FetchNext;
    use crate::received::ReceivedMessage;

    pub(crate) fn queue(number: u32) -> TopicQueue {
        TopicQueue::new("t", number)
    }

    pub(crate) fn delivery(number: u32, offset: u64) -> Delivery {
        let message = ReceivedMessage::decode(Bytes::from_static(b"\x22\x01x"));
        Delivery {
            topic: "t".into(),
            queue: number,
            offset,
            attempt: 1,
            message: message.expect("decodes"),
            life: None,
        }
    }

    /// Nobody answers at its seed.
    pub(crate) fn without_servers(progress: Progress, leave_timeout: Duration) -> Arc<Shared> {
        let (host, second) = (Host::real(), Duration::from_secs(1));
        let identity = Identity::new("m1").expect("valid");
        let seeds = vec!["127.0.0.1:1".into()];
        let timeouts = Timeouts {
            request: second,
            attempt: second,
        };
        let connection = Connection::new(identity.clone(), seeds, host.clock, timeouts, None, None);
        let settings = Settings {
            client_type: ClientType::PushConsumer,
            sharing: Sharing::AmongMembers,
            finishing: Finishing::OneByOne,
            retries: false,
            leave_timeout,
            handover_intervals: 2,
            lag_interval: None,
            consume_from: None,
            auto_commit: None,
            allocation: Arc::new(Averagely),
            heartbeat_interval: second,
            long_polling_timeout: second,
            pull_messages_max: 32,
            prefetch: PrefetchBounds {
                messages: 100,
                bytes: 1000,
                span: 100,
            },
        };
        let group = GroupName::new("billing".to_owned()).expect("valid");
        let core = Arc::new(Core::new(connection, host.disk));
        Arc::new(Shared::new(core, identity, group, settings, progress))
    }

    /// Holds a queue from offset 0 on, with so many messages. Nobody fetches more.
    pub(crate) fn hold(shared: &Shared, number: u32, messages: u64) {
        let (mut holdings, queue) = (shared.holdings(), queue(number));
        assert!(holdings.take(queue.clone(), Arc::default(), Shutdown::new().0));
        let FetchNext::FindStart { epoch } = holdings.fetch_next(&queue) else {
            panic!("no start")
        };
        holdings.start_at(&queue, epoch, 0, (None, None));
        let deliveries = (0..messages).map(|offset| delivery(number, offset));
        assert!(holdings.fetched(&queue, epoch, deliveries.collect(), messages));
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use host::OsDisk;
    use host::testing::{Fault, FaultyDisk, Operation};
    use tokio::time::Instant;

    use super::testing::{hold, queue, without_servers};
    use super::*;
    use crate::consumer::holdings::{Pace, Pick, Ticket};
    use crate::consumer::progress_file::ProgressFile;

    const LONG: Duration = Duration::from_secs(60);

    fn pick(shared: &Shared) -> Ticket {
        match shared.holdings().pick(Pace::AtOnce(1), Instant::now()) {
            Pick::Delivery(ticket, _) => ticket,
            other => panic!("{other:?}"),
        }
    }

    /// Catches a queue that is ready to go and waits for a message of another one.
    #[tokio::test]
    async fn each_queue_is_released_for_itself() {
        let file = Arc::new(ProgressFile::in_memory("billing"));
        let shared = without_servers(Progress::Own(file.clone()), LONG);
        hold(&shared, 0, 1);
        hold(&shared, 1, 1);
        let (done, slow) = (pick(&shared), pick(&shared));
        shared.holdings().finish(&done);
        let queues = [done.queue, slow.queue.clone()];
        let mut released = Box::pin(shared.release(&queues, LONG));
        assert!(poll!(released.as_mut()).is_pending());
        assert_eq!(shared.holdings().held(), [queue(1)]);
        assert_eq!(file.offset(&queue(0)), Some(1));
        shared.holdings().finish(&slow);
        shared.settled.notify_waiters();
        released.await.expect("releases");
        assert_eq!(file.offset(&queue(1)), Some(1));
    }

    /// Catches progress that counts as committed although its file was not written.
    #[tokio::test]
    async fn a_write_that_failed_is_done_by_the_next_commit() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("progress");
        let disk = FaultyDisk::new(Arc::new(OsDisk::new()));
        let file = ProgressFile::open("billing", Arc::new(disk.clone()), path.clone()).await;
        let shared = without_servers(Progress::Own(Arc::new(file.expect("opens"))), LONG);
        hold(&shared, 0, 1);
        let ticket = pick(&shared);
        shared.holdings().finish(&ticket);
        let fault = Fault::once(Operation::Rename, "progress", std::io::ErrorKind::Other);
        disk.inject(fault);
        assert!(shared.commit_due().await.is_err());
        assert_eq!(shared.holdings().due().len(), 1);
        shared.commit_due().await.expect("writes");
        assert_eq!(shared.holdings().due(), []);
        assert!(path.exists());
    }

    /// Catches a round of commits that follows another one with older offsets.
    #[tokio::test]
    async fn what_is_due_is_looked_up_when_its_turn_has_come() {
        let file = Arc::new(ProgressFile::in_memory("billing"));
        let shared = without_servers(Progress::Own(file.clone()), LONG);
        hold(&shared, 0, 1);
        let ticket = pick(&shared);
        let turn = shared.turns.wait(&queue(0)).await;
        let mut commit = Box::pin(shared.commit_due());
        assert!(poll!(commit.as_mut()).is_pending());
        shared.holdings().finish(&ticket);
        drop(turn);
        commit.await.expect("commits");
        assert_eq!(file.offset(&queue(0)), Some(1));
    }
}
