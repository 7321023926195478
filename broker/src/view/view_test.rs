use std::time::Duration;

use proto::command::command::Body;
use proto::command::put_group::ConsumeFrom;
use proto::command::{DeleteTopic, DropLog, PutGroup, PutTopic};

use super::*;
use crate::machine::testing::{Harness, append};

const ALL: usize = usize::MAX;

fn texts(stored: &[Stored]) -> Vec<String> {
    stored
        .iter()
        .map(|stored| String::from_utf8(stored.message.to_vec()).unwrap())
        .collect()
}

fn offsets(stored: &[Stored]) -> Vec<u64> {
    stored.iter().map(|stored| stored.offset).collect()
}

/// Would catch a read that stops at the end of an entry, leaves a message out, or ignores a bound.
#[tokio::test]
async fn reads_across_entries_within_bounds() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 1).await;
    for number in 0..40_u128 {
        let other_queue_first = append(topic, 0, &[(number * 2, 2)]);
        harness.entry(number as u64, vec![other_queue_first]).await;
    }
    let view = &harness.view;
    let all = view.read(topic, 0, 0, ALL, ALL).await.unwrap();
    assert_eq!(
        texts(&all),
        (0..80)
            .map(|id| format!("message {id}"))
            .collect::<Vec<_>>()
    );
    assert_eq!(offsets(&all), (0..80).collect::<Vec<_>>());
    assert_eq!((all[0].time_ms, all[79].time_ms), (0, 39));
    let some = view.read(topic, 0, 7, 5, ALL).await.unwrap();
    assert_eq!(offsets(&some), [7, 8, 9, 10, 11]);
    // "message 0" has 9 bytes: two fit into 18, and one is given whatever the bound.
    assert_eq!(
        offsets(&view.read(topic, 0, 0, ALL, 18).await.unwrap()),
        [0, 1]
    );
    assert_eq!(offsets(&view.read(topic, 0, 3, ALL, 0).await.unwrap()), [3]);
    assert!(view.read(topic, 0, 0, 0, ALL).await.unwrap().is_empty());
    assert!(view.read(topic, 0, 80, ALL, ALL).await.unwrap().is_empty());
}

/// Would catch an error that does not tell the reader where to go on.
#[tokio::test]
async fn tells_where_there_is_nothing_to_read() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 1).await;
    for number in 0..4_u128 {
        harness
            .command(10 * number as u64, append(topic, 0, &[(number * 2, 2)]))
            .await;
    }
    let first_index = harness.next_index() - 2;
    harness
        .command(50, Body::DropLog(DropLog { first_index }))
        .await;
    let view = &harness.view;
    let too_small = view.read(topic, 0, 1, ALL, ALL).await;
    assert!(
        matches!(too_small, Err(ReadError::OffsetTooSmall { min: 4 })),
        "{too_small:?}"
    );
    let too_large = view.read(topic, 0, 9, ALL, ALL).await;
    assert!(
        matches!(too_large, Err(ReadError::OffsetTooLarge { max: 8 })),
        "{too_large:?}"
    );
    assert!(matches!(
        view.read(topic, 1, 0, ALL, ALL).await,
        Err(ReadError::NotFound)
    ));
    assert!(matches!(
        view.read(topic + 1, 0, 0, ALL, ALL).await,
        Err(ReadError::NotFound)
    ));
    let rest = view.read(topic, 0, 4, ALL, ALL).await.unwrap();
    assert_eq!(
        texts(&rest),
        ["message 4", "message 5", "message 6", "message 7"]
    );
    assert_eq!(view.offset_at_time(topic, 0, 0).await.unwrap(), 4);
    assert_eq!(view.offset_at_time(topic, 0, 30).await.unwrap(), 6);
}

/// Would catch a search that is off by a row.
#[tokio::test]
async fn finds_offsets_by_time() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 1).await;
    assert_eq!(harness.view.offset_at_time(topic, 0, 5).await.unwrap(), 0);
    for time_ms in [10, 20, 20, 40] {
        harness
            .command(
                time_ms,
                append(topic, 0, &[(u128::from(harness.next_index()) << 8, 3)]),
            )
            .await;
    }
    for (time_ms, offset) in [
        (0, 0),
        (10, 0),
        (11, 3),
        (20, 3),
        (21, 9),
        (40, 9),
        (41, 12),
        (u64::MAX, 12),
    ] {
        let found = harness
            .view
            .offset_at_time(topic, 0, time_ms)
            .await
            .unwrap();
        assert_eq!(found, offset, "at {time_ms} ms");
    }
    assert!(matches!(
        harness.view.offset_at_time(topic, 5, 0).await,
        Err(ReadError::NotFound)
    ));
}

