//! The gatherer's promises: order per queue, bounds, nothing lost, nobody forgotten.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    messages_max: 4,
    bytes_max: 100,
    requests_max: 2,
};

fn queues(count: u32) -> Vec<Queue> {
    (0..count)
        .map(|queue| Queue {
            queue,
            group: "g".into(),
            writable: true,
        })
        .collect()
}

fn handed(item: u32, target: Target, bytes: usize) -> Handed<u32> {
    Handed {
        item,
        target,
        bytes,
        deadline: Instant::now() + Duration::from_secs(10),
    }
}

fn items(batch: &Batch<u32>) -> Vec<(u32, u32)> {
    batch
        .items
        .iter()
        .map(|(queue, handed)| (*queue, handed.item))
        .collect()
}

/// Catches a request per message at high rates, and a request that waits for a timer at low ones.
#[test]
fn what_comes_during_a_request_makes_up_the_next() {
    let mut gatherer = Gatherer::new(
        Bounds {
            requests_max: 1,
            ..BOUNDS
        },
        queues(4),
    );
    assert!(
        gatherer.push(handed(0, Target::Any, 1)),
        "the first starts a worker at once"
    );
    let first = gatherer.cut().batch.expect("a request");
    assert_eq!(items(&first), [(0, 0)]);
    for item in 1..=6 {
        assert!(!gatherer.push(handed(item, Target::Any, 1)));
    }
    gatherer.done(&first.queues);
    let second = gatherer.cut().batch.expect("a request");
    assert_eq!(
        items(&second),
        [(1, 1), (1, 2), (1, 3), (1, 4)],
        "one queue, as many as fit"
    );
    gatherer.done(&second.queues);
    assert_eq!(
        items(&gatherer.cut().batch.expect("a request")),
        [(2, 5), (2, 6)],
        "the next queue"
    );
}

/// Catches one large request after the other where several could be on their way.
#[test]
fn what_waits_is_shared_among_the_requests_that_could_go() {
    let bounds = Bounds {
        messages_max: 1000,
        bytes_max: 1000,
        requests_max: 4,
    };
    let mut gatherer = Gatherer::new(bounds, queues(8));
    for item in 0..200 {
        gatherer.push(handed(item, Target::Any, 1));
    }
    let mut sizes = Vec::new();
    loop {
        let cut = gatherer.cut();
        sizes.push(cut.batch.expect("a request").items.len());
        if !cut.start_another {
            break;
        }
    }
    assert_eq!(sizes, [50, 50, 50, 50]);
    let mut gatherer = Gatherer::new(bounds, queues(8));
    for item in 0..40 {
        gatherer.push(handed(item, Target::Any, 1));
    }
    assert_eq!(
        gatherer.cut().batch.expect("a request").items.len(),
        SHARE_MIN,
        "not into crumbs"
    );
}

/// Catches a retry that is overtaken by its successor.
#[test]
fn a_busy_queue_is_left_alone() {
    let mut gatherer = Gatherer::new(BOUNDS, queues(4));
    assert!(gatherer.push(handed(0, Target::Queue(1), 1)));
    let first = gatherer.cut().batch.expect("a request");
    assert!(
        !gatherer.push(handed(1, Target::Queue(1), 1)),
        "nobody may send it now"
    );
    assert!(
        gatherer.push(handed(2, Target::Queue(2), 1)),
        "another queue may"
    );
    let second = gatherer.cut().batch.expect("a request");
    assert_eq!(items(&second), [(2, 2)]);
    assert!(gatherer.cut().batch.is_none());
    gatherer.done(&first.queues);
    assert!(
        gatherer.push(handed(3, Target::Queue(1), 1)),
        "the worker that left is called again"
    );
    assert_eq!(
        items(&gatherer.cut().batch.expect("a request")),
        [(1, 1), (1, 3)]
    );
}

