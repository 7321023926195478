//! Calls the user's code with each delivery, as many at once as the engine hands out.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use crate::consumer::Delivery;
use crate::measure;
use crate::push_consumer::engine::Engine;
use crate::push_consumer::push_delivery::PushDelivery;

/// The user's code that works on messages. Every closure `async |delivery| -> Result<(), E>` (an `Fn` that is given a
/// [`Delivery`] and returns a future that is `Send`) is one.
///
/// It may be called for one message more than once, at the same time only in rare moments after a change of members; and
/// for several messages at once unless the consumer works in order.
pub trait Listener: Send + Sync + 'static {
    /// Why a message could not be worked on; stands in the log.
    type Error: Display + Send;

    /// Works on one message. An error means: deliver it again later. So does a panic. After
    /// [`crate::PushConsumerBuilder::listener_timeout`] the future is dropped, which means the same.
    fn consume(&self, delivery: Delivery) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl<F, R, E> Listener for F
where
    F: Fn(Delivery) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), E>> + Send,
    E: Display + Send,
{
    type Error = E;

    fn consume(&self, delivery: Delivery) -> impl Future<Output = Result<(), E>> + Send {
        self(delivery)
    }
}

/// Runs until the engine hands out nothing any more.
pub(super) async fn listen<L: Listener>(engine: Arc<Engine>, listener: L, timeout: Duration) {
    let listener = Arc::new(listener);
    loop {
        match PushDelivery::next(&engine).await {
            Ok(Some(delivery)) => {
                tokio::spawn(call(listener.clone(), delivery, timeout));
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(group = %engine.shared().group, %error, "a queue cannot be read");
            }
        }
    }
}

async fn call<L: Listener>(listener: Arc<L>, delivery: PushDelivery, timeout: Duration) {
    let span = tracing::info_span!(
        "consume",
        topic = &*delivery.topic,
        queue = delivery.queue,
        offset = delivery.offset,
        attempt = delivery.attempt,
        message_id = delivery.message.message_id(),
    );
    let began = Instant::now();
    let called = AssertUnwindSafe(async { listener.consume((*delivery).clone()).await });
    let called = called.catch_unwind().instrument(span);
    let outcome = tokio::time::timeout(timeout, called).await;
    let succeeded = matches!(outcome, Ok(Ok(Ok(()))));
    measure::consumed(
        delivery.group(),
        &delivery.topic,
        began.elapsed(),
        succeeded,
    );
    let reason = match outcome {
        Ok(Ok(Ok(()))) => return delivery.ack(),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => "the listener panicked".to_owned(),
        Err(_) => format!("the listener took more than {} ms", timeout.as_millis()),
    };
    let (queue, offset, attempt) = (delivery.topic_queue(), delivery.offset, delivery.attempt);
    tracing::warn!(%queue, offset, attempt, reason, "a message was not worked on");
    delivery.retry_later();
}