/// Would catch a waiter that sleeps on, wakes for another queue, or stays in the registry.
#[tokio::test]
async fn arrivals_wake_who_waits() {
    let mut harness = Harness::new().await;
    let topic = harness.topic("orders", 2).await;
    let view = harness.view.clone();
    let mut arrivals = view.arrivals(topic, 1);
    let patience = Duration::from_secs(10);
    let waiter = tokio::spawn(async move {
        tokio::time::timeout(patience, arrivals.wait_past(1))
            .await
            .is_ok()
    });
    tokio::task::yield_now().await;
    harness.command(0, append(topic, 0, &[(1, 5)])).await;
    harness.command(0, append(topic, 1, &[(10, 1)])).await;
    tokio::task::yield_now().await;
    assert!(!waiter.is_finished());
    harness.command(0, append(topic, 1, &[(11, 1)])).await;
    assert!(waiter.await.unwrap());

    // At once where it is there already.
    let mut arrivals = view.arrivals(topic, 1);
    assert!(
        tokio::time::timeout(patience, arrivals.wait_past(0))
            .await
            .is_ok()
    );
    let waiter = tokio::spawn(async move {
        tokio::time::timeout(patience, arrivals.wait_past(2))
            .await
            .is_ok()
    });
    tokio::task::yield_now().await;
    harness
        .command(
            0,
            Body::DeleteTopic(DeleteTopic {
                name: "orders".into(),
            }),
        )
        .await;
    assert!(waiter.await.unwrap());
    assert!(harness.view.shared.arrivals.is_empty());
}

/// Would catch a registration that is not told of a new topic.
#[tokio::test]
async fn config_changes_are_told() {
    let mut harness = Harness::new().await;
    let mut changes = harness.view.config_changes();
    changes.borrow_and_update();
    let topic = harness.topic("orders", 1).await;
    assert!(changes.has_changed().unwrap());
    changes.borrow_and_update();
    harness.command(0, append(topic, 0, &[(1, 1)])).await;
    assert!(!changes.has_changed().unwrap());
    harness.group("readers").await;
    assert!(changes.has_changed().unwrap());
    assert_eq!(harness.view.groups()[0].name, "readers");
    assert_eq!(harness.view.topic_by_id(topic).unwrap().name, "orders");
}

/// Would catch a group that starts at the latest message and passes by what came after it was made: in the entry that made
/// it, at the same time, in a queue or a topic that was added later; and one that forgets its age when it is altered.
#[tokio::test]
async fn a_group_starts_behind_what_was_there_when_it_was_made() {
    let mut harness = Harness::new().await;
    let orders = harness.topic("orders", 2).await;
    harness.command(10, append(orders, 0, &[(0, 3)])).await;
    let latest = |max_attempts| PutGroup {
        name: "late".into(),
        consume_from: ConsumeFrom::Latest.into(),
        max_attempts,
        ..PutGroup::default()
    };
    let around = vec![
        append(orders, 0, &[(10, 2)]),
        Body::PutGroup(latest(1)),
        append(orders, 0, &[(20, 2)]),
    ];
    harness.entry(10, around).await;
    harness.command(20, append(orders, 1, &[(30, 4)])).await;
    harness.command(20, Body::PutGroup(latest(7))).await;
    let more = PutTopic {
        name: "orders".into(),
        queue_count: 3,
        ..PutTopic::default()
    };
    harness.command(20, Body::PutTopic(more)).await;
    harness.command(20, append(orders, 2, &[(40, 2)])).await;
    let fresh = harness.topic("fresh", 1).await;
    harness.command(30, append(fresh, 0, &[(50, 2)])).await;
    let harness = harness.restart();
    let view = &harness.view;
    let group = view.group("late").unwrap();
    assert_eq!(group.max_attempts, 7, "it was altered");
    let start = async |topic: u64, queue, since_ms| {
        let topic = view.topic_by_id(topic).unwrap();
        view.start_of(&group, &topic, queue, since_ms)
            .await
            .unwrap()
    };
    assert_eq!(start(orders, 0, None).await, 5);
    assert_eq!(start(orders, 1, None).await, 0);
    assert_eq!(start(orders, 2, None).await, 0);
    assert_eq!(start(fresh, 0, None).await, 0);
    assert_eq!(
        start(orders, 1, Some(21)).await,
        4,
        "a member of its own age"
    );
    assert_eq!(start(fresh, 0, Some(21)).await, 0);
}

/// Would catch a setting of a group that nobody reads.
#[tokio::test]
async fn a_group_starts_where_it_was_told_to() {
    let mut harness = Harness::new().await;
    let orders = harness.topic("orders", 1).await;
    for number in 0..4_u128 {
        let append = append(orders, 0, &[(number * 2, 2)]);
        harness.command(10 * number as u64, append).await;
    }
    let made = |name: &str, consume_from: ConsumeFrom, ms, since_ms| {
        Body::PutGroup(PutGroup {
            name: name.into(),
            consume_from: consume_from.into(),
            consume_from_ms: ms,
            since_ms,
            ..PutGroup::default()
        })
    };
    let groups = vec![
        made("first", ConsumeFrom::Earliest, 0, 0),
        made("then", ConsumeFrom::Timestamp, 20, 0),
        made("elsewhere", ConsumeFrom::Latest, 0, 15),
    ];
    harness.entry(40, groups).await;
    let topic = harness.view.topic_by_id(orders).unwrap();
    for (name, start) in [("first", 0), ("then", 4), ("elsewhere", 4)] {
        let group = harness.view.group(name).unwrap();
        let told = harness.view.start_of(&group, &topic, 0, None).await;
        assert_eq!(told.unwrap(), start, "{name}");
    }
}
