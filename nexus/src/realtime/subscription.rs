//! What one subscription wants, and how far it has come. Pure.

use crate::events::{Pattern, Registry};
use crate::log::Entry;
use crate::position::Position;

use super::limits::{PATTERNS_MAX, SUBJECTS_MAX};

/// The events that a client asks for.
#[derive(Debug)]
pub struct Filter {
    patterns: Vec<Pattern>,
    /// The registered types that a pattern matches, so that no pattern is tried per event.
    types: Vec<&'static str>,
    subjects: Option<Vec<String>>,
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
}

impl Filter {
    /// A filter from what the client sent.
    pub fn read(types: &[String], subjects: Option<Vec<String>>) -> Result<Self, ReadFilter> {
        if types.is_empty() || types.len() > PATTERNS_MAX {
            return Err(ReadFilter::CountPatterns);
        }
        if subjects.as_ref().is_some_and(|subjects| subjects.is_empty() || subjects.len() > SUBJECTS_MAX) {
            return Err(ReadFilter::CountSubjects);
        }
        let mut patterns = Vec::with_capacity(types.len());
        for text in types {
            // The text of a refused pattern may be long; the client knows what it sent.
            let refused = || ReadFilter::MatchType(text.chars().take(64).collect());
            let pattern: Pattern = text.parse().map_err(|_| refused())?;
            if Registry::global().matching(std::slice::from_ref(&pattern)).is_empty() {
                return Err(refused());
            }
            patterns.push(pattern);
        }
        let types = Registry::global().matching(&patterns);
        Ok(Self { patterns, types, subjects })
    }

    /// Whether the client wants this entry.
    pub fn wants(&self, entry: &Entry) -> bool {
        self.wants_type(&entry.event_type)
            && self.subjects.as_ref().is_none_or(|subjects| subjects.iter().any(|subject| **subject == *entry.subject))
    }

    /// What the client asked for.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The registered types that are wanted.
    pub fn types(&self) -> &[&'static str] {
        &self.types
    }

    /// The subjects that are wanted; nothing when all are.
    pub fn subjects(&self) -> Option<&[String]> {
        self.subjects.as_deref()
    }

    /// A newer pod may know a type that this one does not; the patterns decide then.
    fn wants_type(&self, event_type: &str) -> bool {
        self.types.contains(&event_type)
            || (Registry::global().get(event_type).is_none()
                && self.patterns.iter().any(|pattern| pattern.matches(event_type)))
    }
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
            audience: crate::events::Audience::default(),
            recorded_at: jiff::Timestamp::UNIX_EPOCH,
            encoded: Bytes::from_static(b"{}"),
            delivery: crate::traces::Delivery::default(),
        }
    }

    fn filter(types: &[&str], subjects: Option<&[&str]>) -> Result<Filter, ReadFilter> {
        let types: Vec<String> = types.iter().map(ToString::to_string).collect();
        Filter::read(&types, subjects.map(|subjects| subjects.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn a_filter_wants_its_types_on_its_subjects_only() {
        let filter = filter(&["wallet.*"], Some(&["wallet/1"])).expect("the filter is valid");
        assert!(filter.wants(&entry("wallet.created", "wallet/1")));
        assert!(!filter.wants(&entry("wallet.created", "wallet/2")));
        assert!(!filter.wants(&entry("user.login", "wallet/1")));
    }

    #[test]
    fn a_type_of_a_newer_pod_is_matched_by_pattern() {
        let filter = filter(&["wallet.*"], None).expect("the filter is valid");
        assert!(filter.wants(&entry("wallet.closed", "wallet/1")));
        assert!(!filter.wants(&entry("vault.closed", "vault/1")));
    }

    #[test]
    fn filters_that_cannot_match_are_refused_each_with_its_reason() {
        assert_eq!(filter(&[], None).err(), Some(ReadFilter::CountPatterns));
        assert_eq!(filter(&["**"; 17], None).err(), Some(ReadFilter::CountPatterns));
        assert_eq!(filter(&["walet.*"], None).err(), Some(ReadFilter::MatchType("walet.*".into())));
        assert_eq!(filter(&["a..b"], None).err(), Some(ReadFilter::MatchType("a..b".into())));
        assert_eq!(filter(&["**"], Some(&[])).err(), Some(ReadFilter::CountSubjects));
    }
}
