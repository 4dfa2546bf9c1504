//! The laws of reading Engine.IO packets, payloads and requests, for anything that a client may send. `cargo test` tries
//! a few hundred of each; `PROPTEST_CASES` asks for more.

use proptest::prelude::*;
use proptest::sample::select;

use super::payload::{self, Limits};
use super::request::{Method, Request};
use super::*;
use crate::damage::{damaged, damaged_text, damages};

const LIMITS: Limits = Limits { bytes_max: 300, packets_max: 5 };

/// A packet as a client writes it.
fn packet() -> impl Strategy<Value = String> {
    "4\\PC{0,40}|[1356]|2probe|3probe|0\\{\\}|bAQIDBA=="
}

/// The query of a request: its parameters in any order, among others, some of them twice.
fn query() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let value = prop_oneof![Just("4"), Just("3"), Just("polling"), Just("websocket"), Just("")].prop_map(str::to_owned);
    let value = prop_oneof![3 => value, 1 => "[a-zA-Z0-9_-]{1,40}"];
    prop::collection::vec((select(vec!["EIO", "transport", "sid", "t", "b64"]), value), 0..8)
}

fn written(query: &[(&str, String)]) -> String {
    query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn method() -> impl Strategy<Value = Method> {
    select(vec![Method::Get, Method::Post, Method::WebSocket, Method::Other])
}

proptest! {
    #[test]
    fn a_damaged_packet_is_refused_or_means_what_it_says(packet in packet(), damages in damages()) {
        let text = damaged_text(&packet, &damages);
        if let Ok(packet) = Packet::read(&text) {
            let mut again = Vec::new();
            packet.append(&mut again);
            prop_assert_eq!(again, text.as_bytes());
        }
    }

    #[test]
    fn a_damaged_payload_is_refused_as_a_whole_or_is_its_packets(
        packets in prop::collection::vec(packet(), 0..8),
        damages in damages(),
    ) {
        let mut body = Vec::new();
        payload::append(packets.iter().map(String::as_bytes), &mut body);
        let body = damaged(&body, &damages);
        if let Ok(packets) = payload::read(&body, LIMITS) {
            prop_assert!(packets.len() <= LIMITS.packets_max && body.len() <= LIMITS.bytes_max);
            let mut again = Vec::new();
            payload::append(packets.iter().map(|packet| packet.as_bytes()), &mut again);
            prop_assert_eq!(again, body);
        }
    }

    #[test]
    fn a_request_means_the_last_of_each_parameter(method in method(), query in query()) {
        let last = |name: &str| {
            let value = query.iter().rev().find(|(one, _)| *one == name).map(|(_, value)| value.as_str());
            value.filter(|value| !value.is_empty())
        };
        let text = written(&query);
        let want = match (last("EIO"), last("transport"), last("sid"), method) {
            (Some("4"), Some("polling"), None, Method::Get) => Some(Request::OpenPolling),
            (Some("4"), Some("websocket"), None, Method::WebSocket) => Some(Request::OpenWebSocket),
            (Some("4"), Some("polling"), Some(sid), Method::Get) => Some(Request::Poll(sid)),
            (Some("4"), Some("polling"), Some(sid), Method::Post) => Some(Request::Push(sid)),
            (Some("4"), Some("websocket"), Some(sid), Method::WebSocket) => Some(Request::Upgrade(sid)),
            _ => None,
        };
        prop_assert_eq!(Request::read(method, &text).ok(), want);
    }

    #[test]
    fn a_damaged_request_names_no_session_but_one_that_stands_in_it(
        method in method(), query in query(), damages in damages(),
    ) {
        let text = damaged_text(&written(&query), &damages);
        if let Ok(Request::Poll(sid) | Request::Push(sid) | Request::Upgrade(sid)) = Request::read(method, &text) {
            let parameter = format!("sid={sid}");
            prop_assert!(!sid.is_empty() && text.split('&').any(|pair| pair == parameter));
        }
    }
}
