//! The demo's two consumers: members of one consumer group, each with a client of its own.

use std::time::Duration;

use host::shutdown::Shutdown;
use raftmq_client::{Client, Filter, PullConsumer};
use tokio::task::JoinHandle;

use super::tally::Received;
use super::{SharedTally, TOPIC, lock};
use crate::failure::Failure;
use crate::process::GroupPlan;

const CONSUMER_GROUP: &str = "demo-readers";
const CONSUMERS: usize = 2;
const POLL_MESSAGES: usize = 512;
const POLL_WAIT: Duration = Duration::from_millis(200);
/// Pause after a failed poll: the consumer tries again until it is told to stop.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Running consumers.
pub(crate) type Consumers = Vec<JoinHandle<Result<(), Failure>>>;

/// Starts both; they write what they receive into `tally` until they are told to stop.
pub(crate) async fn start(
    plan: &GroupPlan,
    tally: &SharedTally,
    stop: &Shutdown,
) -> Result<Consumers, Failure> {
    let mut consumers = Vec::with_capacity(CONSUMERS);
    for number in 0..CONSUMERS {
        let client = Client::builder().seeds(plan.seeds()).build().await?;
        let consumer = client
            .pull_consumer(CONSUMER_GROUP)
            .auto_commit(Duration::from_millis(500))
            .heartbeat_interval(Duration::from_millis(500))
            .build()?;
        consumer.subscribe(TOPIC, Filter::All).await?;
        let work = consume(number, consumer, SharedTally::clone(tally), stop.clone());
        consumers.push(tokio::spawn(work));
    }
    Ok(consumers)
}

/// Waits until both have said goodbye.
pub(crate) async fn finish(consumers: Consumers) -> Result<(), Failure> {
    for consumer in consumers {
        consumer
            .await
            .map_err(|error| Failure::during("a consumer", error))??;
    }
    Ok(())
}

async fn consume(
    number: usize,
    consumer: PullConsumer,
    tally: SharedTally,
    stop: Shutdown,
) -> Result<(), Failure> {
    while !stop.is_shut_down() {
        let Ok(deliveries) = consumer.poll(POLL_MESSAGES, POLL_WAIT).await else {
            tokio::time::sleep(RETRY_PAUSE).await;
            continue;
        };
        let mut tally = lock(&tally);
        for delivery in &deliveries {
            tally.received(&Received {
                consumer: number,
                queue: delivery.queue,
                message_group: delivery.message.message_group().unwrap_or(""),
                body: delivery.message.body(),
            });
        }
    }
    consumer.close().await.map_err(Failure::from)
}
