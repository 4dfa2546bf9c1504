//! What one subscription wants, and how far it has come. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::events::audience::ROOM_BYTES_MAX;
use crate::events::{Choice, Pattern, Registry};
use crate::log::{Entry, FindVersion, Versions};
use crate::position::Position;

use super::limits::{ATTRIBUTES_MAX, PATTERNS_MAX, SUBJECTS_MAX};

/// Longest value that an attribute is compared with, in bytes: no attribute of an event is longer.
const ATTRIBUTE_BYTES_MAX: usize = 256;

/// Longest name of an attribute, in bytes, as `CloudEvents` recommends.
const ATTRIBUTE_NAME_BYTES_MAX: usize = 20;

/// What a client asks for, as it says it. An event must be all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Patterns of event types: `*` is one segment, `**` any number of them.
    pub types: Vec<String>,
    /// Exact subjects; all of them when absent.
    pub subjects: Option<Vec<String>>,
    /// Attributes of `CloudEvents` and the exact text that each must have; numbers and truth values as text.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// The room in which it must be told; any when absent.
    #[serde(default)]
    pub room: Option<String>,
}

/// The events that a client asks for. Small, for each of many connections holds some.
#[derive(Debug)]
pub struct Filter {
    registry: Arc<Registry>,
    choice: Arc<Choice>,
    subjects: Option<Vec<String>>,
    rare: Option<Box<Rare>>,
}

/// What few ask for.
#[derive(Debug, Default)]
struct Rare {
    attributes: Box<[(String, String)]>,
    room: Option<Box<str>>,
    versions: Versions,
}

/// Why a filter is refused; the text is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFilter {
    /// Too few or too many patterns.
    #[error("`types` has 1 to {PATTERNS_MAX} patterns")]
    CountPatterns,
    /// A pattern is none, or can never match.
    #[error("`{0}` matches no event type; see /v1/event-types")]
    MatchType(String),
    /// Too few or too many subjects.
    #[error("`subjects` has 1 to {SUBJECTS_MAX} subjects; leave it out for all")]
    CountSubjects,
    /// A room has no such name.
    #[error("`room` has 1 to {ROOM_BYTES_MAX} bytes and no control characters")]
    NameRoom,
    /// Too many attributes.
    #[error("`attributes` has at most {ATTRIBUTES_MAX} attributes")]
    CountAttributes,
    /// An attribute that is asked for otherwise, or is none.
    #[error(
        "`{0}` is no attribute to ask for: `source`, `id`, `time` and extensions are; `types` and `subjects` are members"
    )]
    NameAttribute(String),
    /// A value that no attribute has.
    #[error("the value of `{0}` has 1 to {ATTRIBUTE_BYTES_MAX} bytes, none of them zero")]
    MeasureAttribute(String),
}

impl Filter {
    /// A filter from what the client sent.
    pub fn read(registry: &Arc<Registry>, asked: Asked) -> Result<Self, ReadFilter> {
        let Asked { types, subjects, attributes, room } = asked;
        if types.is_empty() || types.len() > PATTERNS_MAX {
            return Err(ReadFilter::CountPatterns);
        }
        if subjects.as_ref().is_some_and(|subjects| subjects.is_empty() || subjects.len() > SUBJECTS_MAX) {
            return Err(ReadFilter::CountSubjects);
        }
        let mut patterns = Vec::with_capacity(types.len());
        for text in types {
            let refused = || ReadFilter::MatchType(shortened(&text));
            let pattern: Pattern = text.parse().map_err(|_| refused())?;
            if registry.matching(std::slice::from_ref(&pattern)).is_empty() {
                return Err(refused());
            }
            patterns.push(pattern);
        }
        if room.as_ref().is_some_and(|room| !is_room(room)) {
            return Err(ReadFilter::NameRoom);
        }
        let (attributes, room) = (attributes_of(attributes)?, room.map(String::into_boxed_str));
        let rare = Rare { attributes, room, versions: Versions::default() };
        let rare = (!rare.attributes.is_empty() || rare.room.is_some()).then(|| Box::new(rare));
        Ok(Self { registry: Arc::clone(registry), choice: registry.choose(patterns), subjects, rare })
    }

    /// The same, with events in the versions that the client asks for, by type.
    pub fn in_versions(mut self, asked: &BTreeMap<String, u16>) -> Result<Self, FindVersion> {
        let versions = Versions::read(&self.registry, asked)?;
        if !versions.is_current() {
            self.rare.get_or_insert_default().versions = versions;
        }
        Ok(self)
    }

