//! Gives events their dense places in the log: those of the outbox, and those that are published at this pod.

use std::sync::Arc;
use std::time::Duration;

use jiff_sqlx::Timestamp;
use sqlx::PgConnection;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;
use tokio::time::Instant;
use uuid::Uuid;

use super::event::{Attributes, Entry, NewEvent, texts, unqueued};
use super::queue::Group;
use crate::events::{Audience, Registry};
use crate::position::Position;
use crate::traces::Delivery;

/// Most events of the outbox in one batch: one commit for many, yet short enough that a batch is never waited for long.
const OUTBOX_EVENTS_MAX: i64 = 1_000;
/// Bytes of their text after which a batch takes no further one: whatever is published, a batch ends
/// within its deadline and fits into a small pod's memory.
const OUTBOX_BYTES_MAX: i64 = 4 * 1024 * 1024;

/// How long, after a batch held an event that was there before, every batch is looked through for such.
const DUPLICATES_PERIOD: Duration = Duration::from_secs(10);

/// What Postgres calls a second row of a key.
pub(super) const UNIQUE_VIOLATION: &str = "23505";

/// What became of an event that was given to `stamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has this place in the log.
    Stamped(Position),
    /// An event with this source and id was there before.
    Duplicate,
}

/// A batch that was committed, as Postgres answered.
#[derive(Debug)]
pub(super) enum Committed {
    /// The given events, and nothing else, follow this head.
    New { head: Position, recorded_at: Timestamp },
    /// What was stamped, and what became of the given events.
    Each(Vec<Row>),
}

/// A batch that was committed.
#[derive(Debug, Default)]
pub(super) struct Stamped {
    pub(super) epoch: i32,
    /// The new entries of the log, in their order, without a hole.
    pub(super) entries: Vec<Arc<Entry>>,
    /// What became of the given events, in their order; fewer when they have to wait for older ones of the outbox.
    pub(super) outcomes: Vec<Outcome>,
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
    DELETE FROM outbox WHERE id = ANY (ARRAY(
        SELECT id FROM (
            SELECT id, sum(bytes) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) - bytes
            FROM (SELECT id, octet_length(event::text) AS bytes FROM outbox ORDER BY id LIMIT $1) AS sized
        ) AS oldest (id, bytes_before) WHERE bytes_before < $8))
    RETURNING id, key, type, subject, event, audience, octet_length(event::text) AS bytes
), given AS MATERIALIZED (
    SELECT nextval('outbox_id') AS id, key, type, subject, event, string_to_array(audience, E'\\x1f') AS audience, number
    FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[]) WITH ORDINALITY
        AS row (key, type, subject, event, audience, number)
    WHERE (SELECT count(*) < $1 AND coalesce(sum(bytes), 0) < $8 FROM taken)
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

// Writes the given events after `place`, in the parameters from the second on.
macro_rules! written {
    () => {
        "keyed AS (
            INSERT INTO event_key (key, outbox_id)
            SELECT key, -(place.seq + number)
            FROM place, unnest($2::uuid[]) WITH ORDINALITY AS given (key, number) ORDER BY key
        ), stamped AS (
            INSERT INTO log (seq, outbox_id, key, type, subject, event, audience)
            SELECT place.seq + number, -(place.seq + number), key, type, subject, event::json,
                string_to_array(audience, E'\\x1f')
            FROM place, unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[]) WITH ORDINALITY
                AS given (key, type, subject, event, audience, number)
        )"
    };
}

// The same for what is nearly always so: the outbox is empty, and every event is new. Places then follow from the head
// alone, nothing but the head comes back, and a key that is there already refuses the whole.
const STAMP_NEW: &str = concat!(
    "WITH place AS MATERIALIZED (
        SELECT epoch, seq FROM head WHERE NOT EXISTS (SELECT FROM outbox) FOR UPDATE
    ), ",
    written!(),
    ", let_in AS (
        INSERT INTO membership (person, room)
        SELECT DISTINCT person, room
        FROM place, unnest($3::text[], $6::text[]) AS given (type, audience) JOIN event_type USING (type)
            CROSS JOIN unnest(string_to_array(given.audience, E'\\x1f')) person
            CROSS JOIN unnest(string_to_array(given.audience, E'\\x1f')) room
        WHERE lets_in AND person LIKE 'user/%' AND room NOT LIKE 'user/%' AND room <> 'everyone'
        ON CONFLICT DO NOTHING
    ), moved AS (
        UPDATE head SET seq = place.seq + cardinality($2) FROM place RETURNING pg_notify($1, '')
    )
    SELECT place.epoch, place.seq, now() FROM place, moved"
);

// The same after a head that there will be. The caller has seen to it that nobody is let in.
const WRITE: &str = concat!("WITH place AS MATERIALIZED (SELECT $1::bigint AS seq), ", written!(), " SELECT now()");

