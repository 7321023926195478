//! Who is said to lead each broker group, by those who were asked. What it is good for, [`crate::lookout`] knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::Instant;

/// Broker groups that are looked after. They are as many as routes name; this only guards against nonsense in them.
const GROUPS_MAX: usize = 1_024;

/// Who is said to lead each broker group, by those who were asked.
#[derive(Debug, Default)]
pub(crate) struct Hearsay {
    groups: Mutex<BTreeMap<Arc<str>, Arc<Looked>>>,
}

/// One broker group.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The answers to the last question, and when they were there.
    pub(crate) said: watch::Sender<Option<(Instant, Arc<[Named]>)>>,
    /// Held while peers are asked: when that was last.
    pub(crate) asked: tokio::sync::Mutex<Option<Instant>>,
}

/// Whom one peer names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) leader: Arc<str>,
    /// 0: it does not say.
    pub(crate) term: u64,
}

impl Hearsay {
    /// What is known of one, or a place for it.
    pub(crate) fn group(&self, group: &str) -> Arc<Looked> {
        let mut groups = self
            .groups
            .lock()
            .expect("nothing panics while the groups are locked");
        if let Some(looked) = groups.get(group) {
            return looked.clone();
        }
        if groups.len() >= GROUPS_MAX {
            groups.pop_first();
        }
        let looked = Arc::new(Looked {
            said: watch::Sender::new(None),
            asked: tokio::sync::Mutex::default(),
        });
        groups.insert(group.into(), looked.clone());
        looked
    }
}
