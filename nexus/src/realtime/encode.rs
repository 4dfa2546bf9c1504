//! What a client receives, as its transport carries it. Pure.
//!
//! An event's `CloudEvent` JSON was encoded once, when the entry came into this pod; a push
//! copies those bytes between a head and a tail and parses nothing, unless the client asks
//! for another version than the current one of an event that was published in one.

use std::io::Write as _;

use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::close::Close;
use super::socket_io::client;
use super::subscription::Subscription;
use super::wire::{text_head, text_message};
use crate::events::AnyEvent;
use crate::events::own;
use crate::log::Entry;
use crate::position::Position;

/// How a transport carries pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One JSON object per WebSocket text message.
    WebSocket,
    /// One `CloudEvent` per WebSocket text message, and nothing that is none.
    /// Source: WebSockets Protocol Binding for `CloudEvents`, subprotocol `cloudevents.json`.
    CloudEvents,
    /// Server-sent events, each with its position as `id`.
    /// Source: HTML, section 9.2.6 "Interpreting an event stream".
    EventStream,
    /// Events of Socket.IO, named after the event's type, with an offset as the last argument.
    SocketIo,
}

/// What a WebSocket carries to the client without being asked.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "push", rename_all = "snake_case")]
enum Push<'a> {
    /// An event that a subscription wants.
    #[cfg_attr(not(test), expect(dead_code, reason = "`event` writes the same bytes without parsing any"))]
    Event {
        /// The name that `subscribe` answered with.
        subscription: &'a str,
        #[schemars(with = "AnyEvent")]
        event: &'a RawValue,
    },
    /// The events after `from` up to `to` are gone for this subscription; it goes on after `to`.
    Gap { subscription: &'a str, from: Position, to: Position },
    /// Everything that matched up to `position` has been sent.
    Heartbeat { position: Position },
    /// This pod stops: come back after the delay, in milliseconds, with this position.
    Drain { reconnect_after_ms: u64, position: Position },
}

impl Push<'_> {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("a push has only string keys, so it always serialises")
    }
}

/// Name and schema of each push of a WebSocket.
pub fn pushes(generator: &mut SchemaGenerator) -> Vec<(String, Value)> {
    let mut schema = Push::json_schema(generator).to_value();
    let Value::Array(pushes) = schema["oneOf"].take() else { return Vec::new() };
    let named = |push: Value| Some((push.pointer("/properties/push/const")?.as_str()?.to_owned(), push));
    pushes.into_iter().filter_map(named).collect()
}

impl Encoding {
    /// Appends one event for one subscription.
    pub(super) fn event(self, subscription: &Subscription, entry: &Entry, into: &mut Vec<u8>) {
        match self {
            Self::WebSocket => event(subscription.number, &subscription.filter.text(entry), into),
            Self::CloudEvents => {
                let event = subscription.filter.text(entry);
                text_head(event.len(), into);
                into.extend_from_slice(&event);
            }
            Self::EventStream => {
                let position = Position { seq: entry.seq, ..subscription.position };
                server_sent(None, position, &subscription.filter.text(entry), into);
            }
            // One event for all subscriptions that want it, once all have come so far.
            Self::SocketIo => {}
        }
    }

    /// Appends that the events after `from` up to `to` are gone for this subscription; it goes on after `to`.
    pub(super) fn gap(self, subscription: &str, from: Position, to: Position, into: &mut Vec<u8>) {
        match self {
            Self::WebSocket => text_message(&gap(subscription, from, to), into),
            Self::CloudEvents => {
                text_message(&own::gap(&format!("gap_{from}_{to}"), from, to).to_string(), into);
            }
            Self::EventStream => {
                server_sent(Some("gap"), to, json!({ "from": from, "to": to }).to_string().as_bytes(), into);
            }
            Self::SocketIo => client::gap(subscription, from, to, into),
        }
    }
}

/// What answers an event that is refused where only events have a form: one of the type `nexus.refused`, which names the
/// refused one by the id and source that it had. `id` makes it unique.
pub(super) fn refused_event(id: Uuid, refused: &Value, refusal: Value) -> String {
    let mut data = refusal;
    (data["id"], data["source"]) = (json!(refused["id"].as_str()), json!(refused["source"].as_str()));
    own::own("nexus.refused", &format!("refused_{}", id.simple()), "event", &data).to_string()
}

/// Appends a server-sent event; `data` is JSON on one line.
fn server_sent(name: Option<&str>, id: Position, data: &[u8], into: &mut Vec<u8>) {
    if let Some(name) = name {
        into.extend_from_slice(format!("event: {name}\n").as_bytes());
    }
    into.extend_from_slice(format!("id: {id}\ndata: ").as_bytes());
    into.extend_from_slice(data);
    into.extend_from_slice(b"\n\n");
}

/// Appends that everything that matched up to `position` has been sent: a client takes the id and sees no event.
pub(super) fn server_sent_heartbeat(position: Position, into: &mut Vec<u8>) {
    into.extend_from_slice(format!("id: {position}\n\n").as_bytes());
}

/// Appends after how many milliseconds the client is to come back.
pub(super) fn server_sent_retry(milliseconds: u64, into: &mut Vec<u8>) {
    into.extend_from_slice(format!("retry: {milliseconds}\n\n").as_bytes());
}

/// An answer to the command `id`.
pub fn result(id: i64, result: &impl Serialize) -> String {
    json!({ "id": id, "result": result }).to_string()
}

