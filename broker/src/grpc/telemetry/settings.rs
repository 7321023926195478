//! What the server puts into a client's settings. Everything the client said is echoed.

use proto::v2::retry_policy::Strategy;
use proto::v2::settings::PubSub;
use proto::v2::{
    Code, CustomizedBackoff, ExponentialBackoff, Metric, Publishing, RetryPolicy, Settings,
    Subscription,
};

use crate::filter::Filter;
use crate::grpc::status::Refusal;
use crate::grpc::{group_name, topic_name};
use crate::machine::backoff;
use crate::service::Service;

/// Attempts of a producer's send.
const SEND_ATTEMPTS_MAX: i32 = 3;
const SEND_BACKOFF_INITIAL_MS: i64 = 10;
const SEND_BACKOFF_MAX_MS: i64 = 1_000;
const SEND_BACKOFF_MULTIPLIER: f32 = 2.0;

/// Deliveries of a message when its group names no other number.
const DELIVERY_ATTEMPTS_MAX: i32 = 17;
/// Delays between them when it names none, in seconds; the last one repeats. Whole seconds: one client reads no less.
const DELIVERY_BACKOFF_SECONDS: [i64; 18] = [
    1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1_200, 1_800, 3_600, 7_200,
];

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
        Filter::parse(entry.expression.as_ref())?;
    }
    let group = service.view.group(&name);
    let attempts = group.as_ref().map_or(0, |group| group.max_attempts);
    let own = group.as_ref();
    let own = own.and_then(|group| backoff::own(&group.attributes));
    subscription.fifo = Some(group.is_some_and(|group| group.fifo));
    subscription.receive_batch_size = Some(RECEIVE_BATCH_SIZE);
    subscription.long_polling_timeout = Some(milliseconds(LONG_POLLING_SECONDS * 1_000));
    let next = match own {
        Some(delays_ms) => delays_ms.into_iter().map(whole_seconds).collect(),
        None => DELIVERY_BACKOFF_SECONDS.map(seconds).to_vec(),
    };
    Ok(RetryPolicy {
        max_attempts: if attempts > 0 {
            attempts
        } else {
            DELIVERY_ATTEMPTS_MAX
        },
        strategy: Some(Strategy::CustomizedBackoff(CustomizedBackoff { next })),
    })
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
