//! What is counted, under the names that are promised.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use raftmq_client::{Delivery, Error, Filter, Message};

use crate::client;
use crate::fake::{FakeCluster, SendFault, TOPIC};

/// Keeps a number for each name and status: of counters the sum, of gauges the last, of histograms how many.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<BTreeMap<String, Arc<Cell>>>>);

#[derive(Default)]
struct Cell(AtomicU64);

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::SeqCst);
    }
    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, value: f64) {
        self.0.store(value as u64, Ordering::SeqCst);
    }
}

impl HistogramFn for Cell {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Book {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let mut name = key.name().to_owned();
        for label in key.labels() {
            match label.key() {
                "invocation_status" => name = format!("{name} {}", label.value()),
                "topic" => assert_eq!(label.value(), TOPIC),
                "consumer_group" => assert_eq!(label.value(), "billing"),
                other => panic!("an unknown label {other}"),
            }
        }
        let mut cells = self.0.lock().expect("nothing panics with it");
        cells.entry(name).or_default().clone()
    }

    fn value(&self, name: &str) -> u64 {
        let cells = self.0.lock().expect("nothing panics with it");
        cells
            .get(name)
            .map_or(0, |cell| cell.0.load(Ordering::SeqCst))
    }

    async fn wait_for(&self, name: &str, value: u64) {
        let started = Instant::now();
        while self.value(name) != value {
            let late = started.elapsed() > Duration::from_secs(10);
            assert!(!late, "{name} is {} and not {value}", self.value(name));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Recorder for Book {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

/// Catches a figure that is not kept, kept twice, or kept under another name than the documentation says.
#[tokio::test]
async fn sends_and_deliveries_are_counted() {
    let book = Book::default();
    // This test's tasks all run on its own thread.
    let _recording = metrics::set_default_local_recorder(&book);
    let cluster = FakeCluster::start(1, 1).await;
    let client = client(&cluster, "c").await;
    let producer = client.producer().build().expect("valid");
    cluster.world().send_faults = [SendFault::LoseAnswer].into();
    for body in ["0", "1", "2", "poison"] {
        let message = Message::builder(TOPIC).body(body).build();
        let sent = producer.send(message.expect("valid")).await;
        assert_eq!(sent.is_ok(), body != "poison");
    }
    for (name, value) in [
        ("raftmq_client_sent_total", 3),
        ("raftmq_client_send_failed_total", 1),
        ("raftmq_client_send_retried_total", 1),
        ("rocketmq_send_cost_time success", 3),
    ] {
        assert_eq!(book.value(name), value, "{name}");
    }

    let consumer = client
        .push_consumer("billing")
        .subscribe(TOPIC, Filter::All)
        .heartbeat_interval(Duration::from_millis(50))
        .lag_interval(Duration::from_millis(50))
        .listen(|delivery: Delivery| async move {
            match (delivery.offset, delivery.attempt) {
                (0, 1) => Err(failure()),
                // Stays unfinished, and two with it.
                (1, _) => std::future::pending().await,
                _ => Ok(()),
            }
        })
        .await
        .expect("starts");
    book.wait_for("raftmq_client_received_total", 3).await;
    book.wait_for("rocketmq_delivery_latency", 3).await;
    book.wait_for("raftmq_client_handed_back_total", 1).await;
    book.wait_for("rocketmq_process_time failure", 1).await;
    book.wait_for("rocketmq_process_time success", 2).await;
    book.wait_for("rocketmq_consumer_cached_messages", 1).await;
    book.wait_for("rocketmq_consumer_lag_messages", 2).await;
    drop(consumer);
}

fn failure() -> Error {
    let invalid = Message::builder(TOPIC).build();
    invalid.expect_err("it has no body")
}