/// Catches one request per queue where a topic has many: the small requests would cost more than the messages.
#[test]
fn several_ready_queues_share_a_request() {
    let mut gatherer = Gatherer::new(
        Bounds {
            requests_max: 1,
            ..BOUNDS
        },
        queues(8),
    );
    gatherer.push(handed(0, Target::Queue(0), 1));
    let first = gatherer.cut().batch.expect("a request");
    for item in 1..=5 {
        gatherer.push(handed(item, Target::Queue(item), 1));
    }
    gatherer.done(&first.queues);
    let second = gatherer.cut().batch.expect("a request");
    assert_eq!(items(&second), [(1, 1), (2, 2), (3, 3), (4, 4)]);
    gatherer.done(&second.queues);
    assert_eq!(items(&gatherer.cut().batch.expect("a request")), [(5, 5)]);
}

/// Catches a message that overtakes another of its group because the topic got more queues in between.
#[test]
fn more_queues_take_effect_only_when_nothing_is_on_its_way() {
    let mut gatherer = Gatherer::new(BOUNDS, queues(1));
    gatherer.push(handed(0, Target::Hash(1), 1));
    let first = gatherer.cut().batch.expect("a request");
    gatherer.push(handed(1, Target::Hash(1), 1));
    gatherer.set_queues(queues(2));
    assert!(!gatherer.push(handed(2, Target::Hash(1), 1)));
    assert!(
        gatherer.cut().batch.is_none(),
        "the worker waits no more, but nothing is cut"
    );
    gatherer.done(&first.queues);
    assert!(gatherer.push(handed(3, Target::Hash(1), 1)));
    assert_eq!(
        items(&gatherer.cut().batch.expect("a request")),
        [(1, 1), (1, 2), (1, 3)]
    );
}

/// Catches a sender that waits behind a stuck queue for longer than it asked to.
#[test]
fn waiting_items_expire() {
    let mut gatherer = Gatherer::new(BOUNDS, queues(2));
    let now = Instant::now();
    let at = |item, target, second| Handed {
        item,
        target,
        bytes: 1,
        deadline: now + Duration::from_secs(second),
    };
    gatherer.push(at(0, Target::Queue(0), 1));
    gatherer.push(at(1, Target::Queue(0), 2));
    gatherer.push(at(2, Target::Any, 1));
    assert_eq!(
        gatherer.earliest_deadline(),
        Some(now + Duration::from_secs(1))
    );
    let expired = gatherer.expire(now + Duration::from_secs(1));
    assert_eq!(
        expired.iter().map(|handed| handed.item).collect::<Vec<_>>(),
        [0, 2]
    );
    assert_eq!(items(&gatherer.cut().batch.expect("a request")), [(0, 1)]);
}

/// Catches messages of one batch that change places when a queue goes and their lines become one, and one that waits past its
/// deadline behind one that has time.
#[test]
fn lines_that_become_one_keep_the_order_of_handing_over() {
    let mut gatherer = Gatherer::new(BOUNDS, queues(3));
    for (item, hash) in [(0, 2), (1, 1), (2, 0), (3, 2)] {
        gatherer.push(handed(item, Target::Hash(hash), 1));
    }
    gatherer.set_queues(queues(1));
    let batch = gatherer.cut().batch.expect("a request");
    assert_eq!(items(&batch), [(0, 0), (0, 1), (0, 2), (0, 3)]);
}

/// Catches a batch that goes to a queue which is about to go, because its broker group is away and a request to it is not given up
/// yet.
#[test]
fn a_batch_goes_to_no_queue_that_is_about_to_go() {
    let mut gatherer = Gatherer::new(BOUNDS, queues(3));
    gatherer.push(handed(0, Target::Queue(2), 1));
    let away = gatherer.cut().batch.expect("a request");
    assert_eq!(away.queues, [2]);
    gatherer.set_queues(queues(1));
    for _ in 0..3 {
        assert_eq!(gatherer.next_queue(), Target::Queue(0));
    }
}

/// Catches requests to a broker group that is away which keep what is for others waiting.
#[test]
fn a_request_that_is_set_aside_gives_its_place_to_another() {
    let bounds = Bounds {
        requests_max: 1,
        ..BOUNDS
    };
    let mut two = queues(2);
    two[1].group = "h".into();
    let mut gatherer = Gatherer::new(bounds, two);
    assert!(gatherer.push(handed(0, Target::Queue(0), 1)));
    let away = gatherer.cut().batch.expect("a request");
    assert!(!gatherer.push(handed(1, Target::Queue(1), 1)), "no place");
    assert!(gatherer.set_aside(), "there is one now");
    let other = gatherer.cut().batch.expect("a request");
    assert_eq!(items(&other), [(1, 1)]);
    gatherer.push(handed(2, Target::Queue(0), 1));
    gatherer.done(&away.queues);
    assert!(!gatherer.come_back(), "the other one has the place");
    gatherer.done(&other.queues);
    assert_eq!(items(&gatherer.cut().batch.expect("a request")), [(0, 2)]);
}

