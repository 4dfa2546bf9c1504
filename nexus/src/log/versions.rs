//! In which version of its type a reader is given an event. Whoever asks for none costs nothing: an entry is shared by
//! all its readers in the current version.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::event::Entry;
use crate::events::Registry;

/// The versions that a reader asks for; of every other type it is given the current one.
///
/// An event that was published in a later version than is asked for cannot be brought back to it: it comes as it was
/// published, and says so in its `dataschema`. So nothing is left out.
#[derive(Debug, Default)]
pub struct Versions {
    asked: Vec<(Arc<str>, u16)>,
}

/// What is asked for is no version of a registered type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version of an event type; see /v1/event-types")]
pub struct FindVersion(String);

impl Versions {
    /// The current ones.
    pub fn current() -> &'static Self {
        static CURRENT: Versions = Versions { asked: Vec::new() };
        &CURRENT
    }

    /// Whether it asks for nothing but the current ones.
    pub fn is_current(&self) -> bool {
        self.asked.is_empty()
    }

    /// Reads what was asked for, by type.
    pub fn read(registry: &Registry, asked: &BTreeMap<String, u16>) -> Result<Self, FindVersion> {
        let known = |(event_type, version): (&String, &u16)| -> Result<_, FindVersion> {
            let definition = registry.get(event_type).filter(|definition| definition.version(*version).is_some());
            let definition = definition.ok_or_else(|| {
                // The client knows what it sent, which may be long.
                FindVersion(format!("{}:{version}", event_type.chars().take(64).collect::<String>()))
            })?;
            // The current one is given anyway.
            Ok((*version != definition.version).then(|| (Arc::clone(&definition.event_type), *version)))
        };
        let asked = asked.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { asked: asked.into_iter().flatten().collect() })
    }

    /// What was asked for, to be read again.
    pub fn asked(&self) -> BTreeMap<String, u16> {
        self.asked.iter().map(|(event_type, version)| (event_type.to_string(), *version)).collect()
    }

    /// The event's JSON for this reader.
    pub fn text<'a>(&self, registry: &Registry, entry: &'a Entry) -> Cow<'a, [u8]> {
        let asked = self.asked.iter().find(|(event_type, _)| *event_type == entry.event_type);
        let (Some((_, version)), Some(published)) = (asked, &entry.published) else {
            return Cow::Borrowed(&entry.encoded);
        };
        let definition = registry.get(&entry.event_type);
        let brought = definition.and_then(|definition| definition.upcast(published, *version));
        brought.map_or(Cow::Borrowed(published), |text| Cow::Owned(text.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::events::parcel;
    use crate::log::event::texts;
    use crate::position::Position;

    fn versions(registry: &Registry, event_type: &str, version: u16) -> Result<Versions, FindVersion> {
        Versions::read(registry, &BTreeMap::from([(event_type.to_owned(), version)]))
    }

    /// An entry that was published as this text.
    fn entry(registry: &Registry, event: &str) -> Entry {
        let (encoded, published) = texts(registry, "parcel.sent", event, Position { epoch: 1, seq: 7 });
        Entry {
            seq: 7,
            outbox_id: 7,
            event_type: "parcel.sent".into(),
            subject: "parcel/p".into(),
            type_number: 0,
            audience: crate::events::Audience::default(),
            recorded_at: jiff::Timestamp::UNIX_EPOCH,
            encoded,
            published,
            attributes: crate::log::event::Attributes::default(),
            delivery: crate::traces::Delivery::default(),
        }
    }

    #[test]
    fn a_reader_is_given_the_version_that_it_asks_for_but_never_one_before_the_published_one() {
        let registry = parcel::registry();
        let published = [
            parcel::text(None, &json!({"parcel_id": "p", "to": "u"})),
            parcel::text(Some(2), &json!({"parcel_id": "p", "recipient_id": "u"})),
            parcel::text(Some(3), &json!({"parcel_id": "p", "recipient_id": "u", "grams": 0})),
        ];
        for (index, event) in published.iter().enumerate() {
            let entry = entry(&registry, event);
            let with_position = |event: &str| event.trim_end_matches('}').to_owned() + r#"},"position":"1.7"}"#;
            let given = |versions: &Versions| String::from_utf8_lossy(&versions.text(&registry, &entry)).into_owned();
            assert_eq!(given(&Versions::default()), with_position(&published[2]));
            for asked in 1..=3 {
                let versions = versions(&registry, "parcel.sent", asked).expect("there is such a version");
                let want = index.max(usize::from(asked) - 1);
                assert_eq!(given(&versions), with_position(&published[want]), "{asked} of {index}");
                assert_eq!(versions.asked().len(), usize::from(asked != 3), "the current one is given anyway");
            }
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        let registry = parcel::registry();
        for (event_type, version) in [("parcel.sent", 0), ("parcel.sent", 4), ("parcel.lost", 1)] {
            let refused = versions(&registry, event_type, version).expect_err("there is none");
            assert_eq!(refused, FindVersion(format!("{event_type}:{version}")));
        }
    }
}