/// Epoch, place, number in the outbox, number among the given, time of the batch; then type, subject, audience and text,
/// which are empty for a given event.
pub(super) type Row = (i32, Option<i64>, Option<i64>, Option<i64>, Option<Timestamp>, String, String, String, String);

/// Stamps, over one connection.
#[derive(Debug)]
pub(super) struct Stamper {
    /// Until then batches may hold events that were there before.
    duplicates_until: Option<Instant>,
    /// Most events of the outbox in the next batch: fewer while one is looked for that the log cannot take.
    outbox_max: i64,
    /// The oldest event of the outbox, before it was tried alone.
    alone: Option<i64>,
}

impl Default for Stamper {
    fn default() -> Self {
        Self { duplicates_until: None, outbox_max: OUTBOX_EVENTS_MAX, alone: None }
    }
}

/// Whether the refusal is of what an event holds, so that no other time would be better: a value that no index takes
/// (class 54), or one that cannot be worked with (class 22). Of class 54 is also that Postgres holds no further
/// notification, which is no event's fault.
pub(super) fn is_of_an_event(refusal: &dyn DatabaseError) -> bool {
    let routine = refusal.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::routine);
    let is_of_the_queue = routine == Some("PreCommit_Notify");
    !is_of_the_queue && refusal.code().is_some_and(|code| code.starts_with("54") || code.starts_with("22"))
}

impl Stamper {
    /// Stamps what the outbox holds and the given events, and notifies `channel` when the log grew.
    pub(super) async fn stamp(
        &mut self,
        connection: &mut PgConnection,
        channel: &str,
        given: &[NewEvent],
    ) -> Result<Committed, sqlx::Error> {
        // While an event is looked for, the given ones wait: they would hide which one it is.
        let given = if self.is_looking() { &[] } else { given };
        let columns = Columns::of(given);
        if !given.is_empty() && self.expects_new() {
            match columns.stamp_new(connection, channel).await {
                Ok(Some((head, recorded_at))) => return Ok(Committed::New { head, recorded_at }),
                Ok(None) => {}
                Err(sqlx::Error::Database(refusal)) if refusal.code().as_deref() == Some(UNIQUE_VIOLATION) => {
                    self.expect_duplicates();
                }
                Err(error) => return Err(error),
            }
        }
        self.alone = match self.outbox_max {
            1 => sqlx::query_scalar("SELECT min(id) FROM outbox").fetch_one(&mut *connection).await?,
            _ => None,
        };
        let rows = columns.stamp(connection, channel, self.outbox_max).await?;
        self.outbox_max = (self.outbox_max * 2).min(OUTBOX_EVENTS_MAX);
        Ok(Committed::Each(rows))
    }

    /// One of the given events was there before.
    pub(super) fn expect_duplicates(&mut self) {
        self.duplicates_until = Some(Instant::now() + DUPLICATES_PERIOD);
    }

    /// Whether the next batch is tried as one whose events are all new.
    pub(super) fn expects_new(&self) -> bool {
        !self.is_looking() && self.duplicates_until.is_none_or(|until| until <= Instant::now())
    }

    /// Whether an event is looked for that the log cannot take.
    pub(super) fn is_looking(&self) -> bool {
        self.outbox_max < OUTBOX_EVENTS_MAX
    }

    /// After a batch was refused for what an event of it holds: the next one is half as large. One that was refused alone
    /// is set aside, and answered with its type.
    pub(super) async fn narrow(
        &mut self,
        connection: &mut PgConnection,
        refusal: &dyn DatabaseError,
    ) -> Result<Option<(i64, String)>, sqlx::Error> {
        self.outbox_max = (self.outbox_max / 2).max(1);
        let Some(alone) = self.alone.take() else { return Ok(None) };
        let set_aside = sqlx::query_as(SET_ASIDE).bind(alone).bind(refusal.message());
        set_aside.fetch_optional(connection).await
    }
}

// Unless one with a lower number was committed meanwhile, which then was the one that was tried.
const SET_ASIDE: &str = "
WITH refused AS (
    DELETE FROM outbox WHERE id = $1 AND NOT EXISTS (SELECT FROM outbox WHERE id < $1) RETURNING *
)
INSERT INTO outbox_refused (id, key, type, subject, event, audience, queued_at, reason)
SELECT id, key, type, subject, event, audience, queued_at, $2 FROM refused
RETURNING id, type";

impl Committed {
    /// Where the log ends now; nothing when it did not grow.
    pub(super) fn head(&self, group: &Group) -> Option<Position> {
        match self {
            Self::New { head, .. } => Some(group.end(*head)),
            Self::Each(rows) => rows.iter().filter_map(|row| Some(Position { epoch: row.0, seq: row.1? })).max(),
        }
    }

    /// Whether it tells what became of the given events; not when they have to wait for older ones of the outbox.
    pub(super) fn answers(&self, given: &[NewEvent]) -> bool {
        match self {
            Self::New { .. } => true,
            Self::Each(rows) => rows.iter().filter(|row| row.3.is_some()).count() == given.len(),
        }
    }

