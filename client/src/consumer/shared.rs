//! What the parts of one consumer share: who it is, what it was told to do, and what it holds.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, StreamExt};
use model::GroupName;
use proto::place::{CONSUME_FROM, Life};
use proto::v2::{ClientType, Code};
use tokio::sync::{Notify, RwLock};
use tokio::time::Instant;

use crate::connection::Identity;
use crate::consumer::allocation::Allocation;
use crate::consumer::delivery::{ConsumeFrom, TopicQueue};
use crate::consumer::holdings::{Due, Finishing, Holdings, PrefetchBounds};
use crate::consumer::progress::{Progress, Whose};
use crate::core::Core;
use crate::deadline;
use crate::error::Error;
use crate::measure;
use crate::offsets::Start;
use crate::pursuit::Pursuit;

/// Commits on their way at once. Brokers gather them, so a few are enough.
const COMMITS_AT_ONCE: u32 = 16;

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
    /// So that an older offset never follows a newer one: a round of commits has it alone; queues that are given up share
    /// it, since nobody else commits them any more.
    committing: RwLock<()>,
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
            committing: RwLock::with_max_readers((), COMMITS_AT_ONCE),
        }
    }

    pub(crate) fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings
            .lock()
            .expect("nothing panics while the holdings are locked")
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

    /// The same because the user says so: of what is handed out, nobody could say meanwhile that it is finished with.
    pub(crate) async fn give_up_at_once(&self, queues: &[TopicQueue]) {
        let timeout = match self.settings.finishing {
            Finishing::AtOnce => Duration::ZERO,
            Finishing::OneByOne => self.settings.leave_timeout,
        };
        self.give_up_within(queues, timeout).await;
    }

    async fn give_up_within(&self, queues: &[TopicQueue], timeout: Duration) {
        if let Err(error) = self.release_within(queues, timeout).await {
            // Its next owner starts a little earlier and delivers a few messages again.
            tracing::warn!(group = %self.group, %error, "offsets of given-up queues not committed");
        }
    }

    /// As `give_up`, and says what went wrong with the commits: the first of it.
    pub(crate) async fn release(&self, queues: &[TopicQueue]) -> Result<(), Error> {
        let timeout = self.settings.leave_timeout;
        self.release_within(queues, timeout).await
    }

    async fn release_within(&self, queues: &[TopicQueue], timeout: Duration) -> Result<(), Error> {
        self.holdings().leave(queues);
        let each = queues.iter().map(|queue| self.release_one(queue, timeout));
        let released = join_all(each).await;
        released.into_iter().collect::<Result<(), Error>>()?;
        // What was committed before may not be saved yet, also if none of these queues had anything to commit.
        self.progress.save().await
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

    async fn release_one(&self, queue: &TopicQueue, timeout: Duration) -> Result<(), Error> {
        self.wait_for_work_on(queue, timeout).await;
        let _committing = self.committing.read().await;
        let due = self.holdings().give_up(queue);
        self.commit_all(due.into_iter().collect()).await
    }

    /// Returns when nothing of a queue is in anybody's hands, or the timeout is over.
    async fn wait_for_work_on(&self, queue: &TopicQueue, timeout: Duration) {
        let deadline = deadline::after(timeout);
        loop {
            let mut settled = pin!(self.settled.notified());
            // From here on an end is noticed, also one between the look and the wait.
            settled.as_mut().enable();
            let running = self.holdings().running(queue);
            if running == 0 {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || tokio::time::timeout(left, settled).await.is_err() {
                if !timeout.is_zero() {
                    tracing::warn!(group = %self.group, %queue, running, "messages are still worked on: the queue's next owner gets them too");
                }
                return;
            }
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
        let _committing = self.committing.write().await;
        // Not before it is this round's turn: the round before may be about newer offsets otherwise.
        let due = self.holdings().due();
        self.commit_all(due).await
    }

    pub(crate) async fn commit(&self, due: Vec<Due>) -> Result<(), Error> {
        let _committing = self.committing.write().await;
        self.commit_all(due).await
    }

    /// One round of commits, for whoever has the right to it.
    async fn commit_all(&self, due: Vec<Due>) -> Result<(), Error> {
        let mut results = stream::iter(due)
            .map(|due| async move { (self.progress.commit(self.whose(), &due).await, due) })
            .buffered(COMMITS_AT_ONCE as usize);
        let (mut failure, mut unsaved) = (None, Vec::new());
        while let Some((result, due)) = results.next().await {
            match result {
                Ok(()) if self.progress.needs_save() => unsaved.push(due),
                Ok(()) => self.holdings().committed(&due),
                Err(error) => {
                    if error.code() == Some(Code::PreconditionFailed) {
                        let why = "its topic was made again or restored";
                        self.start_again(&due.queue, due.queue.life(), why);
                    }
                    failure.get_or_insert(error);
                }
            }
        }
        match self.progress.save().await {
            Ok(()) => {
                let mut holdings = self.holdings();
                for due in &unsaved {
                    holdings.committed(due);
                }
            }
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// A consumer's parts without servers.
#[cfg(test)]
pub(crate) mod testing {
    use bytes::Bytes;
    use host::{Host, Shutdown};

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
        let mut released = Box::pin(shared.release(&queues));
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
        let turn = shared.committing.write().await;
        let mut commit = Box::pin(shared.commit_due());
        assert!(poll!(commit.as_mut()).is_pending());
        shared.holdings().finish(&ticket);
        drop(turn);
        commit.await.expect("commits");
        assert_eq!(file.offset(&queue(0)), Some(1));
    }
}
