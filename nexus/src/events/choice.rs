//! What a list of patterns chooses among the types, in memory once for all who ask for the same. Pure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Pattern;

/// Most lists that are shared: far more than the pages and services of a platform ask for. Others have theirs alone.
const SHARED_MAX: usize = 1_024;

/// Patterns of event types, and the registered types that they match, so that no pattern is tried per event.
#[derive(Debug)]
pub struct Choice {
    /// As they were asked for.
    pub patterns: Box<[Pattern]>,
    /// What they match.
    pub types: Box<[Arc<str>]>,
}

/// The choices that somebody holds, by their patterns.
#[derive(Debug, Default)]
pub(super) struct Choices(Mutex<HashMap<String, Weak<Choice>>>);

impl Choices {
    /// The choice of these patterns; `types` finds what they match.
    pub(super) fn get(&self, patterns: Vec<Pattern>, types: impl FnOnce(&[Pattern]) -> Vec<Arc<str>>) -> Arc<Choice> {
        let name: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let name = name.join(",");
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(choice) = shared.get(&name).and_then(Weak::upgrade) {
            return choice;
        }
        let choice = Arc::new(Choice { types: types(&patterns).into(), patterns: patterns.into() });
        if shared.len() >= SHARED_MAX {
            shared.retain(|_, choice| choice.strong_count() > 0);
        }
        if shared.len() < SHARED_MAX {
            shared.insert(name, Arc::downgrade(&choice));
        }
        choice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(choices: &Choices, pattern: &str) -> Arc<Choice> {
        choices.get(vec![pattern.parse().expect("a pattern")], |patterns| vec![patterns[0].to_string().into()])
    }

    #[test]
    fn who_asks_for_the_same_has_the_same() {
        let choices = Choices::default();
        let one = choice(&choices, "wallet.*");
        assert!(Arc::ptr_eq(&one, &choice(&choices, "wallet.*")));
        assert_eq!(&*choice(&choices, "job.*").types[0], "job.*");
    }

    #[test]
    fn what_is_kept_has_a_bound_and_beyond_it_nobody_is_given_what_another_asked_for() {
        let choices = Choices::default();
        let held: Vec<_> = (0..2 * SHARED_MAX).map(|number| choice(&choices, &format!("a.{number}"))).collect();
        let kept = || choices.0.lock().expect("no panic").len();
        assert_eq!(kept(), SHARED_MAX);
        assert!(held.iter().enumerate().all(|(number, choice)| *choice.types[0] == *format!("a.{number}")));
        drop(held);
        let again = choice(&choices, "b.1");
        assert_eq!(kept(), 1, "what nobody holds goes");
        drop(again);
    }
}
