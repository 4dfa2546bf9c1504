//! The laws of reading commands, for anything that a client may send. `cargo test` tries a few hundred frames;
//! `PROPTEST_CASES` asks for more.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::damage::{damaged_text, damages};

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,20}"
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..4)
}

fn position() -> impl Strategy<Value = Position> {
    (0..i32::MAX, 0..i64::MAX).prop_map(|(epoch, seq)| Position { epoch, seq })
}

fn command() -> impl Strategy<Value = Command> {
    let maybe = prop::option::of::<BoxedStrategy<Vec<String>>>;
    prop_oneof![
        prop::option::of(text()).prop_map(|token| Command::Connect(Connect { token })),
        text().prop_map(|token| Command::Refresh(Refresh { token })),
        (texts(), maybe(texts().boxed()), prop::option::of(position())).prop_map(|(types, subjects, after)| {
            let (attributes, versions, room) = (BTreeMap::new(), BTreeMap::new(), None);
            Command::Subscribe(Subscribe { types, subjects, attributes, room, after, versions })
        }),
        (text(), prop::option::of(position())).prop_map(|(room, after)| Command::Join(Join { room, after })),
        text().prop_map(|room| Command::Leave(Leave { room })),
        text().prop_map(|room| Command::Presence(PresenceOf { room })),
        text().prop_map(|subscription| Command::Unsubscribe(Unsubscribe { subscription })),
        (text(), any::<i64>()).prop_map(|(id, n)| Command::Publish(Publish { event: json!({"id": id, "data": [n]}) })),
        (maybe(texts().boxed()), maybe(texts().boxed()), prop::option::of(position()), any::<Option<u32>>()).prop_map(
            |(types, subjects, after, limit)| {
                Command::History(History { types, subjects, after, limit, versions: BTreeMap::new() })
            }
        ),
        Just(()).prop_map(|()| Command::Ping),
    ]
}

/// The frame as a client writes it, without the members that are absent.
fn written(id: i64, command: &Command) -> String {
    let mut frame = match command {
        Command::Connect(Connect { token }) => json!({"command": "connect", "token": token}),
        Command::Refresh(Refresh { token }) => json!({"command": "refresh", "token": token}),
        Command::Join(Join { room, after }) => json!({"command": "join", "room": room, "after": after}),
        Command::Leave(Leave { room }) => json!({"command": "leave", "room": room}),
        Command::Presence(PresenceOf { room }) => json!({"command": "presence", "room": room}),
        Command::Subscribe(Subscribe { types, subjects, after, .. }) => {
            json!({"command": "subscribe", "types": types, "subjects": subjects, "after": after})
        }
        Command::Unsubscribe(Unsubscribe { subscription }) => {
            json!({"command": "unsubscribe", "subscription": subscription})
        }
        Command::Publish(Publish { event }) => json!({"command": "publish", "event": event}),
        Command::History(History { types, subjects, after, limit, .. }) => {
            json!({"command": "history", "types": types, "subjects": subjects, "after": after, "limit": limit})
        }
        Command::Ping => json!({"command": "ping"}),
    };
    frame["id"] = json!(id);
    let members = frame.as_object_mut().expect("a frame is an object");
    members.retain(|_, value| !value.is_null());
    frame.to_string()
}

proptest! {
    #[test]
    fn a_command_that_a_client_writes_is_read_as_it_was_meant(id in any::<i64>(), command in command()) {
        let text = written(id, &command);
        prop_assert_eq!(Frame::parse(&text), Ok(Frame { id, command }));
    }

    #[test]
    fn a_damaged_command_is_refused_or_is_one_that_can_be_written(
        id in any::<i64>(), command in command(), damages in damages(),
    ) {
        match Frame::parse(&damaged_text(&written(id, &command), &damages)) {
            Ok(frame) => prop_assert_eq!(Frame::parse(&written(frame.id, &frame.command)), Ok(frame)),
            Err(refused) => prop_assert!(!refused.message.is_empty()),
        }
    }
}

#[test]
fn deep_json_overflows_no_stack() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in [
        deep.clone(),
        format!(r#"{{"id":1,"command":"publish","event":{deep}}}"#),
        format!(r#"{{"id":1,"command":"ping","a":{deep}}}"#),
        format!(r#"{{"id":{deep}}}"#),
        r#"{"a":"#.repeat(50_000),
    ] {
        Frame::parse(&text).expect_err("it is deeper than any command");
    }
}
