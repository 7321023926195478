//! What is counted and timed, and under which names. The only file that names the metrics facade; nothing happens here
//! without the feature `metrics`.
//!
//! | name | kind | labels | what |
//! | --- | --- | --- | --- |
//! | `raftmq_client_sent_total` | counter | topic | messages that were stored |
//! | `raftmq_client_send_failed_total` | counter | topic | messages whose send ended with an error |
//! | `raftmq_client_send_retried_total` | counter | topic | messages that were sent once more |
//! | `rocketmq_send_cost_time` | histogram, ms | topic, invocation_status | one request, of many messages, to its answer |
//! | `raftmq_client_received_total` | counter | topic, consumer_group | messages that came |
//! | `rocketmq_delivery_latency` | histogram, ms | topic, consumer_group | from being stored to coming |
//! | `rocketmq_process_time` | histogram, ms | topic, consumer_group, invocation_status | one call of a listener |
//! | `raftmq_client_handed_back_total` | counter | topic, consumer_group | failed messages that the servers took back |
//! | `raftmq_client_started_again_total` | counter | topic, consumer_group | times that a queue's place meant nothing any more: its topic was made again or restored |
//! | `rocketmq_consumer_cached_messages` | gauge | topic, consumer_group | fetched and not finished |
//! | `rocketmq_consumer_cached_bytes` | gauge | topic, consumer_group | of those |
//! | `rocketmq_consumer_lag_messages` | gauge | topic, consumer_group | in the held queues and not finished |

use std::time::Duration;

use crate::consumer::Delivery;

/// `count` messages of a topic were stored.
pub(crate) fn sent(topic: &str, count: usize) {
    add("raftmq_client_sent_total", [("topic", topic)], count);
}

/// The sends of `count` messages ended with an error.
pub(crate) fn send_failed(topic: &str, count: usize) {
    add("raftmq_client_send_failed_total", [("topic", topic)], count);
}

/// `count` messages are sent once more.
pub(crate) fn send_retried(topic: &str, count: usize) {
    add(
        "raftmq_client_send_retried_total",
        [("topic", topic)],
        count,
    );
}

/// One request came to its end.
pub(crate) fn request(topic: &str, took: Duration, succeeded: bool) {
    let labels = [("topic", topic), ("invocation_status", status(succeeded))];
    record("rocketmq_send_cost_time", labels, [ms(took)]);
}

/// Messages of one topic came, at this time of the client's clock.
pub(crate) fn received(group: &str, deliveries: &[Delivery], now_ms: u64) {
    let Some(first) = deliveries.first() else {
        return;
    };
    let labels = [("topic", &*first.topic), ("consumer_group", group)];
    add("raftmq_client_received_total", labels, deliveries.len());
    let latencies = deliveries
        .iter()
        .map(|delivery| now_ms.saturating_sub(delivery.message.stored_ms()) as f64);
    record("rocketmq_delivery_latency", labels, latencies);
}

/// A listener's call came to its end.
pub(crate) fn consumed(group: &str, topic: &str, took: Duration, succeeded: bool) {
    let labels = [
        ("topic", topic),
        ("consumer_group", group),
        ("invocation_status", status(succeeded)),
    ];
    record("rocketmq_process_time", labels, [ms(took)]);
}

/// A failed message is the servers' now.
pub(crate) fn handed_back(group: &str, topic: &str) {
    let labels = [("topic", topic), ("consumer_group", group)];
    add("raftmq_client_handed_back_total", labels, 1);
}

/// A queue is read from where its group starts: the place in it meant nothing any more.
pub(crate) fn started_again(group: &str, topic: &str) {
    let labels = [("topic", topic), ("consumer_group", group)];
    add("raftmq_client_started_again_total", labels, 1);
}

/// What a consumer has of a topic at the moment.
pub(crate) fn cached(group: &str, topic: &str, messages: usize, bytes: usize) {
    let labels = [("topic", topic), ("consumer_group", group)];
    set("rocketmq_consumer_cached_messages", labels, messages as f64);
    set("rocketmq_consumer_cached_bytes", labels, bytes as f64);
}

/// How far behind a consumer is in the queues of a topic that it holds.
pub(crate) fn lag(group: &str, topic: &str, messages: u64) {
    let labels = [("topic", topic), ("consumer_group", group)];
    set("rocketmq_consumer_lag_messages", labels, messages as f64);
}

fn status(succeeded: bool) -> &'static str {
    match succeeded {
        true => "success",
        false => "failure",
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

#[cfg(feature = "metrics")]
fn owned<const N: usize>(labels: Labels<'_, N>) -> Vec<metrics::Label> {
    let label = |(name, value): (&'static str, &str)| metrics::Label::new(name, value.to_owned());
    labels.map(label).into()
}

#[cfg(feature = "metrics")]
fn add<const N: usize>(name: &'static str, labels: Labels<'_, N>, count: usize) {
    if count > 0 {
        metrics::counter!(name, owned(labels)).increment(count as u64);
    }
}

#[cfg(feature = "metrics")]
fn record<const N: usize>(
    name: &'static str,
    labels: Labels<'_, N>,
    values: impl IntoIterator<Item = f64>,
) {
    let histogram = metrics::histogram!(name, owned(labels));
    for value in values {
        histogram.record(value);
    }
}

#[cfg(feature = "metrics")]
fn set<const N: usize>(name: &'static str, labels: Labels<'_, N>, value: f64) {
    metrics::gauge!(name, owned(labels)).set(value);
}

#[cfg(not(feature = "metrics"))]
fn add<const N: usize>(_: &'static str, _: Labels<'_, N>, _: usize) {}

#[cfg(not(feature = "metrics"))]
fn record<const N: usize>(_: &'static str, _: Labels<'_, N>, _: impl IntoIterator<Item = f64>) {}

#[cfg(not(feature = "metrics"))]
fn set<const N: usize>(_: &'static str, _: Labels<'_, N>, _: f64) {}
