//! The laws of reading Socket.IO packets and offsets, for anything that a client may send. `cargo test` tries a few
//! hundred of each; `PROPTEST_CASES` asks for more.

use proptest::prelude::*;
use proptest::string::string_regex;

use super::offset::Offset;
use super::*;
use crate::damage::{damaged_text, damages};
use crate::position::Position;

/// A packet as a client writes it.
fn packet() -> impl Strategy<Value = String> {
    let namespace = "(/[a-z]{1,9},)?";
    let json = r#"(null|true|-?[1-9][0-9]{0,3}|"[a-z :,]{0,3}"|\{"a":[0-9]\}|\[\[\],1\])"#;
    let arguments = format!(r#"\["[a-z:]{{1,9}}"(,{json}){{0,4}}\]"#);
    let like = |pattern: &str| string_regex(pattern).expect("it is a pattern");
    prop_oneof![
        like(&format!(
            r#"0{namespace}(\{{\}}|\{{"token":"[a-z.]{{0,9}}","pid":"[0-9a-f]{{0,9}}","offset":"1:1\.2"\}})?"#
        )),
        like(&format!("1{namespace}")),
        like(&format!("2{namespace}[0-9]{{0,4}}{arguments}")),
        like(&format!(r"3{namespace}[0-9]{{1,4}}\[({json}(,{json}){{0,3}})?\]")),
    ]
}

/// What a packet says, and the same after it was written once more.
fn twice(packet: &Packet<'_>) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    match &packet.body {
        Body::Event(event) => {
            let name = serde_json::to_vec(&event.name).expect("text is JSON");
            let arguments = event.arguments.iter().map(|json| json.get().as_bytes());
            let arguments: Vec<&[u8]> = std::iter::once(&*name).chain(arguments).collect();
            let event = encode::Event { namespace: packet.namespace, arguments: &arguments, offset: None };
            event.append(&mut bytes);
            assert_eq!(event.bytes(), bytes.len());
        }
        Body::Ack(id, arguments) => {
            let elements: Vec<&RawValue> = serde_json::from_str(arguments.get()).expect("they are an array");
            let elements: Vec<&[u8]> = elements.iter().map(|json| json.get().as_bytes()).collect();
            encode::ack(packet.namespace, *id, &elements, &mut bytes);
        }
        Body::Connect(_) | Body::Disconnect => return None,
    }
    let text = String::from_utf8(bytes).expect("packets are text");
    let again = Packet::read(&text).expect("what is written can be read");
    Some((told(packet), told(&again)))
}

fn told(packet: &Packet<'_>) -> String {
    let parts = match &packet.body {
        Body::Event(event) => {
            let arguments: Vec<&str> = event.arguments.iter().map(|json| json.get()).collect();
            format!("event {:?} {arguments:?}", event.name)
        }
        Body::Ack(id, arguments) => {
            let elements: Vec<&RawValue> = serde_json::from_str(arguments.get()).expect("they are an array");
            format!("ack {id} {:?}", elements.iter().map(|json| json.get()).collect::<Vec<_>>())
        }
        Body::Connect(auth) => format!("{auth:?}"),
        Body::Disconnect => String::new(),
    };
    format!("{} {parts}", packet.namespace)
}

fn position() -> impl Strategy<Value = Position> {
    (0..i32::MAX, 0..i64::MAX).prop_map(|(epoch, seq)| Position { epoch, seq })
}

proptest! {
    #[test]
    fn a_packet_that_a_client_writes_is_read(packet in packet()) {
        prop_assert!(Packet::read(&packet).is_ok(), "{}", packet);
    }

    #[test]
    fn a_damaged_packet_is_refused_or_keeps_to_every_bound(packet in packet(), damages in damages()) {
        let text = damaged_text(&packet, &damages);
        if let Ok(packet) = Packet::read(&text) {
            prop_assert!(packet.namespace.starts_with('/') && packet.namespace.len() <= NAMESPACE_BYTES_MAX);
            match &packet.body {
                Body::Event(event) => {
                    prop_assert!(!RESERVED.contains(&&*event.name));
                    prop_assert!(event.id.is_none_or(|id| id < 10_u64.pow(16)));
                    prop_assert!(event.arguments.len() <= text.len() / 2);
                }
                Body::Ack(id, _) => prop_assert!(*id < 10_u64.pow(16)),
                Body::Connect(_) | Body::Disconnect => {}
            }
            if let Some((first, second)) = twice(&packet) {
                prop_assert_eq!(first, second);
            }
        }
    }

    #[test]
    fn a_damaged_offset_is_refused_or_is_one_that_is_read_back(
        newest in any::<u64>(),
        places in prop::collection::vec((any::<u64>(), position()), 0..4),
        lowest in position(),
        damages in damages(),
    ) {
        let ahead = places.iter().map(|(number, position)| format!(";s{number}={position}"));
        let text = std::iter::once(format!("{newest}:{lowest}")).chain(ahead).collect::<Vec<_>>().concat();
        prop_assert_eq!(text.parse::<Offset>().map(|offset| offset.to_string()), Ok(text.clone()));
        if let Ok(offset) = damaged_text(&text, &damages).parse::<Offset>() {
            prop_assert_eq!(offset.to_string().parse(), Ok(offset.clone()));
            let numbers = places.iter().map(|(number, _)| *number).chain([0, newest, u64::MAX]);
            for number in numbers {
                prop_assert!(number <= newest || offset.place(number).is_none() || !damages.is_empty());
            }
        }
    }
}
