//! Puts events into the outbox, inside the caller's transaction. Idempotent on source and id.

use std::collections::HashMap;

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::event::NewEvent;

/// Where an event stands after it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number in the outbox; of the first one when it is a duplicate.
    pub outbox_id: i64,
    /// Whether an event with this source and id was there before.
    pub duplicate: bool,
}

/// Why events could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendEvents {
    /// The statement failed.
    #[error("insert into the outbox")]
    InsertOutbox(#[source] sqlx::Error),
    /// The first event of a duplicate was dropped by retention between two statements.
    #[error("find the first event of a duplicate")]
    FindOriginal,
}

/// Appends one event and returns its number in the outbox.
/// Called last in a transaction, with the record's row lock held: then the order of numbers within a subject is the
/// order of commits.
pub async fn append(connection: &mut PgConnection, event: &NewEvent) -> Result<i64, AppendEvents> {
    let appended = append_all(connection, std::slice::from_ref(event)).await?;
    appended.first().map(|appended| appended.outbox_id).ok_or(AppendEvents::FindOriginal)
}

// Numbers are drawn in the order given; keys are inserted in their own order, so that two writers with the same
// keys in different order wait for one another and do not deadlock.
const APPEND: &str = "
WITH given AS MATERIALIZED (
    SELECT nextval('outbox_id') AS id, key, type, subject, event, audience, place
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
        AS row (key, type, subject, event, audience, place)
), fresh AS (
    INSERT INTO event_key (key, outbox_id) SELECT key, id FROM given ORDER BY key, place
    ON CONFLICT (key) DO NOTHING RETURNING outbox_id
), queued AS (
    INSERT INTO outbox (id, key, type, subject, event, audience)
    SELECT id, key, type, subject, event::json, string_to_array(audience, E'\\x1f') FROM given JOIN fresh ON fresh.outbox_id = given.id
)
SELECT id, fresh.outbox_id IS NULL AS duplicate
FROM given LEFT JOIN fresh ON fresh.outbox_id = given.id ORDER BY place";

/// Appends events in order, in one statement; answers in the same order.
pub async fn append_all(connection: &mut PgConnection, events: &[NewEvent]) -> Result<Vec<Appended>, AppendEvents> {
    let keys: Vec<Uuid> = events.iter().map(|event| event.key).collect();
    let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
    let subjects: Vec<&str> = events.iter().map(|event| event.subject.as_str()).collect();
    let encoded: Vec<&str> = events.iter().map(|event| event.encoded.as_str()).collect();
    let audiences: Vec<&str> = events.iter().map(|event| event.audience.as_joined()).collect();
    let statement = sqlx::query(APPEND).bind(&keys).bind(&types).bind(&subjects).bind(&encoded).bind(&audiences);
    let rows = statement.fetch_all(&mut *connection).await.map_err(AppendEvents::InsertOutbox)?;
    let mut appended = Vec::with_capacity(rows.len());
    for row in rows {
        let outbox_id = row.try_get("id").map_err(AppendEvents::InsertOutbox)?;
        let duplicate = row.try_get("duplicate").map_err(AppendEvents::InsertOutbox)?;
        appended.push(Appended { outbox_id, duplicate });
    }
    if appended.iter().any(|appended| appended.duplicate) {
        point_to_originals(connection, &keys, &mut appended).await?;
    }
    Ok(appended)
}

async fn point_to_originals(
    connection: &mut PgConnection,
    keys: &[Uuid],
    appended: &mut [Appended],
) -> Result<(), AppendEvents> {
    let duplicates = keys.iter().zip(&*appended).filter(|(_, appended)| appended.duplicate);
    let duplicates: Vec<Uuid> = duplicates.map(|(key, _)| *key).collect();
    let originals = originals(connection, &duplicates).await?;
    let duplicates = appended.iter_mut().filter(|appended| appended.duplicate);
    duplicates.zip(originals).for_each(|(appended, original)| appended.outbox_id = original);
    Ok(())
}

/// The numbers in the outbox of the first events with these keys, in the order of the keys. A statement of its own,
/// because it must see rows that another transaction committed during the one that found the duplicates.
pub(super) async fn originals(connection: &mut PgConnection, keys: &[Uuid]) -> Result<Vec<i64>, AppendEvents> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as("SELECT key, outbox_id FROM event_key WHERE key = ANY($1)")
        .bind(keys)
        .fetch_all(connection)
        .await
        .map_err(AppendEvents::InsertOutbox)?;
    let originals: HashMap<Uuid, i64> = rows.into_iter().collect();
    let original = |key| originals.get(key).copied().ok_or(AppendEvents::FindOriginal);
    keys.iter().map(original).collect()
}
