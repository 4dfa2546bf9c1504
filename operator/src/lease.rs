//! Leader election by a Lease: of several operators one works. It must never let two believe that they lead:
//! whoever cannot renew in time says so, and the process ends.
//!
//! As in Kubernetes' own client, the age of another's claim is measured on this process' clock from the moment the
//! claim was last seen to change, so that clocks that disagree do no harm.

use crate::error::chain;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::{Duration, Instant};

/// How long a claim stands without being renewed. The default of Kubernetes' own components.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews, and how often others look.
pub const RENEW_PERIOD: Duration = Duration::from_secs(3);
/// How long the holder goes on without a successful renewal: shorter than the claim, so that it ends first.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// One process' part in the election.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    seen: Option<Sighting>,
}

/// A claim as it was last seen to change.
struct Sighting {
    claim: Option<LeaseSpec>,
    at: Instant,
}

/// What a candidate does about the claim that stands.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Nobody holds it, or its holder let it lapse: claim it.
    Claim,
    /// It is ours: renew it.
    Renew,
    /// Another holds it.
    Wait,
}

impl Election {
    /// A candidate of the name `identity` for the Lease `name`.
    pub fn new(api: Api<Lease>, name: &str, identity: &str) -> Self {
        Self { api, name: name.to_owned(), identity: identity.to_owned(), seen: None }
    }

    /// Waits until this process leads. An API server that does not answer is waited for as well.
    pub async fn win(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(lease.name = self.name, error = chain(&error), "cannot read or write the lease");
                }
            }
            tokio::time::sleep(RENEW_PERIOD).await;
        }
    }

    /// Renews the claim for as long as that works; returns when this process may no longer think that it leads.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW_PERIOD).await;
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    tracing::error!(lease.name = self.name, "another process took the lease");
                    return;
                }
                Ok(Err(error)) => {
                    tracing::warn!(lease.name = self.name, error = chain(&error), "cannot renew the lease");
                }
                Err(_) => {}
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                tracing::error!(lease.name = self.name, "could not renew the lease in time");
                return;
            }
        }
    }

    /// Gives the claim up, so that the next process need not wait for it to lapse.
    pub async fn release(&mut self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else { return };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
        else {
            return;
        };
        spec.holder_identity = None;
        if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await {
            tracing::warn!(lease.name = self.name, error = chain(&error), "cannot release the lease");
        }
    }

    /// One look and, where it is due, one write. Whether this process leads now.
    async fn attempt(&mut self) -> Result<bool, Box<kube::Error>> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(claim(None, &self.identity, Timestamp::now())),
            };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        if self.seen.as_ref().is_none_or(|seen| seen.claim != lease.spec) {
            self.seen = Some(Sighting { claim: lease.spec.clone(), at: Instant::now() });
        }
        let unchanged = self.seen.as_ref().map_or(Duration::ZERO, |seen| seen.at.elapsed());
        match decide(lease.spec.as_ref(), &self.identity, unchanged) {
            Decision::Wait => Ok(false),
            Decision::Claim | Decision::Renew => {
                lease.spec = Some(claim(lease.spec.as_ref(), &self.identity, Timestamp::now()));
                // The resource version in `lease` makes this fail if anybody wrote since we looked.
                won(self.api.replace(&self.name, &PostParams::default(), &lease).await)
            }
        }
    }
}

fn won<T>(answer: Result<T, kube::Error>) -> Result<bool, Box<kube::Error>> {
    match answer {
        Ok(_) => Ok(true),
        // Another candidate was first.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(Box::new(error)),
    }
}

fn decide(standing: Option<&LeaseSpec>, identity: &str, unchanged: Duration) -> Decision {
    let holder = standing.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    let seconds = standing.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    match holder {
        None => Decision::Claim,
        Some(holder) if holder == identity => Decision::Renew,
        Some(_) if unchanged >= seconds.map_or(LEASE_DURATION, Duration::from_secs) => Decision::Claim,
        Some(_) => Decision::Wait,
    }
}

fn claim(standing: Option<&LeaseSpec>, identity: &str, now: Timestamp) -> LeaseSpec {
    let ours = standing.is_some_and(|spec| spec.holder_identity.as_deref() == Some(identity));
    let acquired = standing.filter(|_| ours).and_then(|spec| spec.acquire_time.clone());
    let transitions = standing.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if ours { transitions } else { transitions.saturating_add(1) }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(identity: &str) -> LeaseSpec {
        claim(None, identity, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_free_lease_is_claimed() {
        assert_eq!(decide(None, "a", Duration::ZERO), Decision::Claim);
        let released = LeaseSpec { holder_identity: None, ..held_by("b") };
        assert_eq!(decide(Some(&released), "a", Duration::ZERO), Decision::Claim);
        let emptied = LeaseSpec { holder_identity: Some(String::new()), ..held_by("b") };
        assert_eq!(decide(Some(&emptied), "a", Duration::ZERO), Decision::Claim);
    }

    #[test]
    fn the_holder_renews_however_long_ago_it_last_did() {
        assert_eq!(decide(Some(&held_by("a")), "a", Duration::ZERO), Decision::Renew);
        assert_eq!(decide(Some(&held_by("a")), "a", LEASE_DURATION * 2), Decision::Renew);
    }

    #[test]
    fn anothers_lease_is_left_alone_until_it_was_unchanged_for_its_duration() {
        let lease = held_by("b");
        assert_eq!(decide(Some(&lease), "a", LEASE_DURATION.saturating_sub(Duration::from_millis(1))), Decision::Wait);
        assert_eq!(decide(Some(&lease), "a", LEASE_DURATION), Decision::Claim);
        let patient = LeaseSpec { lease_duration_seconds: Some(60), ..lease };
        assert_eq!(decide(Some(&patient), "a", LEASE_DURATION), Decision::Wait);
    }

    #[test]
    fn a_renewal_keeps_when_it_was_acquired_and_a_takeover_counts_a_transition() {
        let later = Timestamp::from_second(100).expect("a valid time");
        let first = held_by("a");
        let renewed = claim(Some(&first), "a", later);
        assert_eq!(renewed.acquire_time, first.acquire_time);
        assert_eq!(renewed.lease_transitions, Some(1));
        let taken = claim(Some(&renewed), "b", later);
        assert_eq!(taken.acquire_time, Some(MicroTime(later)));
        assert_eq!(taken.lease_transitions, Some(2));
    }

    #[test]
    fn a_holder_that_cannot_renew_ends_before_another_may_claim() {
        assert!(RENEW_DEADLINE + RENEW_PERIOD < LEASE_DURATION);
    }
}
