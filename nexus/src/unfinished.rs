//! Memory for what clients have begun to send and nobody has worked off: heads and bodies of requests, messages on
//! sockets. Each of them is bounded; this bounds them together, for nobody has to show a token to begin. Whoever would
//! take more than is left is refused. A little is everybody's own, so that small requests and commands always pass.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::{Metrics, UnfinishedOf};

/// Bytes that every connection may hold whatever the others do: a token and what surrounds it, a command.
const OWN_BYTES: usize = 4 * 1024;

/// The memory of this pod. Whoever has shown no token cannot use up what is there for those who have.
#[derive(Debug)]
pub struct Unfinished {
    /// For those who have shown no token, or not yet.
    pub strangers: Memory,
    /// For those who have.
    pub callers: Memory,
}

/// Some memory; cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    /// Above what is everybody's own.
    held: Gauge,
    max: usize,
    refused: Counter,
}

/// What one connection or request holds of it, until this is dropped.
#[derive(Debug)]
pub struct Share {
    of: Memory,
    bytes: usize,
}

impl Unfinished {
    /// So much of each, all of it free.
    pub fn new(bytes_max: usize, metrics: &Metrics) -> Self {
        let memory = |of| {
            let held = metrics.unfinished_bytes.get_or_create(&UnfinishedOf { of }).clone();
            let refused = metrics.unfinished_refused.get_or_create(&UnfinishedOf { of }).clone();
            Memory::new(bytes_max, held, refused)
        };
        Self { strangers: memory("strangers"), callers: memory("callers") }
    }
}

impl Memory {
    fn new(max: usize, held: Gauge, refused: Counter) -> Self {
        Self(Arc::new(Bound { held, max, refused }))
    }

    /// Nothing yet.
    pub fn share(&self) -> Share {
        Share { of: self.clone(), bytes: 0 }
    }
}

impl Share {
    /// Holds so many bytes in place of those that it held. Less is always granted; when more is refused, it holds what it
    /// did.
    #[must_use]
    pub fn hold(&mut self, bytes: usize) -> bool {
        let Bound { held, max, refused } = &*self.of.0;
        let (before, after) = (shared(self.bytes), shared(bytes));
        if after > before && held.inc_by(after - before) + after - before > count(*max) {
            held.dec_by(after - before);
            refused.inc();
            return false;
        }
        if after < before {
            held.dec_by(before - after);
        }
        self.bytes = bytes;
        true
    }

    /// The same of this memory, whichever it was of.
    #[must_use]
    pub fn hold_of(&mut self, memory: &Memory, bytes: usize) -> bool {
        if Arc::ptr_eq(&self.of.0, &memory.0) {
            return self.hold(bytes);
        }
        let mut share = memory.share();
        let is_held = share.hold(bytes);
        if is_held {
            *self = share;
        }
        is_held
    }

    /// Holds so many more.
    #[must_use]
    pub fn hold_more(&mut self, bytes: usize) -> bool {
        self.hold(self.bytes.saturating_add(bytes))
    }

    /// Holds nothing any more.
    pub fn release(&mut self) {
        self.of.0.held.dec_by(shared(self.bytes));
        self.bytes = 0;
    }
}

#[cfg(test)]
impl Default for Share {
    /// Of memory that never ends.
    fn default() -> Self {
        Memory::new(usize::MAX, Gauge::default(), Counter::default()).share()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

/// What of it counts.
fn shared(bytes: usize) -> i64 {
    count(bytes.saturating_sub(OWN_BYTES))
}

/// No memory has more bytes than half of what the type counts, so no sum of two overflows.
fn count(bytes: usize) -> i64 {
    i64::try_from(bytes).map_or(i64::MAX / 2, |bytes| bytes.min(i64::MAX / 2))
}

#[cfg(test)]
mod laws {
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: usize = 100_000;

    proptest! {
        #[test]
        fn no_more_is_held_than_there_is_and_nothing_is_left(
            asked in prop::collection::vec((0..8_usize, prop_oneof![0..2 * OWN_BYTES, 0..BYTES_MAX * 2]), 1..60)
        ) {
            let (bytes, refused) = (Gauge::default(), Counter::default());
            let memory = Memory::new(BYTES_MAX, bytes.clone(), refused.clone());
            let mut shares: Vec<Share> = (0..8).map(|_| memory.share()).collect();
            let mut held = [0; 8];
            let mut refusals = 0;
            for (of, wanted) in asked {
                let others: i64 = (0..8).filter(|one| *one != of).map(|one| shared(held[one])).sum();
                let fits = others + shared(wanted) <= count(BYTES_MAX);
                prop_assert_eq!(shares[of].hold(wanted), fits);
                if fits {
                    held[of] = wanted;
                } else {
                    refusals += 1;
                }
                prop_assert_eq!(bytes.get(), held.iter().map(|bytes| shared(*bytes)).sum::<i64>());
                prop_assert!(bytes.get() <= count(BYTES_MAX));
            }
            prop_assert_eq!(refused.get(), refusals);
            drop(shares);
            prop_assert_eq!(bytes.get(), 0);
        }
    }

    #[test]
    fn what_is_everybodys_own_is_granted_when_all_else_is_held() {
        let memory = Memory::new(BYTES_MAX, Gauge::default(), Counter::default());
        let (mut greedy, mut small) = (memory.share(), memory.share());
        assert!(greedy.hold(BYTES_MAX + OWN_BYTES));
        assert!(small.hold(OWN_BYTES) && !small.hold_more(1));
        greedy.release();
        assert!(small.hold_more(1));
    }

    #[test]
    fn a_share_of_other_memory_leaves_the_first_free() {
        let held = [Gauge::default(), Gauge::default()];
        let [one, two] = held.each_ref().map(|held| Memory::new(BYTES_MAX, held.clone(), Counter::default()));
        let mut share = one.share();
        assert!(share.hold(2 * OWN_BYTES) && share.hold_of(&two, 3 * OWN_BYTES));
        assert_eq!(held.each_ref().map(Gauge::get), [0, count(2 * OWN_BYTES)]);
        assert!(!share.hold_of(&one, BYTES_MAX + OWN_BYTES + 1));
        assert_eq!(held.each_ref().map(Gauge::get), [0, count(2 * OWN_BYTES)]);
    }
}
