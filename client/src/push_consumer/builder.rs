//! What the user of a push consumer may choose.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{GroupName, TopicName, retry};
use proto::v2::ClientType;

use crate::consumer::holdings::{Finishing, PrefetchBounds};
use crate::consumer::progress::Progress;
use crate::consumer::progress_file::ProgressFile;
use crate::consumer::rebalancer::Rebalancer;
use crate::consumer::shared::{Settings, Shared, Sharing};
use crate::consumer::{Allocation, Averagely, ConsumeFrom, Filter};
use crate::core::Core;
use crate::deadline;
use crate::error::Error;
use crate::member_ids::MemberIds;
use crate::push_consumer::engine::{Attempts, Engine, Rules};
use crate::push_consumer::listener::{Listener, listen};
use crate::push_consumer::{PushConsumer, PushStream};

/// Who gets a message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Consumption {
    /// One member of the group. The servers keep the group's progress.
    #[default]
    Clustering,
    /// Each member. Each keeps its own progress: in this file if one is named (made if it does not exist, in an existing
    /// directory; for one consumer at a time), otherwise in memory, to begin anew with each start.
    Broadcasting {
        /// The file for the progress.
        progress_file: Option<PathBuf>,
    },
}

/// Describes a [`PushConsumer`] or a [`PushStream`].
#[derive(Clone)]
pub struct PushConsumerBuilder {
    core: Arc<Core>,
    group: String,
    member_ids: MemberIds,
    subscriptions: BTreeMap<String, Filter>,
    consumption: Consumption,
    settings: Settings,
    rules: Rules,
    /// What the user wants.
    max_attempts: Option<u32>,
    listener_timeout: Duration,
}

impl PushConsumerBuilder {
    pub(crate) fn new(
        core: Arc<Core>,
        group: String,
        member_ids: MemberIds,
    ) -> PushConsumerBuilder {
        let settings = Settings {
            client_type: ClientType::PushConsumer,
            sharing: Sharing::AmongMembers,
            finishing: Finishing::OneByOne,
            retries: true,
            leave_timeout: Duration::from_secs(10),
            handover_intervals: 2,
            lag_interval: Some(Duration::from_secs(30)),
            consume_from: None,
            auto_commit: Some(Duration::from_secs(5)),
            allocation: Arc::new(Averagely),
            heartbeat_interval: Duration::from_secs(2),
            long_polling_timeout: Duration::from_secs(15),
            pull_messages_max: 32,
            prefetch: PrefetchBounds {
                messages: 1000,
                bytes: 100 * 1024 * 1024,
                span: 2000,
            },
        };
        let rules = Rules {
            concurrency: 20,
            in_order: false,
            attempts: Attempts::AtServers,
            pause: Duration::from_secs(1),
        };
        PushConsumerBuilder {
            core,
            group,
            member_ids,
            subscriptions: BTreeMap::new(),
            consumption: Consumption::Clustering,
            settings,
            rules,
            max_attempts: None,
            listener_timeout: Duration::from_secs(15 * 60),
        }
    }

    /// Adds a topic, of which the brokers send what passes the filter. All members of a group subscribe to the same.
    #[must_use]
    pub fn subscribe(mut self, topic: impl Into<String>, filter: Filter) -> Self {
        self.subscriptions.insert(topic.into(), filter);
        self
    }

    /// Who gets a message. Default [`Consumption::Clustering`].
    #[must_use]
    pub fn consumption(mut self, consumption: Consumption) -> Self {
        self.consumption = consumption;
        self
    }

