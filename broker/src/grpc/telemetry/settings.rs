//! What the server puts into a client's settings. Everything the client said is echoed.

use proto::v2::retry_policy::Strategy;
use proto::v2::settings::PubSub;
use proto::v2::{
    Code, CustomizedBackoff, ExponentialBackoff, Metric, Publishing, RetryPolicy, Settings,
    Subscription,
};

use crate::grpc::status::Refusal;
use crate::grpc::{filter, group_name, topic_name};
use crate::service::Service;

/// Attempts of a producer's send.
const SEND_ATTEMPTS_MAX: i32 = 3;
const SEND_BACKOFF_INITIAL_MS: i64 = 10;
const SEND_BACKOFF_MAX_MS: i64 = 1_000;
const SEND_BACKOFF_MULTIPLIER: f32 = 2.0;

const RECEIVE_BATCH_SIZE: i32 = 32;
const LONG_POLLING_SECONDS: i64 = 20;

/// Limits of what a client may say about itself.
const PROPERTIES_MAX: usize = 32;
const PROPERTY_KEY_BYTES_MAX: usize = 64;
const PROPERTY_VALUE_BYTES_MAX: usize = 256;
const PROPERTIES_BYTES_MAX: usize = 4_096;

/// The client's settings with the server's in them.
pub(super) fn merge(service: &Service, mut settings: Settings) -> Result<Settings, Refusal> {
    check_properties(&settings)?;
    let backoff = match &mut settings.pub_sub {
        Some(PubSub::Publishing(publishing)) => merge_publishing(service, publishing)?,
        Some(PubSub::Subscription(subscription)) => merge_subscription(service, subscription)?,
        None => {
            let reason = "the settings have neither publishing nor subscription";
            return Err(Refusal::new(Code::BadRequest, reason));
        }
    };
    settings.backoff_policy = Some(backoff);
    settings.metric = Some(Metric {
        on: false,
        endpoints: None,
    });
    Ok(settings)
}

fn merge_publishing(
    service: &Service,
    publishing: &mut Publishing,
) -> Result<RetryPolicy, Refusal> {
    for topic in &publishing.topics {
        topic_name(Some(topic))?;
    }
    publishing.max_body_size = i32::try_from(service.config.message_bytes_max).unwrap_or(i32::MAX);
    publishing.validate_message_type = true;
    Ok(RetryPolicy {
        max_attempts: SEND_ATTEMPTS_MAX,
        strategy: Some(Strategy::ExponentialBackoff(ExponentialBackoff {
            initial: Some(milliseconds(SEND_BACKOFF_INITIAL_MS)),
            max: Some(milliseconds(SEND_BACKOFF_MAX_MS)),
            multiplier: SEND_BACKOFF_MULTIPLIER,
        })),
    })
}

fn merge_subscription(
    service: &Service,
    subscription: &mut Subscription,
) -> Result<RetryPolicy, Refusal> {
    let name = group_name(subscription.group.as_ref())?;
    for entry in &subscription.subscriptions {
        topic_name(entry.topic.as_ref())?;
        filter(entry.expression.as_ref())?;
    }
    let group = service.view.group(&name);
    subscription.fifo = Some(group.as_ref().is_some_and(|group| group.fifo));
    subscription.receive_batch_size = Some(RECEIVE_BATCH_SIZE);
    subscription.long_polling_timeout = Some(milliseconds(LONG_POLLING_SECONDS * 1_000));
    let policy = group.map_or_else(model::RetryPolicy::default, |group| group.retry_policy());
    Ok(told(&policy))
}

/// A group's policy as clients are told it. Whole seconds: one client reads no less.
fn told(policy: &model::RetryPolicy) -> RetryPolicy {
    let waits = policy.waits_ms().iter();
    let next = waits.map(|wait_ms| whole_seconds(*wait_ms)).collect();
    RetryPolicy {
        max_attempts: i32::try_from(policy.attempts_max()).unwrap_or(i32::MAX),
        strategy: Some(Strategy::CustomizedBackoff(CustomizedBackoff { next })),
    }
}