    /// What it says, read with the given events.
    pub(super) fn read(self, registry: &Registry, given: &[NewEvent]) -> Stamped {
        match self {
            Self::New { head, recorded_at } => new(registry, (head, recorded_at), given),
            Self::Each(rows) => each(registry, rows, given),
        }
    }
}

/// The given events, as the statements take them.
pub(super) struct Columns<'a> {
    keys: Vec<Uuid>,
    types: Vec<&'a str>,
    subjects: Vec<&'a str>,
    encoded: Vec<&'a str>,
    audiences: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(given: &'a [NewEvent]) -> Self {
        Self {
            keys: given.iter().map(|event| event.key).collect(),
            types: given.iter().map(|event| event.event_type.as_str()).collect(),
            subjects: given.iter().map(|event| event.subject.as_str()).collect(),
            encoded: given.iter().map(|event| event.encoded.as_str()).collect(),
            audiences: given.iter().map(|event| event.audience.as_joined()).collect(),
        }
    }

    async fn stamp(
        &self,
        connection: &mut PgConnection,
        channel: &str,
        outbox_max: i64,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let statement = sqlx::query_as(STAMP).bind(outbox_max).bind(channel);
        let statement = statement.bind(&self.keys).bind(&self.types).bind(&self.subjects).bind(&self.encoded);
        statement.bind(&self.audiences).bind(OUTBOX_BYTES_MAX).fetch_all(connection).await
    }

    /// Writes them after `head`, which is left where it is; the time of the batch.
    pub(super) async fn write(&self, connection: &mut PgConnection, head: Position) -> Result<Timestamp, sqlx::Error> {
        let statement = sqlx::query_scalar(WRITE).bind(head.seq).bind(&self.keys).bind(&self.types);
        let statement = statement.bind(&self.subjects).bind(&self.encoded).bind(&self.audiences);
        statement.fetch_one(connection).await
    }

    /// The head before them, and the time of the batch; nothing when the outbox comes first.
    async fn stamp_new(
        &self,
        connection: &mut PgConnection,
        channel: &str,
    ) -> Result<Option<(Position, Timestamp)>, sqlx::Error> {
        let statement = sqlx::query_as(STAMP_NEW).bind(channel).bind(&self.keys).bind(&self.types);
        let statement = statement.bind(&self.subjects).bind(&self.encoded).bind(&self.audiences);
        let row: Option<(i32, i64, Timestamp)> = statement.fetch_optional(connection).await?;
        Ok(row.map(|(epoch, seq, recorded_at)| (Position { epoch, seq }, recorded_at)))
    }
}

/// Events that follow the head, each of which was new.
fn new(registry: &Registry, (head, recorded_at): (Position, Timestamp), given: &[NewEvent]) -> Stamped {
    let place = |(seq, event): (i64, &NewEvent)| {
        let position = Position { seq, ..head };
        let of = Of { event_type: &event.event_type, subject: &event.subject, event: &event.encoded };
        let entry = entry(registry, position, unqueued(seq), recorded_at, of, event.audience.clone());
        (entry, Outcome::Stamped(position))
    };
    let (entries, outcomes): (_, Vec<_>) = (head.seq + 1..).zip(given).map(place).unzip();
    Stamped { epoch: head.epoch, entries, outcomes }
}

fn each(registry: &Registry, rows: Vec<Row>, events: &[NewEvent]) -> Stamped {
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
        let position = Position { epoch, seq };
        let (of, audience) = match given.map(|index| &events[index]) {
            Some(event) => {
                let of = Of { event_type: &event.event_type, subject: &event.subject, event: &event.encoded };
                (of, event.audience.clone())
            }
            None => (Of { event_type: &event_type, subject: &subject, event: &event }, Audience::joined(audience)),
        };
        stamped.entries.push(entry(registry, position, outbox_id, recorded_at, of, audience));
    }
    stamped.outcomes = outcomes.into_iter().flatten().collect();
    stamped
}

/// What an event says of itself, and its text.
#[derive(Clone, Copy)]
struct Of<'a> {
    event_type: &'a str,
    subject: &'a str,
    event: &'a str,
}

fn entry(
    registry: &Registry,
    position: Position,
    outbox_id: i64,
    recorded_at: Timestamp,
    of: Of<'_>,
    audience: Audience,
) -> Arc<Entry> {
    let Of { event_type, subject, event } = of;
    let (encoded, published) = texts(registry, event_type, event, position);
    Arc::new(Entry {
        seq: position.seq,
        outbox_id,
        event_type: registry.name(event_type),
        type_number: registry.number(event_type),
        subject: subject.into(),
        audience,
        recorded_at: recorded_at.to_jiff(),
        encoded,
        published,
        attributes: Attributes::default(),
        delivery: Delivery::default(),
    })
}
