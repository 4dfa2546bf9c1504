//! Keeps a store that does not answer from slowing every read down: after a failure it is
//! left alone for a while, then one caller tries it again.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a store is left alone after a failure. One try a second costs one reader its
/// deadline and finds a store that came back soon enough.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Closed while the store answers; open for [`PAUSE`] after each failure.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    closed_after: Mutex<Option<Instant>>,
}

impl Circuit {
    /// Whether the caller may try the store at `now`. Of the callers that come after a
    /// pause only the first may, until [`Self::succeeded`].
    pub(crate) fn allows(&self, now: Instant) -> bool {
        let mut closed_after = self.lock();
        match *closed_after {
            None => true,
            Some(at) if now < at => false,
            Some(_) => {
                *closed_after = Some(now + PAUSE);
                true
            }
        }
    }

    /// The store answered. Returns whether it had been left alone.
    pub(crate) fn succeeded(&self) -> bool {
        self.lock().take().is_some()
    }

    /// The store did not answer. Returns whether it had been answering until now.
    pub(crate) fn failed(&self, now: Instant) -> bool {
        self.lock().replace(now + PAUSE).is_none()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.closed_after.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_one_caller_tries_again_and_its_success_lets_all_through() {
        let start = Instant::now();
        let circuit = Circuit::default();
        assert!(circuit.allows(start));
        assert!(circuit.failed(start));
        assert!(!circuit.allows(start + PAUSE / 2));
        assert!(circuit.allows(start + PAUSE));
        assert!(!circuit.allows(start + PAUSE), "the first one is still trying");
        assert!(circuit.succeeded());
        assert!(circuit.allows(start + PAUSE));
        assert!(!circuit.succeeded());
    }
}