    /// The versions that the client asks for.
    pub fn versions(&self) -> &Versions {
        self.rare.as_ref().map_or(Versions::current(), |rare| &rare.versions)
    }

    /// The event's JSON for the client.
    pub fn text<'a>(&self, entry: &'a Entry) -> Cow<'a, [u8]> {
        self.versions().text(&self.registry, entry)
    }

    /// What the client asked for.
    pub fn asked(&self) -> Asked {
        let attributes = self.rare.as_ref().map(|rare| rare.attributes.iter().cloned().collect());
        Asked {
            types: self.choice.patterns.iter().map(ToString::to_string).collect(),
            subjects: self.subjects.clone(),
            attributes: attributes.unwrap_or_default(),
            room: self.room().map(str::to_owned),
        }
    }

    /// Whether the client wants this entry.
    pub fn wants(&self, entry: &Entry) -> bool {
        self.wants_type(&entry.event_type)
            && self.subjects.as_ref().is_none_or(|subjects| subjects.iter().any(|subject| **subject == *entry.subject))
            && self.rare.as_ref().is_none_or(|rare| rare.wants(entry))
    }

    /// The patterns of types that the client asked for.
    pub fn patterns(&self) -> &[Pattern] {
        &self.choice.patterns
    }

    /// The registered types that are wanted.
    pub fn types(&self) -> &[Arc<str>] {
        &self.choice.types
    }

    /// The types to look for in the log; nothing when every type is wanted, also those of newer pods.
    pub fn selected_types(&self) -> Option<Vec<&str>> {
        let all = self.patterns().iter().any(Pattern::is_any);
        (!all).then(|| self.types().iter().map(|event_type| &**event_type).collect())
    }

    /// The subjects that are wanted; nothing when all are.
    pub fn subjects(&self) -> Option<&[String]> {
        self.subjects.as_deref()
    }

    /// The room in which it must be told; nothing when any will do.
    pub fn room(&self) -> Option<&str> {
        self.rare.as_ref()?.room.as_deref()
    }

    /// A newer pod may know a type that this one does not; the patterns decide then.
    fn wants_type(&self, event_type: &str) -> bool {
        self.types().iter().any(|wanted| **wanted == *event_type)
            || (self.registry.get(event_type).is_none()
                && self.patterns().iter().any(|pattern| pattern.matches(event_type)))
    }
}

impl Rare {
    fn wants(&self, entry: &Entry) -> bool {
        self.room.as_deref().is_none_or(|room| entry.audience.rooms().any(|told| told == room))
            && self.attributes.iter().all(|(name, value)| entry.attribute(name) == Some(value))
    }
}

/// The attributes that an event must have, and the text of each.
pub fn attributes_of(asked: BTreeMap<String, String>) -> Result<Box<[(String, String)]>, ReadFilter> {
    if asked.len() > ATTRIBUTES_MAX {
        return Err(ReadFilter::CountAttributes);
    }
    for (name, value) in &asked {
        let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let fits = (1..=ATTRIBUTE_NAME_BYTES_MAX).contains(&name.len());
        if !plain || !fits || matches!(name.as_str(), "type" | "subject" | "data") {
            return Err(ReadFilter::NameAttribute(shortened(name)));
        }
        if value.is_empty() || value.len() > ATTRIBUTE_BYTES_MAX || value.contains('\0') {
            return Err(ReadFilter::MeasureAttribute(shortened(name)));
        }
    }
    Ok(asked.into_iter().collect())
}

/// Whether a room may have this name.
fn is_room(name: &str) -> bool {
    (1..=ROOM_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control)
}

/// The text of what is refused may be long; the client knows what it sent.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// One subscription of one connection.
#[derive(Debug)]
pub struct Subscription {
    /// Counts the subscriptions of the connection, from 1; its name is made of it.
    pub number: u64,
    /// What it wants.
    pub filter: Filter,
    /// Everything it wants up to here was encoded for the client.
    pub position: Position,
}

