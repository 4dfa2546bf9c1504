//! The bounds of one connection.

use std::time::Duration;

use rand::RngExt;

use crate::config::Config;

/// Bounds of one connection, from the settings; their reasons stand there.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest frame that a client may send, in bytes.
    pub frame_bytes_max: usize,
    /// How long a client may stay unauthenticated.
    pub authentication: Duration,
    /// Time between two pings.
    pub heartbeat: Duration,
    /// How long a client may take nothing at all.
    pub send: Duration,
    /// The window over which clients come back when a pod stops.
    pub drain: Duration,
}

impl Limits {
    /// The bounds that the settings ask for.
    pub fn of(config: &Config) -> Self {
        Self {
            frame_bytes_max: config.limits.frame_bytes_max,
            authentication: Duration::from_secs(config.stream.authentication_seconds),
            heartbeat: Duration::from_secs(config.stream.heartbeat_seconds),
            send: Duration::from_secs(config.stream.send_seconds),
            drain: Duration::from_secs(config.limits.drain_seconds),
        }
    }

    /// When a client of a pod that stops should come back, in milliseconds from now: somewhere in the window.
    pub(crate) fn delay_of_return(&self) -> u64 {
        let window = u64::try_from(self.drain.as_millis()).unwrap_or(u64::MAX);
        rand::rng().random_range(0..=window)
    }
}

/// Subscriptions of one connection. A screen shows a few things; a service takes patterns.
pub(super) const SUBSCRIPTIONS_MAX: usize = 32;

/// Patterns of one subscription: as many as there are event types.
pub(super) const PATTERNS_MAX: usize = 16;

/// Attributes of one subscription. Each costs a comparison per event.
pub(super) const ATTRIBUTES_MAX: usize = 8;

/// Subjects of one subscription or one look into the history.
pub(super) const SUBJECTS_MAX: usize = 128;