fn check_properties(settings: &Settings) -> Result<(), Refusal> {
    let properties = &settings.client_properties;
    let bytes: usize = properties
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    let valid = properties.len() <= PROPERTIES_MAX
        && bytes <= PROPERTIES_BYTES_MAX
        && properties
            .iter()
            .all(|(key, value)| is_property_key(key) && value.len() <= PROPERTY_VALUE_BYTES_MAX);
    if valid {
        return Ok(());
    }
    Err(Refusal::new(
        Code::InvalidClientProperties,
        "the client properties break their limits",
    ))
}

fn is_property_key(key: &str) -> bool {
    key.len() <= PROPERTY_KEY_BYTES_MAX
        && key.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && key
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
}

/// So long, and a part of a second for a whole one.
fn whole_seconds(duration_ms: u64) -> prost_types::Duration {
    seconds(i64::try_from(duration_ms.div_ceil(1_000)).unwrap_or(i64::MAX))
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn milliseconds(duration_ms: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: duration_ms / 1_000,
        nanos: (duration_ms % 1_000 * 1_000_000) as i32,
    }
}

#[cfg(test)]
mod tests {
    use proto::command::command::Body;
    use proto::command::{Delivery, PutGroup, SendBack};

    use super::*;
    use crate::machine::testing::{Harness, append};

    /// How the machine delivers a message to a group, as far as it fails each time: the waits, each in whole seconds and as
    /// often as it is delivered again.
    async fn done(harness: &mut Harness, topic_id: u64, group: &str) -> Vec<i64> {
        let mut waits = Vec::new();
        loop {
            let failed = Delivery {
                offset: 0,
                attempt: waits.len() as u32 + 1,
            };
            let command = SendBack {
                group: group.to_owned(),
                topic_id,
                failed: vec![failed],
                ..Default::default()
            };
            let reply = harness.command(0, Body::SendBack(command)).await;
            assert_eq!(reply.value, 1, "{reply:?}");
            let queue = harness.view.group_queue(group, topic_id, 0).unwrap();
            let held = std::collections::BTreeSet::new();
            let waiting = harness.view.retries_due(queue, u64::MAX, &held, 1);
            let Some((_, retry)) = waiting.now.first() else {
                return waits;
            };
            waits.push(whole_seconds(retry.due_ms).seconds);
        }
    }

    /// Catches a client that is told of other attempts or other waits than the machine keeps to.
    #[tokio::test]
    async fn clients_are_told_what_the_machine_does() {
        let mut harness = Harness::new().await;
        let topic_id = harness.topic("orders", 1).await;
        harness.command(0, append(topic_id, 0, &[(1, 1)])).await;
        for (max_attempts, waits) in [(0, ""), (1, ""), (5, "250ms,5s"), (0, "1m"), (3, "soon")] {
            let name = format!("of-{max_attempts}-{}", waits.len());
            let group = PutGroup {
                name: name.clone(),
                create: true,
                max_attempts,
                attributes: [("retry.backoff".to_owned(), waits.to_owned())].into(),
                ..Default::default()
            };
            harness.command(0, Body::PutGroup(group)).await;
            let told = told(&harness.view.group(&name).unwrap().retry_policy());
            let Some(Strategy::CustomizedBackoff(backoff)) = told.strategy else {
                panic!("{told:?}")
            };
            let waits = done(&mut harness, topic_id, &name).await;
            assert_eq!(waits.len() as i32 + 1, told.max_attempts, "{name}");
            for (retry, wait) in waits.into_iter().enumerate() {
                let last = backoff.next.len() - 1;
                assert_eq!(wait, backoff.next[retry.min(last)].seconds, "{name}");
            }
        }
    }
}
