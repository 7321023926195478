//! `consumer-group create` and `alter`: what a group says of itself, the same in every broker group.

use std::collections::BTreeSet;

use clap::Args;
use host::{Clock, SystemClock};
use raftmq_client::{Admin, ConsumeFrom, GroupDescription, GroupSettings};
use serde_json::json;

use crate::failure::Failure;
use crate::moments::Moment;
use crate::output::Output;

/// The attribute with the waits before retries.
pub(super) use model::retry::WAITS_ATTRIBUTE as RETRY_BACKOFF;

/// Flags of `raftmq consumer-group create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArguments {
    /// The consumer group
    name: String,
    #[command(flatten)]
    changes: Changes,
    /// An existing group of this name is fine
    #[arg(long)]
    if_absent: bool,
}

/// Flags of `raftmq consumer-group alter`.
#[derive(Args, Debug)]
pub(crate) struct AlterArguments {
    /// The consumer group
    name: String,
    #[command(flatten)]
    changes: Changes,
}

/// What is not named stays as it is, or is the broker's default.
#[derive(Args, Debug)]
struct Changes {
    /// Deliveries of one message before it goes to the dead letters
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_attempts: Option<u32>,
    /// Waits before the first, the second, … retry of a failed message; the last one goes on: 1s,5s,1m
    #[arg(long, value_name = "WAITS")]
    retry_backoff: Option<String>,
    /// Where it starts in a queue in which it has no offset: earliest, latest, or a time
    #[arg(long, value_name = "PLACE", value_parser = start)]
    from: Option<ConsumeFrom>,
}

impl Changes {
    fn of(&self, before: Option<GroupDescription>) -> GroupSettings {
        let mut settings = match before {
            None => GroupSettings::default(),
            Some(group) => GroupSettings {
                fifo: group.fifo,
                max_attempts: group.max_attempts,
                consume_from: group.consume_from,
                attributes: group.attributes,
                if_absent: false,
            },
        };
        if let Some(attempts) = self.max_attempts {
            settings.max_attempts = attempts;
        }
        if let Some(from) = self.from {
            settings.consume_from = from;
        }
        if let Some(waits) = &self.retry_backoff {
            let key = RETRY_BACKOFF.to_owned();
            settings.attributes.insert(key, waits.clone());
        }
        settings
    }
}

fn start(text: &str) -> Result<ConsumeFrom, String> {
    match text {
        "earliest" => Ok(ConsumeFrom::Earliest),
        "latest" => Ok(ConsumeFrom::Latest),
        time => Moment::parse(time)
            .map(|moment| ConsumeFrom::TimeMs(moment.at_ms(SystemClock.now_ms())))
            .map_err(|reason| format!("earliest or latest, or a time: {reason}")),
    }
}

/// Makes a group in every broker group, or in the one that is `chosen`.
pub(super) async fn create(
    admin: &Admin,
    chosen: bool,
    asked: &CreateArguments,
    output: Output,
) -> Result<(), Failure> {
    let settings = GroupSettings {
        if_absent: asked.if_absent,
        ..asked.changes.of(None)
    };
    let put = async |admin: &Admin| Ok(admin.create_group(&asked.name, &settings).await?);
    put_everywhere(admin, chosen, &asked.name, "created", output, put).await
}

/// Changes a group in every broker group, or in the one that is `chosen`.
pub(super) async fn alter(
    admin: &Admin,
    chosen: bool,
    asked: &AlterArguments,
    output: Output,
) -> Result<(), Failure> {
    let put = async |admin: &Admin| {
        let mut groups = admin.list_groups().await?.into_iter();
        let before = groups.find(|group| group.name == asked.name);
        let missing = || Failure::NotFound(format!("consumer group {} does not exist", asked.name));
        let settings = asked.changes.of(Some(before.ok_or_else(missing)?));
        Ok(admin.alter_group(&asked.name, &settings).await?)
    };
    put_everywhere(admin, chosen, &asked.name, "altered", output, put).await
}

async fn put_everywhere(
    admin: &Admin,
    chosen: bool,
    name: &str,
    what: &str,
    output: Output,
    put: impl AsyncFn(&Admin) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if chosen {
        put(admin).await?;
    } else {
        let brokers = admin.brokers().await?;
        let groups: BTreeSet<String> = brokers.into_iter().map(|broker| broker.group).collect();
        let mut done: Vec<&str> = Vec::new();
        for group in &groups {
            let of_group = admin.clone().broker_group(group.as_str());
            if let Err(failure) = put(&of_group).await {
                return Err(match done.is_empty() {
                    true => failure,
                    false => failure.after(format_args!(
                        "consumer group {name} is {what} in {} and not in {group}",
                        done.join(", ")
                    )),
                });
            }
            done.push(group);
        }
    }
    output.show(
        || json!({ "group": name, "done": what }),
        || format!("consumer group {name} {what}"),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a setting that does not arrive.
    #[test]
    fn what_is_named_is_set() {
        let changes = Changes {
            max_attempts: None,
            retry_backoff: Some("1s,5s".to_owned()),
            from: Some(ConsumeFrom::Latest),
        };
        let made = changes.of(None);
        assert_eq!((made.max_attempts, made.fifo), (0, false));
        assert_eq!(made.attributes[RETRY_BACKOFF], "1s,5s");
        assert_eq!(made.consume_from, ConsumeFrom::Latest);
    }

    /// Catches a place that is taken for another one.
    #[test]
    fn places_are_told_apart() {
        assert_eq!(start("earliest"), Ok(ConsumeFrom::Earliest));
        assert_eq!(start("latest"), Ok(ConsumeFrom::Latest));
        assert_eq!(start("5000"), Ok(ConsumeFrom::TimeMs(5_000)));
        assert!(start("newest").unwrap_err().contains("earliest or latest"));
    }
}
