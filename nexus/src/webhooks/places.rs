//! The places of a pod: how many attempts each webhook may have under way, so that receivers that do not answer leave
//! room for the others. Knows nothing of the database, and never makes anybody wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places of this pod; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Places {
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Of them, those of webhooks that fail.
    probes: usize,
    owners: HashMap<String, usize>,
}

/// Room for one attempt, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    owner: String,
    is_probe: bool,
}

impl Places {
    /// So many, all of them free.
    pub(super) fn new(most: u16) -> Self {
        Self { most: usize::from(most), taken: Arc::default() }
    }

    /// How many attempts a webhook of this owner may have under way as things are. With half of the places taken by such it is
    /// one, so that many webhooks whose receivers fall silent together do not take them all. While a webhook fails it is
    /// one as well, and half of the places at most: the others stay free of those known to be slow. The last eighth is for
    /// owners that have nothing under way.
    pub(super) fn share(&self, owner: &str, is_probe: bool) -> usize {
        let taken = self.taken();
        let kept = if taken.owners.contains_key(owner) { self.most / 8 } else { 0 };
        let free = self.most.saturating_sub(taken.all + kept);
        let share = if is_probe {
            usize::from(taken.probes < self.most.div_ceil(2))
        } else {
            (self.most / 2).saturating_sub(taken.all - taken.probes + kept).max(1)
        };
        share.min(free)
    }

    /// Takes a place.
    pub(super) fn take(&self, owner: &str, is_probe: bool) -> Place {
        let mut taken = self.taken();
        taken.all += 1;
        taken.probes += usize::from(is_probe);
        *taken.owners.entry(owner.to_owned()).or_default() += 1;
        Place { places: self.clone(), owner: owner.to_owned(), is_probe }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Numbers are whole at any time.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        taken.probes -= usize::from(self.is_probe);
        if let Some(count) = taken.owners.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                taken.owners.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes for a webhook, which is tried for the first time, what it may.
    fn begin(places: &Places, owner: &str, is_probe: bool) -> Vec<Place> {
        let count = places.share(owner, is_probe).min(8);
        (0..count).map(|_| places.take(owner, is_probe)).collect()
    }

    #[test]
    fn with_half_of_the_places_taken_each_webhook_has_one() {
        let places = Places::new(64);
        let begun: Vec<Vec<Place>> = (0..60).map(|_| begin(&places, "ann", false)).collect();
        let counts: Vec<usize> = begun.iter().map(Vec::len).collect();
        assert_eq!(counts[..4], [8, 8, 8, 1]);
        assert_eq!(counts.iter().filter(|count| **count == 1).count(), 32);
        assert_eq!(counts[35..], [0; 25], "the last eighth is for others");
        assert_eq!((places.share("bob", false), places.share("ann", false)), (1, 0));
    }

    #[test]
    fn those_that_fail_have_half_of_the_places_and_one_each() {
        let places = Places::new(64);
        let owners: Vec<String> = (0..60).map(|number| format!("owner-{number}")).collect();
        let probes: Vec<Place> = owners.iter().flat_map(|owner| begin(&places, owner, true)).collect();
        assert_eq!(probes.len(), 32);
        assert_eq!((places.share("new", true), places.share("new", false)), (0, 32));
    }

    #[test]
    fn those_that_fail_leave_to_the_others_what_they_had() {
        let places = Places::new(64);
        let probes: Vec<Place> = (0..24).flat_map(|_| begin(&places, "ann", true)).collect();
        assert_eq!(probes.len(), 24);
        assert_eq!((begin(&places, "ann", false).len(), begin(&places, "bob", false).len()), (8, 8));
    }

    #[test]
    fn what_is_dropped_is_free_again() {
        for most in 1..=20 {
            let places = Places::new(most);
            for is_probe in [false, true] {
                let begun = begin(&places, "ann", is_probe);
                assert!(!begun.is_empty(), "{most}");
                drop(begun);
            }
            let taken = places.taken();
            assert_eq!((taken.all, taken.probes, taken.owners.len()), (0, 0, 0));
        }
    }
}
