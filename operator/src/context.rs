//! What a visit works with: the client, the settings, the metrics, and what this process remembers between visits.
//! The memory only spares work: without it everything still comes out the same.

use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::reconcile::apply::Applied;
use crate::settings::Surroundings;
use kube::Client;
use kube::runtime::events::Recorder;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// What a visit works with.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What every plan takes into account beside the resource.
    pub surroundings: Surroundings,
    /// What is counted.
    pub metrics: Metrics,
    /// Publishes Events.
    pub recorder: Recorder,
    /// What was applied last.
    pub applied: AppliedObjects,
    /// Failed visits in a row.
    pub failures: Failures,
    /// Layers that are known, and whether they are Ready.
    pub known: Known,
}

impl Context {
    /// Randomness for one plan.
    pub fn entropy(&self) -> Entropy {
        Entropy::draw()
    }

    /// The time, for one status.
    pub fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// What was applied last, by object.
#[derive(Debug, Default)]
pub struct AppliedObjects(Mutex<HashMap<String, Applied>>);

impl AppliedObjects {
    /// What was applied under `key`.
    pub fn get(&self, key: &str) -> Option<Applied> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Remembers what was applied under `key`.
    pub fn set(&self, key: String, applied: Applied) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, applied);
    }

    /// Forgets everything of a layer.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| !key.starts_with(uid));
    }
}

/// Failed visits in a row, by layer.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<String, u32>>);

impl Failures {
    /// One more; how many there are now.
    pub fn add(&self, layer: &str) -> u32 {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(layer.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        *count
    }

    /// None any more.
    pub fn clear(&self, layer: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(layer);
    }
}

/// Layers that are known, and whether they are Ready; for the gauges.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<String, bool>>);

impl Known {
    /// Notes a layer, or with `None` that it is gone; how many there are, and how many are Ready.
    pub fn note(&self, layer: &str, ready: Option<bool>) -> (i64, i64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match ready {
            Some(ready) => known.insert(layer.to_owned(), ready),
            None => known.remove(layer),
        };
        let ready = known.values().filter(|ready| **ready).count();
        (i64::try_from(known.len()).unwrap_or(i64::MAX), i64::try_from(ready).unwrap_or(i64::MAX))
    }
}
