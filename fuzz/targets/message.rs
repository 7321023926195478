//! Any bytes as a message: what `View` reads is what prost reads, and what is delivered decodes.
#![no_main]

use bytes::Bytes;
use prost::Message;
use proto::message::{Delivery, View, deliver};
use model::id_number;
use proto::v2;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        check_id(text);
    }
    let encoded = Bytes::copy_from_slice(data);
    let message = v2::Message::decode(encoded.clone());
    let delivered = deliver(&encoded, &DELIVERY);
    let view = View::parse(&encoded);
    if let Ok(message) = &message {
        let delivered = v2::Message::decode(delivered).expect("what decoded still does");
        assert_eq!(delivered.body, message.body);
    }
    if let Ok(view) = view {
        check_view(&view, &message.expect("prost reads whatever View reads"));
        let delivered = v2::Message::decode(deliver(&encoded, &DELIVERY)).expect("it decodes");
        let system = delivered.system_properties.expect("a delivery adds them");
        assert_eq!((system.queue_id, system.queue_offset), (7, Some(42)));
        assert_eq!(system.message_id, view.message_id);
        assert_eq!(system.delivery_attempt, Some(1));
    }
});

const DELIVERY: Delivery<'static> = Delivery {
    queue_id: 7,
    queue_offset: 42,
    store_timestamp_ms: 1_700_000_000_001,
    store_host: "broker:8081",
    receipt_handle: None,
    attempt: 1,
    invisible_duration: None,
};

fn check_view(view: &View<'_>, message: &v2::Message) {
    let (topic, system) = (
        message.topic.clone().unwrap_or_default(),
        message.system_properties.clone().unwrap_or_default(),
    );
    assert_eq!(
        (view.topic, view.topic_namespace),
        (&*topic.name, &*topic.resource_namespace)
    );
    assert_eq!(
        (view.body(), view.message_id),
        (&*message.body, &*system.message_id)
    );
    assert_eq!(
        (view.tag, view.message_group),
        (system.tag.as_deref(), system.message_group.as_deref())
    );
    assert!(view.keys().eq(system.keys.iter().map(String::as_str)));
    assert_eq!(view.key_count, system.keys.len());
    assert_eq!(
        (view.message_type, view.body_encoding),
        (system.message_type, system.body_encoding)
    );
    assert_eq!(
        (view.queue_id, view.lite_topic, view.priority),
        (
            system.queue_id,
            system.lite_topic.as_deref(),
            system.priority
        )
    );
    let properties: std::collections::HashMap<_, _> = view
        .user_properties()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(properties, message.user_properties);
}

/// Another text has another number, unless both are hashed.
fn check_id(text: &str) {
    let number = id_number(text);
    if number >> 127 == 0 {
        assert_eq!(text, format!("01{number:032X}"));
    }
}