/// A refusal of the command `id`; without one when the frame had none.
pub fn error(id: Option<i64>, refusal: &Value) -> String {
    json!({ "id": id, "error": refusal }).to_string()
}

/// Appends one event for the subscription with this number, as the WebSocket message that it goes out in. `event` is
/// `CloudEvent` JSON.
fn event(subscription: u64, event: &[u8], into: &mut Vec<u8>) {
    const HEAD: &str = r#"{"push":"event","subscription":"s"#;
    const MIDDLE: &str = r#"","event":"#;
    let digits = subscription.checked_ilog10().unwrap_or(0) as usize + 1;
    text_head(HEAD.len() + digits + MIDDLE.len() + event.len() + 1, into);
    into.extend_from_slice(HEAD.as_bytes());
    write!(into, "{subscription}").expect("memory takes everything");
    for part in [MIDDLE.as_bytes(), event, b"}"] {
        into.extend_from_slice(part);
    }
}

/// The events after `from` up to `to` are gone for this subscription; it goes on after `to`.
fn gap(subscription: &str, from: Position, to: Position) -> String {
    Push::Gap { subscription, from, to }.text()
}

/// Everything that matched up to `position` has been sent.
pub fn heartbeat(position: Position) -> String {
    Push::Heartbeat { position }.text()
}

/// This pod stops: come back after the delay, with this position.
pub fn drain(reconnect_after_ms: u64, position: Position) -> String {
    Push::Drain { reconnect_after_ms, position }.text()
}

/// Appends why the stream ends. A client that comes back by itself is refused for the same reason.
pub(super) fn server_sent_close(close: Close, position: Position, into: &mut Vec<u8>) {
    let data = json!({ "code": close.code(), "reason": close.reason() }).to_string();
    server_sent(Some("close"), position, data.as_bytes(), into);
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { epoch: 1, seq: 9 };

    #[test]
    fn every_frame_has_its_exact_shape() {
        let frames = [
            result(3, &json!({"subscription": "s1", "position": AT})),
            error(Some(3), &json!({"code": "forbidden", "message": "no"})),
            error(None, &json!({"code": "malformed_frame", "message": "no"})),
            gap("s1", Position { epoch: 1, seq: 4 }, AT),
            heartbeat(AT),
            drain(250, AT),
        ];
        let want = [
            r#"{"id":3,"result":{"subscription":"s1","position":"1.9"}}"#,
            r#"{"id":3,"error":{"code":"forbidden","message":"no"}}"#,
            r#"{"id":null,"error":{"code":"malformed_frame","message":"no"}}"#,
            r#"{"push":"gap","subscription":"s1","from":"1.4","to":"1.9"}"#,
            r#"{"push":"heartbeat","position":"1.9"}"#,
            r#"{"push":"drain","reconnect_after_ms":250,"position":"1.9"}"#,
        ];
        assert_eq!(frames, want);
    }

    #[test]
    fn an_event_stream_has_the_shape_of_the_standard() {
        let mut bytes = Vec::new();
        server_sent(None, AT, br#"{"id":"e"}"#, &mut bytes);
        Encoding::EventStream.gap("s1", Position { epoch: 1, seq: 4 }, AT, &mut bytes);
        server_sent_heartbeat(AT, &mut bytes);
        server_sent_retry(250, &mut bytes);
        let want = "id: 1.9\ndata: {\"id\":\"e\"}\n\n\
                    event: gap\nid: 1.9\ndata: {\"from\":\"1.4\",\"to\":\"1.9\"}\n\n\
                    id: 1.9\n\n\
                    retry: 250\n\n";
        assert_eq!(String::from_utf8_lossy(&bytes), want);
    }

    #[test]
    fn a_refused_event_is_named_as_far_as_it_has_a_name() {
        let refusal = json!({"code": "invalid_document", "message": "no"});
        for (refused, id, source) in [
            (json!({"id": "e", "source": "/s", "data": {}}), json!("e"), json!("/s")),
            (json!({"id": 7, "source": ["/s"]}), Value::Null, Value::Null),
            (json!([{"id": "e"}]), Value::Null, Value::Null),
        ] {
            let told = refused_event(Uuid::nil(), &refused, refusal.clone());
            let want = json!({
                "specversion": "1.0", "id": format!("refused_{}", Uuid::nil().simple()), "source": "/nexus",
                "type": "nexus.refused", "subject": "event", "datacontenttype": "application/json",
                "data": {"code": "invalid_document", "message": "no", "id": id, "source": source},
            });
            assert_eq!(serde_json::from_str::<Value>(&told).expect("it is JSON"), want);
        }
    }

    #[test]
    fn every_push_is_described_under_its_name() {
        let names: Vec<_> = pushes(&mut SchemaGenerator::default()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["event", "gap", "heartbeat", "drain"]);
    }

    #[test]
    fn an_event_goes_out_as_a_message_with_its_exact_length() {
        for number in [1, 9, 10, 99, 100] {
            let mut bytes = Vec::new();
            event(number, br#"{"id":"e"}"#, &mut bytes);
            let text = format!(r#"{{"push":"event","subscription":"s{number}","event":{{"id":"e"}}}}"#);
            let told = RawValue::from_string(r#"{"id":"e"}"#.to_owned()).expect("it is JSON");
            assert_eq!(Push::Event { subscription: &format!("s{number}"), event: &told }.text(), text);
            assert_eq!(bytes, [&[0x81, u8::try_from(text.len()).expect("short")][..], text.as_bytes()].concat());
        }
    }
}
