//! The frames a client receives. Pure.
//!
//! An event's `CloudEvent` JSON was encoded once, when the entry came into this pod; a push
//! copies those bytes between a head and a tail and parses nothing.

use serde::Serialize;
use serde_json::json;

use crate::position::Position;

/// An answer to the command `id`.
pub fn result(id: i64, result: &impl Serialize) -> String {
    json!({ "id": id, "result": result }).to_string()
}

/// A refusal of the command `id`; without one when the frame had none.
pub fn error(id: Option<i64>, code: &str, message: &str) -> String {
    json!({ "id": id, "error": { "code": code, "message": message } }).to_string()
}

/// One event for one subscription. `event` is `CloudEvent` JSON; subscription names are made
/// by the server and need no escaping.
pub fn event(subscription: &str, event: &str) -> String {
    const HEAD: &str = r#"{"push":"event","subscription":""#;
    const MIDDLE: &str = r#"","event":"#;
    let mut frame = String::with_capacity(HEAD.len() + subscription.len() + MIDDLE.len() + event.len() + 1);
    for part in [HEAD, subscription, MIDDLE, event, "}"] {
        frame.push_str(part);
    }
    frame
}

/// The events after `from` up to `to` are gone for this subscription; it goes on after `to`.
pub fn gap(subscription: &str, from: Position, to: Position) -> String {
    json!({ "push": "gap", "subscription": subscription, "from": from, "to": to }).to_string()
}

/// Everything that matched up to `position` has been sent.
pub fn heartbeat(position: Position) -> String {
    json!({ "push": "heartbeat", "position": position }).to_string()
}

/// This pod stops: come back after the delay, with this position.
pub fn drain(reconnect_after_ms: u64, position: Position) -> String {
    json!({ "push": "drain", "reconnect_after_ms": reconnect_after_ms, "position": position }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { epoch: 1, seq: 9 };

    #[test]
    fn every_frame_has_its_exact_shape() {
        let frames = [
            result(3, &json!({"subscription": "s1", "position": AT})),
            error(Some(3), "forbidden", "no"),
            error(None, "malformed_frame", "no"),
            event("s1", r#"{"id":"e"}"#),
            gap("s1", Position { epoch: 1, seq: 4 }, AT),
            heartbeat(AT),
            drain(250, AT),
        ];
        let want = [
            r#"{"id":3,"result":{"subscription":"s1","position":"1.9"}}"#,
            r#"{"id":3,"error":{"code":"forbidden","message":"no"}}"#,
            r#"{"id":null,"error":{"code":"malformed_frame","message":"no"}}"#,
            r#"{"push":"event","subscription":"s1","event":{"id":"e"}}"#,
            r#"{"push":"gap","subscription":"s1","from":"1.4","to":"1.9"}"#,
            r#"{"push":"heartbeat","position":"1.9"}"#,
            r#"{"push":"drain","reconnect_after_ms":250,"position":"1.9"}"#,
        ];
        assert_eq!(frames, want);
    }
}