impl Subscription {
    /// The name that the client knows it by.
    pub fn name(&self) -> String {
        format!("s{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(event_type: &str, subject: &str) -> Entry {
        Entry {
            seq: 1,
            outbox_id: 1,
            event_type: event_type.into(),
            subject: subject.into(),
            type_number: 0,
            audience: crate::events::Audience::joined("user/u\x1fwallet/1"),
            recorded_at: jiff::Timestamp::UNIX_EPOCH,
            encoded: Bytes::from_static(br#"{"source":"/mint","tenant":"a"}"#),
            published: None,
            attributes: crate::log::event::Attributes::default(),
            delivery: crate::traces::Delivery::default(),
        }
    }

    fn asked(types: &[&str]) -> Asked {
        Asked { types: types.iter().map(ToString::to_string).collect(), ..Asked::default() }
    }

    fn with_attribute(name: &str, value: &str) -> Asked {
        Asked { attributes: BTreeMap::from([(name.to_owned(), value.to_owned())]), ..asked(&["**"]) }
    }

    fn filter(asked: Asked) -> Result<Filter, ReadFilter> {
        Filter::read(&Arc::new(Registry::built_in()), asked)
    }

    fn read(asked: Asked) -> Filter {
        filter(asked).expect("the filter is valid")
    }

    #[test]
    fn a_filter_wants_its_types_on_its_subjects_only() {
        let filter = read(Asked { subjects: Some(vec!["wallet/1".into()]), ..asked(&["wallet.*"]) });
        assert!(filter.wants(&entry("wallet.created", "wallet/1")));
        assert!(!filter.wants(&entry("wallet.created", "wallet/2")));
        assert!(!filter.wants(&entry("user.login", "wallet/1")));
    }

    #[test]
    fn a_filter_wants_what_has_each_of_its_attributes() {
        let entry = entry("wallet.created", "wallet/1");
        for (name, value, wanted) in
            [("source", "/mint", true), ("source", "/min", false), ("tenant", "a", true), ("region", "a", false)]
        {
            assert_eq!(read(with_attribute(name, value)).wants(&entry), wanted, "{name}={value}");
        }
        let mut both = with_attribute("source", "/mint");
        both.attributes.insert("tenant".to_owned(), "b".to_owned());
        assert!(!read(both).wants(&entry), "one of two is not enough");
    }

    #[test]
    fn a_filter_of_a_room_wants_what_is_told_there() {
        let room = |room: &str| read(Asked { room: Some(room.to_owned()), ..asked(&["**"]) });
        let entry = entry("wallet.created", "wallet/1");
        assert!(room("wallet/1").wants(&entry));
        assert!(!room("wallet/11").wants(&entry));
    }

    #[test]
    fn a_type_of_a_newer_pod_is_matched_by_pattern() {
        let filter = read(asked(&["wallet.*"]));
        assert!(filter.wants(&entry("wallet.closed", "wallet/1")));
        assert!(!filter.wants(&entry("vault.closed", "vault/1")));
    }

    #[test]
    fn what_was_asked_for_is_read_back() {
        let mut asked = with_attribute("source", "/mint");
        asked.subjects = Some(vec!["wallet/1".to_owned()]);
        asked.room = Some("wallet/1".to_owned());
        assert_eq!(read(asked.clone()).asked(), asked);
    }

    #[test]
    fn filters_that_cannot_match_are_refused_each_with_its_reason() {
        let refused = |asked: Asked| filter(asked).err();
        assert_eq!(refused(asked(&[])), Some(ReadFilter::CountPatterns));
        assert_eq!(refused(asked(&["**"; 17])), Some(ReadFilter::CountPatterns));
        assert_eq!(refused(asked(&["walet.*"])), Some(ReadFilter::MatchType("walet.*".into())));
        assert_eq!(refused(asked(&["a..b"])), Some(ReadFilter::MatchType("a..b".into())));
        let subjects = Asked { subjects: Some(Vec::new()), ..asked(&["**"]) };
        assert_eq!(refused(subjects), Some(ReadFilter::CountSubjects));
        for room in ["", "a\u{1f}b", &"r".repeat(513)] {
            let room = Asked { room: Some(room.to_owned()), ..asked(&["**"]) };
            assert_eq!(refused(room), Some(ReadFilter::NameRoom));
        }
        for name in ["type", "subject", "data", "", "Source", "trace-id", "abcdefghijklmnopqrstu"] {
            assert_eq!(refused(with_attribute(name, "a")), Some(ReadFilter::NameAttribute(name.into())), "{name}");
        }
        for value in ["", "a\0", &"v".repeat(257)] {
            assert_eq!(refused(with_attribute("source", value)), Some(ReadFilter::MeasureAttribute("source".into())));
        }
        let many = (0..=ATTRIBUTES_MAX).map(|number| (format!("a{number}"), "1".to_owned())).collect();
        assert_eq!(refused(Asked { attributes: many, ..asked(&["**"]) }), Some(ReadFilter::CountAttributes));
    }
}
