//! Memory for what clients have begun to send and nobody has worked off: heads and bodies of requests, messages on
//! sockets. Each of them is bounded; this bounds all of a pod together, for nobody has to show a token to begin. Whoever
//! would take more than is left is refused. A little is everybody's own, so that small requests and commands always pass.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Bytes that every connection may hold whatever the others do: a token and what surrounds it, a command.
const OWN_BYTES: usize = 4 * 1024;

/// The memory of this pod; cheap to clone.
#[derive(Clone, Debug)]
pub struct Unfinished(Arc<Memory>);

#[derive(Debug)]
struct Memory {
    /// Above what is everybody's own.
    bytes: Gauge,
    refused: Counter,
    bytes_max: usize,
}

/// What one connection or request holds of it, until this is dropped.
#[derive(Debug)]
pub struct Share {
    of: Unfinished,
    bytes: usize,
}

impl Unfinished {
    /// So much, all of it free; counts what is held, and how often somebody was refused.
    pub fn new(bytes_max: usize, bytes: Gauge, refused: Counter) -> Self {
        Self(Arc::new(Memory { bytes, refused, bytes_max }))
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
        let Memory { bytes: all, refused, bytes_max } = &*self.of.0;
        let (before, after) = (shared(self.bytes), shared(bytes));
        if after > before && all.inc_by(after - before) + after - before > count(*bytes_max) {
            all.dec_by(after - before);
            refused.inc();
            return false;
        }
        if after < before {
            all.dec_by(before - after);
        }
        self.bytes = bytes;
        true
    }

    /// Holds so many more.
    #[must_use]
    pub fn hold_more(&mut self, bytes: usize) -> bool {
        self.hold(self.bytes.saturating_add(bytes))
    }

    /// Holds nothing any more.
    pub fn release(&mut self) {
        self.of.0.bytes.dec_by(shared(self.bytes));
        self.bytes = 0;
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
            let unfinished = Unfinished::new(BYTES_MAX, bytes.clone(), refused.clone());
            let mut shares: Vec<Share> = (0..8).map(|_| unfinished.share()).collect();
            let mut held = [0; 8];
            let mut refusals = 0;
            for (of, wanted) in asked {
                let others: i64 = (0..8).filter(|one| *one != of).map(|one| shared(held[one])).sum();
                let fits = others + shared(wanted) <= count(BYTES_MAX);
                prop_assert_eq!(shares[of].hold(wanted), fits || shared(wanted) <= shared(held[of]));
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
        let unfinished = Unfinished::new(BYTES_MAX, Gauge::default(), Counter::default());
        let (mut greedy, mut small) = (unfinished.share(), unfinished.share());
        assert!(greedy.hold(BYTES_MAX + OWN_BYTES));
        assert!(small.hold(OWN_BYTES) && !small.hold_more(1));
        greedy.release();
        assert!(small.hold_more(1));
    }
}
