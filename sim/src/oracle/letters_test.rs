//! Dead letters, on histories in which they go too early, in time, and never.

use super::judge;
use crate::history::{Event, Member, Place, Queue, Record};
use crate::machine::Machine;

const GROUP: &str = "group-topic-0";
const KEPT_MS: u64 = 5_000;
const SECOND_NS: u64 = 1_000_000_000;

fn queue(topic: &str) -> Queue {
    Queue {
        topic: topic.into(),
        queue: 0,
    }
}

struct Story(Vec<Record>);

impl Story {
    fn new() -> Story {
        Story(Vec::new())
            .at(0, Event::LettersKeptFor { ms: KEPT_MS })
            .at(0, Event::RemembersFor { ms: 30_000 })
    }

    fn at(mut self, at: u64, event: Event) -> Story {
        let machine = Machine::Client(1);
        self.0.push(Record { at, machine, event });
        self
    }

    /// A message of this offset is given up in this second.
    fn gives_up(self, seconds: u64, offset: u64) -> Story {
        let queue = queue("topic-0");
        let failed = Event::Failed {
            member: Member {
                group: GROUP.into(),
                member: 1,
            },
            place: Place { queue, offset },
            attempt: 1,
            dead: true,
        };
        self.at(seconds * SECOND_NS, failed)
    }

    /// The dead letters are these, so many nanoseconds after the beginning.
    fn letters(self, at: u64, min_offset: u64, max_offset: u64) -> Story {
        let queue = queue(&format!("%DLQ%{GROUP}"));
        let bounds = Event::Bounds {
            call: 1,
            queue,
            min_offset,
            max_offset,
        };
        self.at(at, bounds)
    }

    #[track_caller]
    fn holds(self) {
        if let Err(violation) = judge(&self.0) {
            panic!(
                "{violation}
{}",
                violation.proof.join(
                    "
"
                )
            );
        }
    }

    #[track_caller]
    fn breaks(self, invariant: &str) {
        let violation = judge(&self.0).expect_err("the history is wrong");
        assert_eq!(violation.invariant, invariant, "{violation}");
        assert!(!violation.proof.is_empty(), "{violation} is not proved");
    }
}

/// Would catch a leader that counts by its clock, and one letter that goes with the old ones.
#[test]
fn no_letter_goes_before_its_time() {
    let early = |letters, at| {
        let died = Story::new().gives_up(1, 0).gives_up(3, 1);
        died.letters(at, letters, 2)
    };
    early(1, 6 * SECOND_NS).holds();
    early(1, 6 * SECOND_NS - 1).breaks("letters-kept-for-their-time");
    early(2, 8 * SECOND_NS).holds();
    early(2, 8 * SECOND_NS - 1).breaks("letters-kept-for-their-time");
    // More than ever died.
    early(3, 60 * SECOND_NS).breaks("letters-kept-for-their-time");
    // The same message is given up by two members, and is one letter.
    let twice = || Story::new().gives_up(1, 0).gives_up(2, 0);
    twice().letters(9 * SECOND_NS, 1, 1).holds();
    twice()
        .letters(9 * SECOND_NS, 2, 2)
        .breaks("letters-kept-for-their-time");
}

/// Would catch letters that nobody ever drops.
#[test]
fn no_letter_stays_for_ever() {
    let stays = |asked| {
        let died = Story::new().gives_up(1, 0).letters(2 * SECOND_NS, 0, 1);
        died.letters(asked, 0, 1).at(asked, Event::End)
    };
    stays(32 * SECOND_NS).holds();
    stays(32 * SECOND_NS + 1).breaks("letters-go-after-their-time");
}
