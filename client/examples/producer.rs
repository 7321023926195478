//! Sends numbered messages: some one by one, some as a batch, some in order within a group.
//!
//! `cargo run --release -p raftmq-client --example producer -- 127.0.0.1:8081 orders`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use raftmq_client::{Client, Error, Message};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:8081".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());

    let client = Client::builder().seeds([seed]).build().await?;
    let producer = client.producer().build()?;

    // One message; the receipt says that it is on the disks of a majority.
    let message = Message::builder(&*topic)
        .body("hello")
        .tag("greeting")
        .keys(["order-17"])
        .property("source", "example")
        .build()?;
    let receipt = producer.send(message).await?;
    println!(
        "{} is at {}/{}/{}",
        receipt.message_id, receipt.topic, receipt.queue, receipt.offset
    );

    // Many messages without waiting for each: they share requests.
    let mut handles = Vec::new();
    for number in 0..1000 {
        handles.push(
            producer
                .send_async(Message::new(&*topic, format!("number {number}"))?)
                .await?,
        );
    }
    for handle in handles {
        handle.await?;
    }

    // Messages of one group stay in order, also through retries and changes of leader.
    for step in ["created", "paid", "shipped"] {
        let message = Message::builder(&*topic)
            .body(step)
            .message_group("order-17")
            .build()?;
        match producer.send(message).await {
            Ok(receipt) => println!("{step}: {}/{}", receipt.queue, receipt.offset),
            Err(error) if error.is_outcome_unknown() => println!("{step}: perhaps stored: {error}"),
            Err(error) => return Err(error),
        }
    }
    producer.close().await
}
