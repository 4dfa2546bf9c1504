//! The laws of reading patterns and `CloudEvents`, for anything that a client may send. `cargo test` tries a few hundred
//! of each; `PROPTEST_CASES` asks for more.

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::*;
use crate::damage::{damaged_text, damages};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn pattern() -> impl Strategy<Value = String> {
    r"([a-z0-9_-]{1,6}|\*|\*\*)(\.([a-z0-9_-]{1,6}|\*|\*\*)){0,5}"
}

/// JSON as a payload may have it.
fn data() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,12}|[\\x01-\\x1f\u{2028}\\\\\"]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z_\"\n]{0,9}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn attribute() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[!-~]{1,60}".prop_map(Value::from)
    ]
}

/// A document as a client writes it.
fn document() -> impl Strategy<Value = Value> {
    let time = prop::option::of((-2_000_000_000..4_000_000_000_i64, 0..1_000_000_000_i32));
    let names = ("[!-~é]{1,40}", "/[a-z0-9/]{0,30}", "[a-z.]{1,20}", "[a-z]{1,9}/[A-Za-z0-9_.:-]{1,20}");
    let extensions = prop::collection::btree_map("x[a-z0-9]{0,19}|traceparent", attribute(), 0..5);
    (names, time, extensions, data()).prop_map(|((id, source, event_type, subject), time, extensions, data)| {
        let mut document = json!({
            "specversion": "1.0", "id": id, "source": source, "type": event_type, "subject": subject, "data": data,
        });
        if let Some((second, nanosecond)) = time {
            let time = Timestamp::new(second, if second < 0 { 0 } else { nanosecond }).expect("it is a time");
            document["time"] = json!(time);
        }
        for (name, value) in extensions {
            document[name] = value;
        }
        document
    })
}

proptest! {
    #[test]
    fn a_damaged_pattern_is_refused_or_is_written_as_it_came(
        pattern in pattern(), damages in damages(), event_type in "\\PC{0,30}|[a-z.]{0,30}",
    ) {
        let text = damaged_text(&pattern, &damages);
        if let Ok(read) = text.parse::<Pattern>() {
            prop_assert!(text.len() <= 128);
            prop_assert_eq!(read.to_string(), text);
            let _ = read.matches(&event_type);
        }
    }

    #[test]
    fn an_event_that_a_client_writes_is_read_and_written_and_read_again(document in document()) {
        let event = CloudEvent::read(document.clone(), NOW).map_err(|refused| TestCaseError::fail(format!("{refused:?}")))?;
        prop_assert_eq!(&event.data, &document["data"]);
        let again = serde_json::from_str(&event.encode()).expect("an encoded event is JSON");
        prop_assert_eq!(CloudEvent::read(again, NOW), Ok(event));
    }

    #[test]
    fn a_damaged_event_is_refused_or_keeps_to_every_bound(document in document(), damages in damages()) {
        let Ok(document) = serde_json::from_str(&damaged_text(&document.to_string(), &damages)) else { return Ok(()) };
        match CloudEvent::read(document, NOW) {
            Ok(event) => {
                for text in [&event.id, &event.source, &event.event_type, &event.subject] {
                    prop_assert!((1..=256).contains(&text.len()) && !text.contains(char::is_control));
                }
                prop_assert!(event.extensions.len() <= 16 && !event.extensions.contains_key("position"));
                // An event of the log is one line: an event stream takes it as it is.
                let encoded = event.encode();
                prop_assert!(encoded.bytes().all(|byte| byte >= b' '), "{}", encoded);
            }
            Err(violations) => prop_assert!(!violations.is_empty()),
        }
    }

    #[test]
    fn damaged_data_is_refused_by_its_schema_or_has_an_audience_without_a_second_room(
        (event_type, subject, data) in select(valid()), damages in damages(),
    ) {
        let document = json!({
            "specversion": "1.0", "id": "1", "source": "/laws", "type": event_type, "subject": subject, "data": data,
        });
        let Ok(document) = serde_json::from_str(&damaged_text(&document.to_string(), &damages)) else { return Ok(()) };
        let Ok(event) = CloudEvent::read(document, NOW) else { return Ok(()) };
        match Registry::built_in().validate(&event) {
            Ok(definition) => {
                let audience = definition.audience(&event);
                prop_assert!(audience.rooms().all(|room| !room.contains(char::is_control)));
                prop_assert_eq!(audience.rooms().count(), definition.audience.len());
            }
            Err(violations) => prop_assert!(!violations.is_empty() && !damages.is_empty()),
        }
    }
}

/// Events of three types that are about people and money.
fn valid() -> Vec<(&'static str, &'static str, Value)> {
    let person = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3b";
    vec![
        ("wallet.created", "wallet/1", json!({"wallet_id": "1", "user_id": person, "currency": "AZR"})),
        (
            "mining.reward",
            "wallet/1",
            json!({"wallet_id": "1", "money": {"amount_minor": 1, "currency": "AZR"}, "block_height": 7}),
        ),
        ("job.posted", "job/1", json!({"job_id": "1", "employer_id": person, "title": "Paint a fence"})),
    ]
}
