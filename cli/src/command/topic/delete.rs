//! `raftmq topic delete`: says from which broker groups a topic is gone, and never passes over one that may have it.

use std::collections::BTreeSet;

use futures::future::join_all;
use raftmq_client::Admin;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// A broker group, and whether it has the topic; or why that is not known.
type Answer = (String, Result<bool, String>);

/// Deletes a topic from the broker group `chosen`; without one, from the only group that has it, or from all that do if it
/// is to be `everywhere`.
pub(super) async fn delete(
    admin: &Admin,
    name: &str,
    chosen: Option<String>,
    everywhere: bool,
    output: Output,
) -> Result<(), Failure> {
    let groups = match chosen {
        Some(_) if everywhere => {
            let reason = "--everywhere and --broker-group contradict each other";
            return Err(Failure::Configuration(reason.to_owned()));
        }
        Some(group) => vec![group],
        None => meant(name, ask_all(admin, name).await?, everywhere)?,
    };
    let mut done: Vec<String> = Vec::new();
    for group in groups {
        let of_group = admin.clone().broker_group(group.as_str());
        if let Err(error) = of_group.delete_topic(name).await {
            let failure = Failure::from(error);
            return Err(match done.is_empty() {
                true => failure,
                false => failure.after(format_args!(
                    "topic {name} is deleted from {} and not from {group}",
                    done.join(", ")
                )),
            });
        }
        done.push(group);
    }
    output.show(
        || json!({ "topic": name, "done": "deleted", "broker_groups": done }),
        || format!("topic {name} deleted from {}", done.join(", ")),
    );
    Ok(())
}

/// Asks every group, those that are down too: name servers may not have heard yet of a topic that a group has.
async fn ask_all(admin: &Admin, name: &str) -> Result<Vec<Answer>, Failure> {
    let (live, expired) = admin.brokers_and_expired().await?;
    let known = live.into_iter().chain(expired);
    let groups: BTreeSet<String> = known.map(|broker| broker.group).collect();
    let ask = |group: String| async move {
        let of_group = admin.clone().broker_group(group.as_str());
        let has = of_group.topic(name).await.map(|topic| topic.is_some());
        (group, has.map_err(|error| error.to_string()))
    };
    Ok(join_all(groups.into_iter().map(ask)).await)
}

/// The groups to delete it from. While one cannot be asked there are none: it would come back with its topic.
fn meant(name: &str, answers: Vec<Answer>, everywhere: bool) -> Result<Vec<String>, Failure> {
    let mut having = Vec::new();
    let mut silent = Vec::new();
    for (group, answer) in answers {
        match answer {
            Ok(true) => having.push(group),
            Ok(false) => {}
            Err(reason) => silent.push(format!("group {group} cannot be asked ({reason})")),
        }
    }
    if !silent.is_empty() {
        return Err(Failure::Unreachable(format!(
            "topic {name} was not deleted anywhere: {}; --broker-group deletes it from one group",
            silent.join(", ")
        )));
    }
    match having.len() {
        0 => Err(Failure::NotFound(format!("topic {name} does not exist"))),
        1 => Ok(having),
        _ if everywhere => Ok(having),
        _ => Err(Failure::Configuration(format!(
            "broker groups {} have topic {name}: choose one with --broker-group, or --everywhere",
            having.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ExitCode;

    fn answers(of: &[(&str, Option<bool>)]) -> Vec<Answer> {
        let answer = |(group, has): &(&str, Option<bool>)| {
            let reason = || "nobody leads".to_owned();
            ((*group).to_owned(), has.ok_or_else(reason))
        };
        of.iter().map(answer).collect()
    }

    fn refused(of: &[(&str, Option<bool>)], everywhere: bool) -> ExitCode {
        let refused = meant("orders", answers(of), everywhere).unwrap_err();
        refused.exit_code()
    }

    /// Catches a topic that is called deleted and comes back with a group that was not asked.
    #[test]
    fn nothing_is_deleted_while_a_group_cannot_be_asked() {
        let one_is_down = [("a", Some(true)), ("b", None)];
        for everywhere in [false, true] {
            assert_eq!(refused(&one_is_down, everywhere), ExitCode::Unreachable);
        }
    }

    /// Catches messages of a group that nobody meant.
    #[test]
    fn of_several_groups_one_is_named_or_all_are_meant() {
        let both = [("a", Some(true)), ("b", Some(true))];
        assert_eq!(refused(&both, false), ExitCode::Usage);
        assert_eq!(meant("orders", answers(&both), true).unwrap(), ["a", "b"]);
        let one = [("a", Some(false)), ("b", Some(true))];
        assert_eq!(meant("orders", answers(&one), false).unwrap(), ["b"]);
        assert_eq!(refused(&[("a", Some(false))], true), ExitCode::NotFound);
        assert_eq!(refused(&[], false), ExitCode::NotFound);
    }
}
