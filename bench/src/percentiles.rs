//! Percentiles of measured durations, by nearest rank: a figure that occurred, never one in between.

use serde::Serialize;
use std::time::Duration;

/// The distribution of some durations, in milliseconds.
#[derive(Serialize)]
#[allow(clippy::struct_field_names)] // The unit belongs into each name, in JSON above all.
pub(crate) struct Percentiles {
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Percentiles {
    /// Of the given durations; none of an empty list.
    pub(crate) fn of(mut durations: Vec<Duration>) -> Option<Self> {
        durations.sort_unstable();
        let at = |percent: usize| {
            let rank = (durations.len() * percent).div_ceil(100).max(1);
            durations.get(rank - 1).map(|duration| duration.as_secs_f64() * 1_000.0)
        };
        Some(Self { p50_ms: at(50)?, p95_ms: at(95)?, p99_ms: at(99)?, max_ms: at(100)? })
    }
}
