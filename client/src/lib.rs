//! The Rust client of RaftMQ: producers and consumers of RocketMQ's messaging model.
//!
//! ```no_run
//! use std::time::Duration;
//! use raftmq_client::{Client, Filter, Message};
//!
//! # async fn example() -> Result<(), raftmq_client::Error> {
//! let client = Client::builder().seeds(["127.0.0.1:8081", "127.0.0.1:8082"]).build().await?;
//!
//! let producer = client.producer().build()?;
//! let receipt = producer.send(Message::builder("orders").body("hello").tag("new").build()?).await?;
//! println!("stored at {}/{}/{}", receipt.topic, receipt.queue, receipt.offset);
//!
//! let consumer = client.pull_consumer("billing").build()?;
//! consumer.subscribe("orders", Filter::All).await?;
//! for delivery in consumer.poll(100, Duration::from_secs(5)).await? {
//!     println!("{}: {:?}", delivery.offset, delivery.message.body());
//! }
//! consumer.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`]: the connections, the routes, the identity. One per process is enough; cheap to clone.
//! - [`Producer`]: `send` returns when the message is on the disks of a majority of its broker group.
//! - [`PushConsumer`], [`PushStream`]: give each message to a listener or a stream, retry those that fail, keep progress.
//! - [`PullConsumer`]: takes its share of the queues of a consumer group, reads them in order, keeps its place.
//! - [`Admin`]: topics, groups, brokers.
//!
//! # Producing
//!
//! What is sent at the same time travels together, up to bounds that can be chosen: many sends at once are fast, one after
//! the other each waits for the disks of a majority. [`Producer::send_async`] returns a handle, [`Producer::send_batch`] a
//! result for each message, [`Producer::send_one_way`] nothing to wait for. Messages of one message group stay in order.
//!
//! ```no_run
//! use std::time::Duration;
//! use raftmq_client::{Client, Message};
//!
//! # async fn example(client: Client) -> Result<(), raftmq_client::Error> {
//! let producer = client.producer().linger(Duration::from_millis(2)).build()?;
//! let mut handles = Vec::new();
//! for number in 0..1000 {
//!     let order = Message::builder("orders").body(format!("{number}")).message_group("customer-7");
//!     handles.push(producer.send_async(order.build()?).await?);
//! }
//! for handle in handles {
//!     handle.await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # When something fails
//!
//! Calls are tried again by themselves while their deadline lasts: at another replica when the leader is another, at another
//! broker group when one surely did not store the message. An error that comes out says two things: whether the same call
//! may succeed later, and whether it may have been done although nobody said so. Sent again with the same message id within
//! the brokers' window for duplicates, a message is stored once.
//!
//! ```no_run
//! use std::time::Duration;
//! use raftmq_client::{Message, Producer};
//!
//! # async fn example(producer: Producer) -> Result<(), raftmq_client::Error> {
//! let order = Message::builder("orders").body("7").message_id("order-7").build()?;
//! while let Err(error) = producer.send(order.clone()).await {
//!     if !error.is_retriable() && !error.is_outcome_unknown() {
//!         return Err(error);
//!     }
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Consuming
//!
//! A listener is the least to write. It may work on several messages at once; what it returns an error for is delivered
//! again later, and in the end goes to the dead letters, the topic `%DLQ%` + group.
//!
//! ```no_run
//! use raftmq_client::{Client, Delivery, Filter};
//!
//! # async fn work_on(order: &[u8]) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn example(client: Client) -> Result<(), raftmq_client::Error> {
//! let consumer = client
//!     .push_consumer("billing")
//!     .subscribe("orders", Filter::All)
//!     .listen(async |delivery: Delivery| work_on(delivery.message.body()).await)
//!     .await?;
//! // … until the process shall end:
//! consumer.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A stream yields deliveries of which the receiver says what became: [`PushDelivery::ack`],
//! [`PushDelivery::retry_later`], [`PushDelivery::dead_letter`].
//!
//! ```no_run
//! # use raftmq_client::{Client, Filter};
//! # async fn example(client: Client) -> Result<(), raftmq_client::Error> {
//! let orders = client
//!     .push_consumer("shipping")
//!     .subscribe("orders", Filter::Tag("paid".to_owned()))
//!     // One message of a queue at a time: those of a message group in the order in which they were sent.
//!     .in_order()
//!     .stream()
//!     .await?;
//! while let Some(order) = orders.next().await? {
//!     println!("attempt {}: {:?}", order.attempt, order.message.body());
//!     order.ack();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! With [`Consumption::Broadcasting`] each member gets every message. A [`PullConsumer`] leaves the pace, the place and the
//! commits to its user.
//!
//! # What is seen of it
//!
//! Spans and events go to `tracing`: `send` and `poll` (debug), `consume` (info) around each call of a listener. Counts and
//! times go to the facade `metrics`, by the feature of that name, which is on by default: sent, failed, retried and received
//! messages, `rocketmq_send_cost_time`, `rocketmq_delivery_latency`, `rocketmq_process_time`,
//! `rocketmq_consumer_cached_messages`, `rocketmq_consumer_lag_messages`. Without a recorder they cost next to nothing.
//!
//! Every call has a deadline. Every [`Error`] says whether to try again and whether it may have happened.
//! Nothing here depends on the brokers' own crates: no log, no tables, no Raft.

// The simulator's tokio and tonic.
#[cfg(madsim)]
extern crate madsim_tokio as tokio;
#[cfg(madsim)]
extern crate madsim_tonic as tonic;

mod admin;
mod administration;
mod answer;
mod backoff;
mod broker_table;
mod call;
mod client;
mod compression;
mod connection;
mod consumer;
mod core;
mod deadline;
mod encode;
mod endpoints;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod hearsay;
mod lookout;
mod measure;
mod member_ids;
mod message;
mod offsets;
mod producer;
mod pursuit;
mod push_consumer;
mod received;
mod route;

pub use admin::{
    Admin, BrokerAddress, BrokerStatus, CommittedOffset, DedupStatus, GroupDescription,
    GroupMember, GroupQueue, GroupRoute, GroupSettings, GroupState, MessagePage, MessageQuery,
    MessageType, NameServerTable, QueueBounds, QueueOwner, TopicDescription, TopicSettings,
    TransferStatus,
};
pub use administration::Administration;
pub use client::{Client, ClientBuilder};
pub use consumer::{
    Allocation, Averagely, AveragelyByCircle, Configured, ConsistentHash, ConsumeFrom, Delivery,
    Filter, MachineRoom, MachineRoomNearby, PullConsumer, PullConsumerBuilder, SeekTo, SharedQueue,
    TopicQueue,
};
pub use error::Error;
#[cfg(feature = "tls")]
pub use host::network::ClientTls;
pub use host::network::ClusterSecret;
pub use message::{Message, MessageBuilder};
pub use model::message::{BODY_BYTES_MAX, PROPERTIES_BYTES_MAX, PROPERTIES_MAX};
pub use producer::{Producer, ProducerBuilder, SendHandle, SendReceipt};
pub use proto::v2::Code;
pub use push_consumer::{
    Consumption, Listener, PushConsumer, PushConsumerBuilder, PushDelivery, PushStream,
};
pub use received::ReceivedMessage;