    /// Works on one message of a queue at a time, in the order of the queue, so that messages of a message group are
    /// worked on in the order in which they were sent. Default: any, as many as [`PushConsumerBuilder::concurrency`] at
    /// once. A member that gets a queue of another living one leaves it alone for two heartbeats; a message that is worked
    /// on for longer than that may then be worked on by both.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.rules.in_order = true;
        self
    }

    /// Messages that are worked on at once, at most, of all queues together. Default 20.
    #[must_use]
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.rules.concurrency = messages;
        self
    }

    /// Where the group starts in a queue in which nothing is committed, if this consumer is the first one of it: the group
    /// keeps that, and a group that exists starts where it was told to (the log warns if that is elsewhere). Default the
    /// oldest message. Broadcasting, the latest message is that of the time when this consumer was there for the first time,
    /// as its progress file says.
    #[must_use]
    pub fn consume_from(mut self, start: ConsumeFrom) -> Self {
        self.settings.consume_from = Some(start);
        self
    }

    /// Attempts at a message before it goes to the dead letters (or is given up, when broadcasting). Default the group's
    /// own setting, which is 16 unless it was changed; 16 when broadcasting. Unless it works in order, the brokers count by
    /// the group's setting too: the lower of the two counts.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Pause before a message is tried again without the servers' help: in order, when broadcasting, and when the servers
    /// cannot be reached to take it back. Default 1 s.
    #[must_use]
    pub fn retry_pause(mut self, pause: Duration) -> Self {
        self.rules.pause = pause;
        self
    }

    /// How long a listener may work on one message; then its future is dropped, and the message has failed. Does not
    /// concern streams. Default 15 minutes.
    #[must_use]
    pub fn listener_timeout(mut self, timeout: Duration) -> Self {
        self.listener_timeout = timeout;
        self
    }

    /// How often progress is committed. Default 5 s.
    #[must_use]
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.settings.auto_commit = Some(interval);
        self
    }

    /// How the group's members share the queues; the same in all of them. Default [`Averagely`].
    #[must_use]
    pub fn allocation(mut self, strategy: impl Allocation) -> Self {
        self.settings.allocation = Arc::new(strategy);
        self
    }

    /// How often to tell the servers that this member lives, and to share the queues anew if members or queues have
    /// changed. Default 2 s. Must be well below the brokers' time after which a client is missed (30 s by default).
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.settings.heartbeat_interval = interval;
        self
    }

    /// How long a queue that goes to another member, and [`PushConsumer::close`], wait for those who work on messages.
    /// What is not finished then is delivered again. Default 10 s; together with the heartbeat interval it must be below
    /// the brokers' time after which a client is missed (30 s by default).
    #[must_use]
    pub fn leave_timeout(mut self, timeout: Duration) -> Self {
        self.settings.leave_timeout = timeout;
        self
    }

    /// How long a broker may hold a pull that finds nothing. Default 15 s.
    #[must_use]
    pub fn long_polling_timeout(mut self, timeout: Duration) -> Self {
        self.settings.long_polling_timeout = timeout;
        self
    }

    /// How often to ask how far behind this member is, for the metric `rocketmq_consumer_lag_messages`. Default 30 s.
    #[must_use]
    pub fn lag_interval(mut self, interval: Duration) -> Self {
        self.settings.lag_interval = Some(interval);
        self
    }

    /// Most messages asked for by one pull. Default 32.
    #[must_use]
    pub fn pull_messages_max(mut self, messages: usize) -> Self {
        self.settings.pull_messages_max = messages;
        self
    }

    /// No pull begins while so many messages of its queue are ready or worked on. Default 1000.
    #[must_use]
    pub fn queue_messages_max(mut self, messages: usize) -> Self {
        self.settings.prefetch.messages = messages;
        self
    }

    /// No pull begins while so many bytes of its queue are ready or worked on. Default 100 MiB.
    #[must_use]
    pub fn queue_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.prefetch.bytes = bytes;
        self
    }

    /// No pull begins while so many offsets lie between the lowest message of its queue that is not finished and the next
    /// one to pull: what a crash would deliver again. Default 2000.
    #[must_use]
    pub fn queue_span_max(mut self, offsets: u64) -> Self {
        self.settings.prefetch.span = offsets;
        self
    }

    /// Starts a consumer that calls `listener` with each message. Returns after the first share-out of the queues, or
    /// when that was tried.
    ///
    /// # Errors
    /// [`Error::Invalid`]: no topic, a bad name, a filter that no broker evaluates, a bound or interval of 0. [`Error::Refused`], [`Error::TimedOut`]: no such
    /// topic, a bad group, or nobody answered. [`Error::ProgressFile`].
    pub async fn listen(self, listener: impl Listener) -> Result<PushConsumer, Error> {
        let timeout = self.listener_timeout.min(deadline::LONGEST);
        let consumer = self.start().await?;
        tokio::spawn(listen(consumer.engine.clone(), listener, timeout));
        Ok(consumer)
    }

    /// Starts a consumer that is asked for each message.
    ///
    /// # Errors
    /// As [`PushConsumerBuilder::listen`].
    pub async fn stream(self) -> Result<PushStream, Error> {
        let consumer = self.start().await?;
        Ok(PushStream { consumer })
    }

    async fn start(mut self) -> Result<PushConsumer, Error> {
        let group = self.check()?;
        let mut rebalancer = Rebalancer::default();
        for (topic, filter) in std::mem::take(&mut self.subscriptions) {
            let topic: Arc<str> = topic.into();
            // So that a topic that does not exist is refused now and not by and by.
            self.core.route(&topic).await?;
            rebalancer.subscribe(topic, filter);
        }
        let progress = self.progress(&group).await?;
        self.rules.attempts = self.attempts();
        let identity = self.member_ids.next(self.settings.heartbeat_interval)?;
        let (core, settings) = (self.core, self.settings);
        let shared = Arc::new(Shared::new(core, identity, group, settings, progress));
        if let Err(error) = rebalancer.round(&shared).await {
            if !error.may_pass() {
                return Err(error);
            }
            tracing::warn!(group = %shared.group, %error, "queues not shared out yet");
        }
        let engine = Arc::new(Engine::new(shared, self.rules));
        let rebalancer = Arc::new(tokio::sync::Mutex::new(rebalancer));
        Ok(PushConsumer::start(engine, rebalancer))
    }

    async fn progress(&mut self, group: &GroupName) -> Result<Progress, Error> {
        let Consumption::Broadcasting { progress_file } = &self.consumption else {
            return Ok(Progress::OfGroup);
        };
        self.settings.sharing = Sharing::AllForEach;
        self.settings.retries = false;
        let file = match progress_file {
            None => ProgressFile::in_memory(group.as_str()),
            Some(path) => {
                let disk = self.core.disk.clone();
                ProgressFile::open(group.as_str(), disk, path.clone()).await?
            }
        };
        Ok(Progress::Own(Arc::new(file)))
    }

    /// Who counts a message's attempts, and how many there are.
    fn attempts(&self) -> Attempts {
        match (self.max_attempts, self.settings.sharing) {
            (Some(max), _) => Attempts::Here(max),
            (None, Sharing::AllForEach) => Attempts::Here(retry::ATTEMPTS_DEFAULT),
            (None, Sharing::AmongMembers) if self.rules.in_order => Attempts::OfGroup,
            (None, Sharing::AmongMembers) => Attempts::AtServers,
        }
    }

    fn check(&self) -> Result<GroupName, Error> {
        let group = GroupName::new(self.group.clone()).map_err(|error| {
            Error::invalid(format!("group {:?}", self.group), error.to_string())
        })?;
        if self.subscriptions.is_empty() {
            return Err(Error::invalid("subscriptions", "there is none"));
        }
        for (topic, filter) in &self.subscriptions {
            TopicName::check(topic)
                .map_err(|error| Error::invalid(format!("topic {topic:?}"), error.to_string()))?;
            filter.check()?;
        }
        let (settings, rules) = (&self.settings, &self.rules);
        let commits = settings.auto_commit;
        for (name, is_zero) in [
            ("concurrency", rules.concurrency == 0),
            ("max_attempts", self.max_attempts == Some(0)),
            ("retry_pause", rules.pause.is_zero()),
            ("listener_timeout", self.listener_timeout.is_zero()),
            (
                "commit_interval",
                commits.is_some_and(|interval| interval.is_zero()),
            ),
            ("heartbeat_interval", settings.heartbeat_interval.is_zero()),
            (
                "long_polling_timeout",
                settings.long_polling_timeout.is_zero(),
            ),
            (
                "lag_interval",
                settings
                    .lag_interval
                    .is_some_and(|interval| interval.is_zero()),
            ),
            ("pull_messages_max", settings.pull_messages_max == 0),
            ("queue_messages_max", settings.prefetch.messages == 0),
            ("queue_bytes_max", settings.prefetch.bytes == 0),
            ("queue_span_max", settings.prefetch.span == 0),
        ] {
            if is_zero {
                return Err(Error::invalid(name, "it is 0"));
            }
        }
        Ok(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::PullConsumerBuilder;
    use crate::consumer::shared::testing::without_servers;

    /// Catches a consumer that asks as fast as it can because brokers are told not to wait.
    #[test]
    fn polling_that_does_not_wait_is_refused() {
        let core = without_servers(Progress::OfGroup, Duration::ZERO)
            .core
            .clone();
        let ids = MemberIds::new(core.connection.identity.clone());
        let push = PushConsumerBuilder::new(core.clone(), "billing".to_owned(), ids.clone())
            .subscribe("t", Filter::All);
        push.check().expect("valid");
        let push = push.long_polling_timeout(Duration::ZERO);
        assert!(push.check().is_err());
        let pull = PullConsumerBuilder::new(core, "billing".to_owned(), ids);
        assert!(pull.clone().build().is_ok());
        assert!(pull.long_polling_timeout(Duration::ZERO).build().is_err());
    }
}
