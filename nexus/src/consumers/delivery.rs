//! What was taken from the log for one consumer: an event, or the statement that retention has dropped some.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};
use uuid::Uuid;

use super::store::Consumer;
use crate::events::Registry;
use crate::log::event::with_position;
use crate::position::Position;

/// One delivery.
#[derive(Debug)]
pub struct Delivery {
    /// Its place in the log.
    pub position: Position,
    /// What is delivered.
    pub content: Content,
    /// Leases given so far, this one included.
    pub attempts: i32,
    /// The lease, while there is one.
    pub lease: Option<Lease>,
    /// When the lease ends.
    pub leased_until: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When it became a dead letter.
    pub dead_at: Option<Timestamp>,
}

/// What is delivered.
#[derive(Debug)]
pub enum Content {
    /// An event.
    Event {
        /// By this the log knows it: the same at every attempt, and for every consumer.
        key: Uuid,
        /// The `CloudEvent` as JSON, as it was published.
        event: String,
    },
    /// Retention has dropped everything after this place, up to and with that of the delivery, before it was taken.
    Gap {
        /// The last place before the gap.
        from: Position,
    },
}

/// The right to acknowledge one delivery: it ends when another lease is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Number of the entry.
    pub seq: i64,
    /// Random: nobody else can name it.
    pub secret: Uuid,
}

impl std::fmt::Display for Lease {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}-{}", self.seq, self.secret.simple())
    }
}

impl std::str::FromStr for Lease {
    type Err = ParseLease;

    fn from_str(token: &str) -> Result<Self, ParseLease> {
        let (seq, secret) = token.split_once('-').ok_or(ParseLease)?;
        let seq = seq.parse().map_err(|_| ParseLease)?;
        Ok(Self { seq, secret: Uuid::try_parse(secret).map_err(|_| ParseLease)? })
    }
}

/// A token that is not a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a lease is a token that a delivery came with")]
pub struct ParseLease;

impl Consumer {
    /// An event as this consumer is given it: with the extension attribute `position`, in the version that it asks for or
    /// the current one, but in none before that it was published in.
    pub fn text(&self, registry: &Registry, event: &str, position: Position) -> Bytes {
        let brought = || {
            let Typed { event_type } = serde_json::from_str(event).ok()?;
            let definition = registry.get(&event_type)?;
            let version = self.settings.versions.get(&*event_type).unwrap_or(&definition.version);
            definition.upcast(event.as_bytes(), *version)
        };
        with_position(brought().as_deref().unwrap_or(event), position)
    }
}

/// What an event says of its type.
#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
}

impl FromRow<'_, PgRow> for Delivery {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let position = Position { epoch: row.try_get("epoch")?, seq: row.try_get("seq")? };
        let time = |name: &str| -> Result<Option<Timestamp>, sqlx::Error> {
            Ok(row.try_get::<Option<jiff_sqlx::Timestamp>, _>(name)?.map(jiff_sqlx::Timestamp::to_jiff))
        };
        let content = match row.try_get::<Option<i64>, _>("gap_from")? {
            Some(seq) => Content::Gap { from: Position { seq, ..position } },
            None => Content::Event { key: row.try_get("key")?, event: row.try_get("event")? },
        };
        let secret: Option<Uuid> = row.try_get("lease")?;
        Ok(Self {
            position,
            content,
            attempts: row.try_get("attempts")?,
            lease: secret.map(|secret| Lease { seq: position.seq, secret }),
            leased_until: time("leased_until")?,
            last_error: row.try_get("last_error")?,
            dead_at: time("dead_at")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_survives_its_token() {
        let lease = Lease { seq: 4_711, secret: Uuid::from_u128(7) };
        assert_eq!(lease.to_string(), "4711-00000000000000000000000000000007");
        assert_eq!(lease.to_string().parse(), Ok(lease));
        for token in ["", "-", "1", "1-", "-1-7", "a-00000000000000000000000000000007", "1-7"] {
            assert_eq!(token.parse::<Lease>(), Err(ParseLease), "{token}");
        }
    }
}