/// One step of a random story.
#[derive(Clone, Debug)]
enum Step {
    Push(Target, usize),
    /// The n-th worker on its way finishes, and takes its next request.
    Finish(usize),
    Queues(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let target = prop_oneof![
        Just(Target::Any),
        (0u32..6).prop_map(Target::Queue),
        (0u64..6).prop_map(Target::Hash),
    ];
    prop_oneof![
        6 => (target, 1usize..60).prop_map(|(target, bytes)| Step::Push(target, bytes)),
        4 => any::<usize>().prop_map(Step::Finish),
        1 => (1u32..6).prop_map(Step::Queues),
    ]
}

/// Runs workers as the dispatcher does, and checks what must hold at each moment.
struct Story {
    gatherer: Gatherer<u32>,
    on_their_way: Vec<Batch<u32>>,
    sent: Vec<(u32, u32)>,
}

impl Story {
    fn start(&mut self, mut called: bool) {
        while called {
            let cut = self.gatherer.cut();
            called = cut.start_another;
            if let Some(batch) = cut.batch {
                self.take(batch);
            }
        }
    }

    fn take(&mut self, batch: Batch<u32>) {
        let bytes: usize = batch.items.iter().map(|(_, handed)| handed.bytes).sum();
        assert!(bytes <= BOUNDS.bytes_max || batch.items.len() == 1);
        assert!((1..=BOUNDS.messages_max).contains(&batch.items.len()));
        for queue in &batch.queues {
            assert!(
                self.on_their_way
                    .iter()
                    .all(|other| !other.queues.contains(queue)),
                "twice busy"
            );
        }
        self.sent.extend(items(&batch));
        self.on_their_way.push(batch);
        assert!(self.on_their_way.len() <= BOUNDS.requests_max);
    }

    fn finish(&mut self, which: usize) {
        if self.on_their_way.is_empty() {
            return;
        }
        let batch = self.on_their_way.remove(which % self.on_their_way.len());
        self.gatherer.done(&batch.queues);
        let cut = self.gatherer.cut();
        if let Some(batch) = cut.batch {
            self.take(batch);
        }
        self.start(cut.start_another);
    }
}

proptest! {
    /// Catches, in any interleaving: an item lost, sent twice, out of order in its line, a bound exceeded, and work that
    /// waits although a worker could do it.
    #[test]
    fn any_story_ends_with_everything_sent_once_and_in_order(steps in proptest::collection::vec(step(), 0..200)) {
        let gatherer = Gatherer::new(BOUNDS, queues(3));
        let mut story = Story { gatherer, on_their_way: Vec::new(), sent: Vec::new() };
        let mut targets = Vec::new();
        for step in steps {
            match step {
                Step::Push(target, bytes) => {
                    let item = targets.len() as u32;
                    targets.push(target);
                    let called = story.gatherer.push(handed(item, target, bytes));
                    story.start(called);
                }
                Step::Finish(which) => story.finish(which),
                Step::Queues(count) => story.gatherer.set_queues(queues(count)),
            }
        }
        while !story.on_their_way.is_empty() {
            story.finish(0);
        }

        let mut sent: Vec<u32> = story.sent.iter().map(|(_, item)| *item).collect();
        for line in [Target::Any, Target::Queue(0), Target::Queue(5), Target::Hash(0), Target::Hash(5)] {
            let order: Vec<u32> = sent.iter().copied().filter(|item| targets[*item as usize] == line).collect();
            prop_assert!(order.is_sorted(), "{line:?} went out as {order:?}");
        }
        sent.sort_unstable();
        prop_assert_eq!(sent, (0..targets.len() as u32).collect::<Vec<_>>());
    }
}
