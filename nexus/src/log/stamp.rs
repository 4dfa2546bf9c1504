//! Gives events their dense places in the log: those of the outbox, and those that are published at this pod.

use std::sync::Arc;

use jiff_sqlx::Timestamp;
use sqlx::PgConnection;

use super::event::{Attributes, Entry, NewEvent, texts};
use crate::events::{Audience, Registry};
use crate::position::Position;
use crate::traces::Delivery;

/// Most events of the outbox in one batch: one commit for many, yet short enough that a batch is never waited for long.
const OUTBOX_EVENTS_MAX: i64 = 1_000;

/// What became of an event that was given to `stamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has this place in the log.
    Stamped(Position),
    /// An event with this source and id was there before.
    Duplicate,
}

/// A batch that was committed.
#[derive(Debug, Default)]
pub(super) struct Stamped {
    pub(super) epoch: i32,
    /// The new entries of the log, in their order, without a hole.
    pub(super) entries: Vec<Arc<Entry>>,
    /// What became of the given events, in their order; nothing when they have to wait for older ones of the outbox.
    pub(super) outcomes: Option<Vec<Outcome>>,
}

// One statement, one transaction, one round trip.
//
// The head's row is locked, so that even two leaders cannot give one number twice; an idle log locks and writes
// nothing. Rows of the outbox become visible in commit order, which need not be the order of their numbers: whatever
// is visible now is stamped in the order of numbers, and a row that commits later comes later. Given events come after
// them: what is in the outbox was committed before they were asked for. Hence they wait while the outbox holds more
// than one batch. Keys are inserted in their own order, so that two writers with the same keys in different order wait
// for one another and do not deadlock.
const STAMP: &str = "
WITH place AS MATERIALIZED (
    SELECT epoch, seq FROM head WHERE cardinality($3::uuid[]) > 0 OR EXISTS (SELECT FROM outbox) FOR UPDATE
), taken AS (
    DELETE FROM outbox WHERE id = ANY (ARRAY(SELECT id FROM outbox ORDER BY id LIMIT $1))
    RETURNING id, key, type, subject, event, audience
), given AS MATERIALIZED (
    SELECT nextval('outbox_id') AS id, key, type, subject, event, string_to_array(audience, E'\\x1f') AS audience, number
    FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[]) WITH ORDINALITY
        AS row (key, type, subject, event, audience, number)
    WHERE (SELECT count(*) FROM taken) < $1
), fresh AS (
    INSERT INTO event_key (key, outbox_id) SELECT key, id FROM given ORDER BY key, number
    ON CONFLICT (key) DO NOTHING RETURNING outbox_id
), due AS (
    SELECT id, key, type, subject, event, audience, NULL::bigint AS number FROM taken
    UNION ALL
    SELECT id, key, type, subject, event::json, audience, number FROM given JOIN fresh ON fresh.outbox_id = given.id
), stamped AS (
    INSERT INTO log (seq, outbox_id, key, type, subject, event, audience)
    SELECT place.seq + row_number() OVER (ORDER BY number NULLS FIRST, id), id, key, type, subject, event, audience
    FROM due, place
    RETURNING seq, outbox_id, type, subject, event, audience, recorded_at
), let_in AS (
    INSERT INTO membership (person, room)
    SELECT DISTINCT person, room
    FROM stamped JOIN event_type USING (type) CROSS JOIN unnest(stamped.audience) person CROSS JOIN unnest(stamped.audience) room
    WHERE lets_in AND person LIKE 'user/%' AND room NOT LIKE 'user/%' AND room <> 'everyone'
    ON CONFLICT DO NOTHING
), moved AS (
    UPDATE head SET seq = (SELECT max(seq) FROM stamped) WHERE EXISTS (SELECT FROM stamped)
    RETURNING pg_notify($2, '')
)
SELECT place.epoch, stamped.seq, stamped.outbox_id, given.number, stamped.recorded_at,
    CASE WHEN given.number IS NULL THEN stamped.type ELSE '' END,
    CASE WHEN given.number IS NULL THEN stamped.subject ELSE '' END,
    CASE WHEN given.number IS NULL THEN array_to_string(stamped.audience, E'\\x1f') ELSE '' END,
    CASE WHEN given.number IS NULL THEN stamped.event::text ELSE '' END
FROM stamped FULL JOIN given ON given.id = stamped.outbox_id CROSS JOIN place ORDER BY stamped.seq";

/// Epoch, place, number in the outbox, number among the given, time of the batch; then type, subject, audience and text,
/// which are empty for a given event.
type Row = (i32, Option<i64>, Option<i64>, Option<i64>, Option<Timestamp>, String, String, String, String);

/// Stamps what the outbox holds and the given events, and notifies `channel` when the log grew.
pub(super) async fn stamp(
    connection: &mut PgConnection,
    registry: &Registry,
    channel: &str,
    given: &[NewEvent],
) -> Result<Stamped, sqlx::Error> {
    let keys: Vec<_> = given.iter().map(|event| event.key).collect();
    let types: Vec<_> = given.iter().map(|event| event.event_type.as_str()).collect();
    let subjects: Vec<_> = given.iter().map(|event| event.subject.as_str()).collect();
    let encoded: Vec<_> = given.iter().map(|event| event.encoded.as_str()).collect();
    let statement = sqlx::query_as(STAMP).bind(OUTBOX_EVENTS_MAX).bind(channel);
    let audiences: Vec<_> = given.iter().map(|event| event.audience.as_joined()).collect();
    let statement = statement.bind(keys).bind(types).bind(subjects).bind(encoded).bind(audiences);
    let rows: Vec<Row> = statement.fetch_all(connection).await?;
    Ok(read(registry, rows, given))
}

fn read(registry: &Registry, rows: Vec<Row>, events: &[NewEvent]) -> Stamped {
    let mut stamped = Stamped::default();
    let mut outcomes = vec![None; events.len()];
    for (epoch, seq, outbox_id, number, recorded_at, event_type, subject, audience, event) in rows {
        stamped.epoch = epoch;
        let given = number.and_then(|number| usize::try_from(number - 1).ok());
        if let Some(index) = given {
            let stamped = |seq| Outcome::Stamped(Position { epoch, seq });
            outcomes[index] = Some(seq.map_or(Outcome::Duplicate, stamped));
        }
        // A duplicate has none of them.
        let (Some(seq), Some(outbox_id), Some(recorded_at)) = (seq, outbox_id, recorded_at) else { continue };
        let (event_type, subject, audience, event) = match given.map(|index| &events[index]) {
            Some(event) => (&event.event_type, &event.subject, event.audience.clone(), &event.encoded),
            None => (&event_type, &subject, Audience::joined(audience), &event),
        };
        let (encoded, published) = texts(registry, event_type, event, Position { epoch, seq });
        stamped.entries.push(Arc::new(Entry {
            seq,
            outbox_id,
            event_type: event_type.as_str().into(),
            type_number: registry.number(event_type),
            subject: subject.as_str().into(),
            audience,
            recorded_at: recorded_at.to_jiff(),
            encoded,
            published,
            attributes: Attributes::default(),
            delivery: Delivery::default(),
        }));
    }
    stamped.outcomes = outcomes.into_iter().collect();
    stamped
}
