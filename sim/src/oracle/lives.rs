//! What groups must get of topics that are made again or grow under them, and what they must not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Model;
use crate::history::{Event, Record, Value};
use crate::violation::Violation;

/// What is owed at the end of a history and was not read. The error names one message.
///
/// # Errors
/// Something is left, or more is to come.
pub fn all_read(records: &[Record]) -> Result<(), String> {
    let mut owed: BTreeMap<(&Arc<str>, Value), &Arc<str>> = BTreeMap::new();
    // A group may get a message before its producer hears that it is stored.
    let mut got: BTreeSet<(&Arc<str>, Value)> = BTreeSet::new();
    // What was stored after the latest copy.
    let mut behind_copy: Vec<Value> = Vec::new();
    let mut all_owed = true;
    for record in records {
        match &record.event {
            Event::StartsNow { .. } => all_owed = false,
            Event::AllOwed => all_owed = true,
            Event::Owed {
                groups,
                topic,
                value,
            } => {
                behind_copy.push(*value);
                let groups = groups
                    .iter()
                    .filter(|group| !got.contains(&(*group, *value)));
                owed.extend(groups.map(|group| ((group, *value), topic)));
            }
            Event::Copied => behind_copy.clear(),
            // What the copy has is owed still, and whatever is stored from now on.
            Event::Restored => {
                let gone: BTreeSet<Value> = behind_copy.drain(..).collect();
                owed.retain(|(_, value), _| !gone.contains(value));
            }
            Event::Gone { topic } => owed.retain(|_, of| *of != topic),
            Event::Got {
                group,
                value: Some(value),
            } => {
                got.insert((group, *value));
                owed.remove(&(group, *value));
            }
            _ => {}
        }
    }
    match owed.first_key_value() {
        Some(((group, value), topic)) => Err(format!(
            "{group} did not get {value:x} of {topic}, nor {} more",
            owed.len() - 1
        )),
        None if all_owed => Ok(()),
        None => Err("topics are still made again".to_owned()),
    }
}

impl Model<'_> {
    /// A group that starts at the latest message is not given what was stored before it was made; and nobody is given what
    /// nobody sent.
    pub(super) fn starts_where_told(&self) -> Result<(), Violation> {
        let mut not_for: BTreeMap<(&Arc<str>, Value), usize> = BTreeMap::new();
        for (at, record) in self.records.iter().enumerate() {
            match &record.event {
                Event::NotFor { group, value } => drop(not_for.insert((group, *value), at)),
                Event::Got { value: None, .. } => {
                    let what = "bytes that nobody sent".to_owned();
                    return Err(Violation::new("no-phantom", what).proved_by(self.show([at])));
                }
                Event::Got {
                    group,
                    value: Some(value),
                } => {
                    if let Some(stored) = not_for.get(&(group, *value)) {
                        let what = format!("{group} got {value:x}, which is older than it");
                        let proof = self.show([*stored, at]);
                        return Err(Violation::new("starts-where-told", what).proved_by(proof));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn records(events: Vec<Event>) -> Vec<Record> {
        let record = |event| Record {
            at: 0,
            machine: Machine::Operator,
            event,
        };
        events.into_iter().map(record).collect()
    }

    fn owed(value: Value) -> Event {
        Event::Owed {
            groups: vec!["g".into()],
            topic: "t".into(),
            value,
        }
    }

    fn got(value: Value) -> Event {
        Event::Got {
            group: "g".into(),
            value: Some(value),
        }
    }

    /// Catches a message of the present topic that is forgiven, and one of a topic that is gone that is asked for.
    #[test]
    fn what_is_owed_is_that_of_the_present_topic() {
        let gone = || Event::Gone { topic: "t".into() };
        let starts = || Event::StartsNow { group: "l".into() };
        assert_eq!(all_read(&records(vec![owed(1), gone()])), Ok(()));
        assert_eq!(all_read(&records(vec![got(1), owed(1)])), Ok(()));
        assert!(all_read(&records(vec![owed(1), gone(), owed(2)])).is_err());
        assert!(all_read(&records(vec![starts(), owed(2), got(2)])).is_err());
        let over = vec![starts(), owed(2), got(2), Event::AllOwed];
        assert_eq!(all_read(&records(over)), Ok(()));
    }

    /// Catches a message of the copy that is forgiven, and one that is asked for although the copy cannot have it; and one that
    /// was stored after the loss at a place that a lost one had, and that nobody is given.
    #[test]
    fn what_a_backup_has_is_owed_and_what_comes_after_the_loss() {
        let story = |after: Vec<Event>| {
            let before = vec![owed(1), Event::Copied, owed(2), Event::Restored];
            all_read(&records([before, after].concat()))
        };
        assert!(story(vec![]).is_err());
        assert_eq!(story(vec![got(1)]), Ok(()));
        assert!(story(vec![got(1), owed(3)]).is_err());
        assert_eq!(story(vec![got(1), owed(3), got(3)]), Ok(()));
        assert!(all_read(&records(vec![owed(1), Event::Restored, owed(2), got(2)])).is_ok());
    }

    /// Catches history that is given to a group which starts at the latest message.
    #[test]
    fn what_is_older_than_a_group_is_not_for_it() {
        let not_for = |value| Event::NotFor {
            group: "g".into(),
            value,
        };
        let judge = |events| super::super::judge(&records(events)).map_err(|found| found.invariant);
        assert_eq!(judge(vec![not_for(1), got(2)]), Ok(()));
        assert_eq!(judge(vec![not_for(1), got(1)]), Err("starts-where-told"));
    }
}
