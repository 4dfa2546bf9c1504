//! Conditions with their times: a condition keeps the time of its last transition until its value changes. Pure.

use super::{Moment, find};
use crate::api::Condition;
use jiff::Timestamp;

/// What is to be said in one condition.
pub(super) struct Said {
    value: &'static str,
    reason: String,
    message: String,
}

impl Said {
    pub(super) fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self { value: "True", reason: reason.to_owned(), message: message.into() }
    }

    pub(super) fn no(reason: &str, message: impl Into<String>) -> Self {
        Self { value: "False", reason: reason.to_owned(), message: message.into() }
    }

    pub(super) fn unknown(reason: &str, message: impl Into<String>) -> Self {
        Self { value: "Unknown", reason: reason.to_owned(), message: message.into() }
    }
}

/// Collects the conditions of one status.
pub(super) struct Statements<'a> {
    moment: &'a Moment<'a>,
    conditions: Vec<Condition>,
}

impl<'a> Statements<'a> {
    pub(super) fn new(moment: &'a Moment<'a>) -> Self {
        Self { moment, conditions: Vec::new() }
    }

    pub(super) fn say(&mut self, type_: &str, said: Said) {
        let before = find(self.moment.previous, type_).filter(|before| before.status == said.value);
        let time = before.map_or_else(|| time(self.moment.now), |before| before.last_transition_time.clone());
        self.conditions.push(Condition {
            type_: type_.to_owned(),
            status: said.value.to_owned(),
            reason: said.reason,
            message: said.message,
            last_transition_time: time,
            observed_generation: Some(self.moment.generation),
        });
    }

    /// Leaves a condition as it stands; one that was never said is unknown.
    pub(super) fn keep(&mut self, type_: &str) {
        match find(self.moment.previous, type_) {
            Some(before) => self.conditions.push(before.clone()),
            None => self.say(type_, Said::unknown("NotAsked", "it was not asked yet")),
        }
    }

    pub(super) fn finish(self) -> Vec<Condition> {
        self.conditions
    }
}

/// A time in RFC 3339 to the second, as Kubernetes writes it.
pub(super) fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
