//! What this pod may serve from a cache right now: the known changes, and how long ago the
//! pod knew that it had all of them. Pure: the clock comes in as an argument.
//!
//! **The bound.** A confirmation says "every write committed before this instant is
//! applied here". A pod serves a cached value only while its last confirmation is at most
//! [`STALENESS_MAX`] old. So no cached answer, from any pod, misses a write that was
//! committed more than [`STALENESS_MAX`] before the answer was given; a pod that cannot
//! follow the log stops serving from its caches and reads the database.

use std::time::{Duration, Instant};

use super::changes::Changes;
use crate::position::Position;

/// The longest time for which a committed write may be missing from a cached answer.
/// Four times the period of confirmation, so that one slow confirmation empties no cache.
pub const STALENESS_MAX: Duration = Duration::from_secs(2);

/// The known changes, and when they were last known to be complete.
#[derive(Debug)]
pub(super) struct View {
    epoch: i32,
    changes: Changes,
    confirmed_at: Option<Instant>,
}

/// What to do with a cached value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is current at the returned position: serve it.
    Serve(Position),
    /// The key has changed since it was read, or may have, or the log was restored from a
    /// backup since: read it again.
    Changed,
    /// The pod does not know what happened lately: read the database.
    Unconfirmed,
}

impl View {
    /// A view of the log of this epoch that is not confirmed yet, and so serves nothing.
    pub(super) fn new(epoch: i32, changes: Changes) -> Self {
        Self { epoch, changes, confirmed_at: None }
    }

    /// The epoch of the log that is followed.
    pub(super) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The known changes.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The known changes, to take in more.
    pub(super) fn changes_mut(&mut self) -> &mut Changes {
        &mut self.changes
    }

    /// Takes in that every write committed before `at` has a position of at most `head`.
    /// Counts only when the changes up to `head` are applied. Returns whether it counted.
    pub(super) fn confirm(&mut self, head: i64, at: Instant) -> bool {
        let complete = self.changes.applied() >= head;
        if complete && self.confirmed_at.is_none_or(|before| before < at) {
            self.confirmed_at = Some(at);
        }
        complete
    }

    /// Whether the caches may be used at all at `now`.
    pub(super) fn is_confirmed(&self, now: Instant) -> bool {
        self.confirmed_at.is_some_and(|at| now.saturating_duration_since(at) <= STALENESS_MAX)
    }

    /// What to do at `now` with a value of `key` that was read at `as_of`.
    pub(super) fn judge(&self, key: &str, as_of: Position, now: Instant) -> Verdict {
        if !self.is_confirmed(now) {
            Verdict::Unconfirmed
        } else if as_of.epoch == self.epoch && self.changes.admits(key, as_of.seq) {
            let seq = as_of.seq.max(self.changes.applied());
            Verdict::Serve(Position { epoch: self.epoch, seq })
        } else {
            Verdict::Changed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seq: i64) -> Position {
        Position { epoch: 1, seq }
    }

    #[test]
    fn a_view_serves_nothing_before_it_is_confirmed_and_nothing_after_the_bound() {
        let start = Instant::now();
        let mut view = View::new(1, Changes::starting_at(3, 8));
        assert_eq!(view.judge("user/a", at(3), start), Verdict::Unconfirmed);
        assert!(view.confirm(3, start));
        assert_eq!(view.judge("user/a", at(3), start + STALENESS_MAX), Verdict::Serve(at(3)));
        let late = start + STALENESS_MAX + Duration::from_millis(1);
        assert_eq!(view.judge("user/a", at(3), late), Verdict::Unconfirmed);
    }

    #[test]
    fn a_confirmation_of_a_head_that_is_not_applied_does_not_count() {
        let start = Instant::now();
        let mut view = View::new(1, Changes::starting_at(3, 8));
        assert!(!view.confirm(4, start));
        assert_eq!(view.judge("user/a", at(3), start), Verdict::Unconfirmed);
        view.changes_mut().change("user/a", 4);
        view.changes_mut().advance(4);
        assert!(view.confirm(4, start));
        assert_eq!(view.judge("user/a", at(3), start), Verdict::Changed);
        assert_eq!(view.judge("user/b", at(3), start), Verdict::Serve(at(4)));
    }

    #[test]
    fn a_value_of_another_epoch_is_never_served() {
        let start = Instant::now();
        let mut view = View::new(2, Changes::starting_at(3, 8));
        assert!(view.confirm(3, start));
        assert_eq!(view.judge("user/a", at(9), start), Verdict::Changed);
    }
}
