//! Runs visits: one whenever a layer, or something of it, changed, and one every so often. Which change it was is never
//! used, so a missed watch event and a restart behave alike.

mod run;
mod visit;

pub use run::run;

use crate::error::Error;
use crate::names;
use kube::runtime::controller::Action;
use std::time::Duration;

/// The pause before the next look at a layer that is not ready. Most of what is waited for wakes a visit by itself;
/// this is for what only a question to a database tells.
const UNREADY_PERIOD: Duration = Duration::from_secs(3);
/// The pause before the next look at a steady layer.
const STEADY_PERIOD: Duration = Duration::from_secs(30);
/// The pause after a first failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const BACKOFF_LAST: Duration = Duration::from_mins(5);

/// The pause after `failures` failed visits in a row: from one second to five minutes, with up to a fifth more by
/// chance (`jitter` is from 0 to 1), so that layers that failed together do not come back together.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(BACKOFF_LAST).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 5.0)
}

/// When a visit is to be repeated, from how it ended.
fn next(outcome: &Result<visit::Outcome, Error>, failures: u32, jitter: f64) -> Action {
    match outcome {
        Ok(visit::Outcome::Steady) => Action::requeue(STEADY_PERIOD.mul_f64(1.0 + jitter / 5.0)),
        Ok(visit::Outcome::Unready) => Action::requeue(UNREADY_PERIOD),
        // Only a change of the user can mend it, and that wakes a visit.
        Ok(visit::Outcome::Refused | visit::Outcome::Gone) => Action::await_change(),
        Err(_) => Action::requeue(backoff(failures, jitter)),
    }
}

/// The name of the Lease that decides which operator works.
const LEASE: &str = names::FIELD_MANAGER;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_from_a_second_to_five_minutes() {
        let seconds: Vec<u64> = (1..=12).map(|failures| backoff(failures, 0.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    }

    #[test]
    fn chance_adds_a_fifth_at_most() {
        assert_eq!(backoff(4, 1.0), Duration::from_millis(9600));
        assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_LAST.mul_f64(1.2));
    }
}
