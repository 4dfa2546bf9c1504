//! Decides whether a cached value may be served; pure, and the only place that decides it.
//!
//! A value carries `as_of`: the head of the log in the snapshot it was read in. It holds
//! every change up to `as_of`. So it is current at the position this pod has `applied`
//! exactly when the key has no change in `(as_of, applied]`.
//!
//! The memory of changes is bounded. When the oldest change is forgotten, its position
//! becomes the `floor`: of any key without a remembered change it is still known that
//! nothing changed in `(floor, applied]`, so a value from before the floor is refused and
//! one from at or after it is served. Forgetting costs a read, never the truth.
//!
//! The question is asked when a value is *served*, not only when it is stored. Hence it
//! does not matter how a value came into a cache, in which order, or from which pod: a
//! slow reader, a lost invalidation or an emptied Redis cannot make a stale value pass.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What this pod knows about the changes of cached keys, up to the position it has applied.
#[derive(Debug)]
pub(super) struct Changes {
    applied: i64,
    floor: i64,
    latest: HashMap<Arc<str>, i64>,
    order: VecDeque<(i64, Arc<str>)>,
    remembered_max: usize,
}

impl Changes {
    /// Starts at `position`, knowing of no change before it, and remembers at most
    /// `remembered_max` changes.
    pub(super) fn starting_at(position: i64, remembered_max: usize) -> Self {
        Self { applied: position, floor: position, latest: HashMap::new(), order: VecDeque::new(), remembered_max }
    }

    /// The position up to which every change is known.
    pub(super) fn applied(&self) -> i64 {
        self.applied
    }

    /// Takes in that `key` changed at `position`. Positions at or below `applied` were
    /// taken in before and change nothing.
    pub(super) fn change(&mut self, key: &str, position: i64) {
        if position <= self.applied {
            return;
        }
        // One copy of the key for both: the bound on changes is a bound on memory.
        let key: Arc<str> = key.into();
        self.latest.insert(Arc::clone(&key), position);
        self.order.push_back((position, key));
        while self.order.len() > self.remembered_max {
            self.forget_oldest();
        }
    }

    /// Takes in that every change up to `position` has been told through [`Self::change`].
    pub(super) fn advance(&mut self, position: i64) {
        self.applied = self.applied.max(position);
    }

    /// Takes in that the changes up to `position` cannot be known any more (retention has
    /// dropped them): only values from at or after it are current.
    pub(super) fn skip_to(&mut self, position: i64) {
        self.latest.clear();
        self.order.clear();
        self.floor = self.floor.max(position);
        self.applied = self.applied.max(position);
    }

    /// Whether a value read at `as_of` still holds every change of `key` up to `applied`.
    pub(super) fn admits(&self, key: &str, as_of: i64) -> bool {
        let changed = self.latest.get(key).copied().unwrap_or(self.floor);
        changed <= as_of
    }

    fn forget_oldest(&mut self) {
        let Some((position, key)) = self.order.pop_front() else {
            return;
        };
        self.floor = self.floor.max(position);
        if self.latest.get(&key) == Some(&position) {
            self.latest.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_from_before_the_change_is_refused_and_one_from_after_is_served() {
        let mut changes = Changes::starting_at(10, 8);
        changes.change("user/a", 12);
        changes.advance(12);
        assert!(!changes.admits("user/a", 11));
        assert!(changes.admits("user/a", 12));
        assert!(changes.admits("user/b", 10));
    }

    #[test]
    fn forgetting_a_change_refuses_what_it_can_no_longer_judge() {
        let mut changes = Changes::starting_at(0, 1);
        changes.change("user/a", 1);
        changes.change("user/b", 2);
        changes.advance(2);
        assert_eq!(changes.order.len(), 1);
        assert!(!changes.admits("user/a", 0), "changed at 1, which is forgotten");
        assert!(changes.admits("user/a", 1));
        assert!(!changes.admits("user/c", 0), "cannot be told apart from a changed one");
    }

    #[test]
    fn a_later_change_of_the_same_key_survives_the_forgetting_of_the_earlier() {
        let mut changes = Changes::starting_at(0, 2);
        for position in 1..=3 {
            changes.change("user/a", position);
        }
        changes.advance(3);
        assert!(!changes.admits("user/a", 2));
        assert!(changes.admits("user/a", 3));
    }

    #[test]
    fn skipping_refuses_every_value_from_before() {
        let mut changes = Changes::starting_at(5, 8);
        changes.skip_to(9);
        assert_eq!(changes.applied(), 9);
        assert!(!changes.admits("user/a", 8));
        assert!(changes.admits("user/a", 9));
    }
}
