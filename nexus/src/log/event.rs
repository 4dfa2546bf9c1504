//! An event on its way into the log, and an entry that came out of it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry::Vacant;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::events::registry::current_version;
use crate::events::{Audience, CloudEvent, Payload, Registry};
use crate::position::Position;
use crate::traces::{self, Delivery, Parent};

/// The `source` of events that Nexus itself emits.
const OWN_SOURCE: &str = "/nexus";

/// The extension attribute that says of which trace an event is. Source: the extension "Distributed Tracing" of
/// `CloudEvents`.
const TRACE_PARENT: &str = "traceparent";
/// Bytes of the attribute in an encoded event: its name and value, four quotes, a colon and a comma.
const MARK_BYTES: usize = TRACE_PARENT.len() + Parent::BYTES + 6;

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
    mark_bytes: usize,
}

impl NewEvent {
    /// The event as it will be stored, for its audience: of the trace of this task, unless it brings its own. The caller
    /// has let the registry validate it.
    pub fn accepted(mut event: CloudEvent, audience: Audience) -> Self {
        let mut mark_bytes = 0;
        if let (Some(parent), Vacant(place)) = (traces::mark(), event.extensions.entry(TRACE_PARENT.to_owned())) {
            mark_bytes = MARK_BYTES;
            place.insert(Value::String(parent));
        }
        let encoded = event.encode();
        let key = idempotency_key(&event.source, &event.id);
        let CloudEvent { id, source, event_type, subject, .. } = event;
        Self { id, source, key, event_type, subject, audience, encoded, mark_bytes }
    }

    /// An event that Nexus itself emits about the record `subject_id`; `id` makes it unique.
    pub fn emit<P: Payload>(id: Uuid, subject_id: &str, time: Timestamp, payload: &P) -> Self {
        let data: Value =
            serde_json::to_value(payload).expect("a payload has only string keys, so it always serialises");
        let audience = Audience::of(P::AUDIENCE, &data);
        let event = CloudEvent {
            id: id.to_string(),
            source: OWN_SOURCE.to_owned(),
            event_type: P::TYPE.to_owned(),
            subject: format!("{}/{subject_id}", P::SUBJECT),
            time,
            version: current_version::<P>(),
            data,
            extensions: BTreeMap::new(),
        };
        Self::accepted(event, audience)
    }

    /// By this the log knows the event again: a digest of its source and id.
    pub fn key(&self) -> Uuid {
        self.key
    }

    /// Size in the log, in bytes, without the mark of a trace that it did not bring: that is no reason to refuse it.
    pub fn encoded_bytes(&self) -> usize {
        self.encoded.len() - self.mark_bytes
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
    /// The number it had in the outbox; a writer knows its event by it. One that never was there has its place's, negated.
    pub outbox_id: i64,
    /// The event type.
    pub event_type: Arc<str>,
    /// The number of the type in the registry.
    pub type_number: usize,
    /// What it is about.
    pub subject: Arc<str>,
    /// For whom it is.
    pub audience: Audience,
    /// When it was stamped, by the clock of the database.
    pub recorded_at: Timestamp,
    /// The `CloudEvent` as JSON, in the current version of its type, with the extension attribute `position`.
    pub encoded: Bytes,
    /// The same as it was published, where that was in an earlier version.
    pub published: Option<Bytes>,
    /// Its attributes, once somebody has asked for one.
    pub(crate) attributes: Attributes,
    /// Its delivery, where that is traced.
    pub delivery: Delivery,
}

/// What stands for the number in the outbox of an event that never was there: its place, so that nobody has to look it up.
pub(super) fn unqueued(seq: i64) -> i64 {
    -seq
}

/// The place of an event that never was in the outbox, by what stands for its number there.
pub(super) fn place_of_unqueued(outbox_id: i64) -> Option<i64> {
    (outbox_id < 0).then_some(-outbox_id)
}

/// Attributes of an event by name. Most events are never asked for any, so they are read when one first is.
#[derive(Debug, Default)]
pub(crate) struct Attributes(OnceLock<BTreeMap<Box<str>, Box<str>>>);

impl Entry {
    /// The event's attribute of this name, as text; nothing when it has none.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let attributes = self.attributes.0.get_or_init(|| attributes(&self.encoded));
        attributes.get(name).map(|value| &**value)
    }

    /// Size in memory, in bytes, of what it says.
    pub(crate) fn bytes(&self) -> usize {
        self.encoded.len() + self.published.as_ref().map_or(0, Bytes::len)
    }
}

/// Every attribute of the event, numbers and truth values by their digits and words; `data` is none.
fn attributes(encoded: &[u8]) -> BTreeMap<Box<str>, Box<str>> {
    // What the log holds we have encoded ourselves.
    let members: BTreeMap<Box<str>, &RawValue> = serde_json::from_slice(encoded).unwrap_or_default();
    let text = |json: &RawValue| serde_json::from_str(json.get()).unwrap_or_else(|_| json.get().into());
    members.into_iter().filter(|(name, _)| &**name != "data").map(|(name, json)| (name, text(json))).collect()
}

/// The texts of an entry: in the current version of its type, and as it was published where that was in an earlier one.
/// An event of a type or a version that this pod does not know is carried as it is.
pub(super) fn texts(registry: &Registry, event_type: &str, event: &str, position: Position) -> (Bytes, Option<Bytes>) {
    let published = with_position(event, position);
    let definition = registry.get(event_type);
    match definition.and_then(|definition| definition.upcast(event.as_bytes(), definition.version)) {
        Some(current) => (with_position(&current, position), Some(published)),
        None => (published, None),
    }
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
    fn attributes_are_read_as_text_and_data_is_none_of_them() {
        let entry = Entry {
            seq: 1,
            outbox_id: 1,
            event_type: "a.b".into(),
            subject: "a/1".into(),
            type_number: 0,
            audience: Audience::default(),
            recorded_at: Timestamp::UNIX_EPOCH,
            encoded: Bytes::from_static(
                br#"{"id":"1","source":"/m\u00e9","attempt":3,"dry":true,"data":{"source":"no"}}"#,
            ),
            published: None,
            delivery: Delivery::default(),
            attributes: Attributes::default(),
        };
        let read = ["id", "source", "attempt", "dry", "data", "tenant"].map(|name| entry.attribute(name));
        assert_eq!(read, [Some("1"), Some("/mé"), Some("3"), Some("true"), None, None]);
    }

    #[test]
    fn moving_a_character_from_source_to_id_gives_another_key() {
        assert_ne!(idempotency_key("/a", "bc"), idempotency_key("/ab", "c"));
        assert_eq!(idempotency_key("/a", "bc"), idempotency_key("/a", "bc"));
    }
}
