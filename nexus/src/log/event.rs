//! An event on its way into the log, and an entry that came out of it.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::events::{Audience, CloudEvent, Payload, Registry};
use crate::position::Position;

/// The `source` of events that Nexus itself emits.
const OWN_SOURCE: &str = "/nexus";

/// A valid event that is to be appended. Made from what the registry has accepted, or from a typed payload.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The event's `id`.
    pub id: String,
    /// The event's `source`.
    pub source: String,
    pub(super) key: Uuid,
    pub(super) event_type: String,
    pub(super) subject: String,
    pub(super) audience: Audience,
    pub(super) encoded: String,
}

impl NewEvent {
    /// The event as it will be stored. The caller has let the registry validate it.
    pub fn accepted(event: CloudEvent) -> Self {
        let encoded = event.encode();
        let key = idempotency_key(&event.source, &event.id);
        let definition = Registry::global().get(&event.event_type);
        let audience = definition.map(|definition| definition.audience(&event.data)).unwrap_or_default();
        let CloudEvent { id, source, event_type, subject, .. } = event;
        Self { id, source, key, event_type, subject, audience, encoded }
    }

    /// An event that Nexus itself emits about the record `subject_id`; `id` makes it unique.
    pub fn emit<P: Payload>(id: Uuid, subject_id: &str, time: Timestamp, payload: &P) -> Self {
        let data: Value =
            serde_json::to_value(payload).expect("a payload has only string keys, so it always serialises");
        Self::accepted(CloudEvent {
            id: id.to_string(),
            source: OWN_SOURCE.to_owned(),
            event_type: P::TYPE.to_owned(),
            subject: format!("{}/{subject_id}", P::SUBJECT),
            time,
            data,
            extensions: std::collections::BTreeMap::new(),
        })
    }

    /// By this the log knows the event again: a digest of its source and id.
    pub fn key(&self) -> Uuid {
        self.key
    }

    /// Size in the log, in bytes.
    pub fn encoded_bytes(&self) -> usize {
        self.encoded.len()
    }
}

/// 128 bits of a digest of source and id: a short key for the index however long the two are.
fn idempotency_key(source: &str, id: &str) -> Uuid {
    // Neither may hold a control character, so the separator cannot be forged.
    let digest = Sha256::new().chain_update(source).chain_update("\n").chain_update(id).finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(key)
}

/// One event of the log, encoded once and shared by all its receivers.
#[derive(Debug)]
pub struct Entry {
    /// Its dense number.
    pub seq: i64,
    /// The number it had in the outbox; a writer knows its event by it.
    pub outbox_id: i64,
    /// The event type.
    pub event_type: Arc<str>,
    /// What it is about.
    pub subject: Arc<str>,
    /// For whom it is.
    pub audience: Audience,
    /// When it was stamped, by the clock of the database.
    pub recorded_at: Timestamp,
    /// The `CloudEvent` as JSON, with the extension attribute `position`.
    pub encoded: Bytes,
}

/// Adds the position to a stored event. The text is an object that we encoded ourselves, never empty.
pub(crate) fn with_position(event: &str, position: Position) -> Bytes {
    let open = event.trim_end().strip_suffix('}').unwrap_or(event);
    Bytes::from(format!(r#"{open},"position":"{position}"}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_becomes_the_last_attribute() {
        let encoded = with_position(r#"{"id":"1","data":{}}"#, Position { epoch: 2, seq: 40 });
        assert_eq!(encoded, r#"{"id":"1","data":{},"position":"2.40"}"#);
    }

    #[test]
    fn moving_a_character_from_source_to_id_gives_another_key() {
        assert_ne!(idempotency_key("/a", "bc"), idempotency_key("/ab", "c"));
        assert_eq!(idempotency_key("/a", "bc"), idempotency_key("/a", "bc"));
    }
}
