//! A cached value: the record as it is sent, or the knowledge that there is none.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::position::Position;

/// What a read of the database gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The record as JSON; `None` when there is no such record.
    pub body: Option<Bytes>,
    /// The head of the log in the same snapshot.
    pub as_of: Position,
}

/// A value in a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) body: Option<Bytes>,
    pub(super) as_of: Position,
    /// When it was read from the database, by the clock of the pod that read it; for the
    /// `Age` header only, never for a decision.
    pub(super) read_at: Timestamp,
    /// How long the pod may keep it.
    pub(super) kept_for: Duration,
}

/// Bytes that an entry takes beside its body and key: the structs, the map, the queues.
const OVERHEAD_BYTES: usize = 256;

impl Held {
    /// What the entry costs, in bytes.
    pub(super) fn weight(&self, key: &str) -> u32 {
        let body = self.body.as_ref().map_or(0, Bytes::len);
        u32::try_from(key.len() + body + OVERHEAD_BYTES).unwrap_or(u32::MAX)
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The pod's own memory.
    Local,
    /// Redis.
    Shared,
    /// The database.
    Database,
}

impl Tier {
    /// The value of the `Nexus-Cache` header, and the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "l1",
            Self::Shared => "l2",
            Self::Database => "miss",
        }
    }
}
