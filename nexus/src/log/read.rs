//! Reads entries of the log from Postgres, and says when retention has dropped what was asked for.

use std::sync::Arc;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row as _};

use super::event::{Attributes, Entry, texts};
use crate::events::{Audience, Registry};
use crate::position::Position;
use crate::store::postgres::in_time;
use crate::traces::Delivery;

/// Most entries of one read.
pub const READ_ENTRIES_MAX: usize = 500;
/// Most bytes of events in a read of what follows a position. Several readers read at once, and each holds an event
/// three times until it is an entry: 500 of the largest would be 100 MB for each.
const READ_BYTES_MAX: i64 = 2 * 1024 * 1024;
/// Most bytes of events on a page of history: it is one answer or one frame, in memory as a whole.
const PAGE_BYTES_MAX: i64 = 512 * 1024;

/// A statement for those of the selected entries, in order, whose events together have no more than so many bytes, and
/// in any case for the first: the database sends no others. `goes_on` says whether another one was selected after it.
macro_rules! fitting {
    ($selected:literal, $bytes:literal) => {
        concat!(
            "SELECT seq, outbox_id, type, subject, array_to_string(audience, E'\\x1f'), event::text, recorded_at, goes_on
            FROM (
                SELECT *, sum(octet_length(event::text)) OVER so_far AS bytes, lag(seq) OVER so_far IS NULL AS first,
                    lead(seq) OVER so_far IS NOT NULL AS goes_on
                FROM (",
            $selected,
            ") selected WINDOW so_far AS (ORDER BY seq ROWS UNBOUNDED PRECEDING)
            ) summed WHERE first OR bytes <= ",
            $bytes,
            " ORDER BY seq"
        )
    };
}

/// What follows a position.
#[derive(Debug)]
pub enum Batch {
    /// The entries that follow without a hole; empty at the head.
    Entries(Vec<Arc<Entry>>),
    /// Retention has dropped what follows; the log goes on at `oldest`.
    Gap {
        /// The oldest entry that is left.
        oldest: i64,
    },
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadLog {
    /// The statement failed.
    #[error("read the log")]
    QueryLog(#[source] sqlx::Error),
    /// Two entries do not follow one another: the log is damaged.
    #[error("the log has a hole after {after}")]
    FindHole {
        /// The entry before the hole.
        after: i64,
    },
    /// The position to read after is not one of this log: it has another epoch, or lies beyond the head.
    #[error("the log ends at {head} and does not know the position")]
    RefusePosition {
        /// The newest place in the log.
        head: Position,
    },
    /// The reader is in more rooms than can be looked through.
    #[error("the reader is in more than {rooms_max} rooms")]
    LimitRooms {
        /// The most rooms.
        rooms_max: usize,
    },
    /// The event was not stamped within the deadline; it will be.
    #[error("wait for the sequencer")]
    AwaitStamp,
}

pub(super) async fn bounded<T>(read: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, ReadLog> {
    in_time(read).await.map_err(ReadLog::QueryLog)
}

/// The newest stamped place. A failed read means that Postgres is away or not migrated.
pub async fn head(pool: &PgPool) -> Result<Position, ReadLog> {
    let (epoch, seq) = bounded(sqlx::query_as("SELECT epoch, seq FROM head").fetch_one(pool)).await?;
    Ok(Position { epoch, seq })
}

/// The oldest entry that is left; none in an empty log.
pub async fn oldest(pool: &PgPool) -> Result<Option<i64>, ReadLog> {
    bounded(sqlx::query_scalar("SELECT min(seq) FROM log").fetch_one(pool)).await
}

/// Entries after `seq`: at least one if there is any, up to `limit`, and no more than is read at a time.
pub(super) async fn after(
    pool: &PgPool,
    registry: &Registry,
    epoch: i32,
    seq: i64,
    limit: usize,
) -> Result<Batch, ReadLog> {
    const SELECT: &str = fitting!("SELECT * FROM log WHERE seq > $1 ORDER BY seq LIMIT $2", "$3");
    let statement = sqlx::query_as(SELECT).bind(seq).bind(bound(limit)).bind(READ_BYTES_MAX);
    let rows: Vec<Row> = bounded(statement.fetch_all(pool)).await?;
    batch(registry, epoch, seq, rows)
}

/// The newest stamped place, and entries as `after` has them, of one snapshot and in one round trip.
pub(super) async fn head_and_after(
    pool: &PgPool,
    registry: &Registry,
    seq: i64,
    limit: usize,
) -> Result<(Position, Batch), ReadLog> {
    const SELECT: &str = concat!(
        "SELECT head.epoch, head.seq, NULL::bigint, page.* FROM head LEFT JOIN LATERAL (",
        fitting!("SELECT * FROM log WHERE seq > $1 ORDER BY seq LIMIT $2", "$3"),
        ") page ON true ORDER BY page.seq"
    );
    let statement = sqlx::query(SELECT).bind(seq).bind(bound(limit)).bind(READ_BYTES_MAX);
    let rows = bounded(statement.fetch_all(pool)).await?;
    let (head, _, entries) = split(&rows).map_err(ReadLog::QueryLog)?;
    Ok((head, batch(registry, head.epoch, seq, entries)?))
}

fn bound(limit: usize) -> i64 {
    i64::try_from(limit.min(READ_ENTRIES_MAX)).unwrap_or(i64::MAX)
}

/// What follows `seq`, which must be dense.
fn batch(registry: &Registry, epoch: i32, seq: i64, rows: Vec<Row>) -> Result<Batch, ReadLog> {
    match rows.first() {
        Some(first) if first.0 != seq + 1 => return Ok(Batch::Gap { oldest: first.0 }),
        _ => {}
    }
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 + 1 != pair[1].0) {
        return Err(ReadLog::FindHole { after: pair[0].0 });
    }
    Ok(Batch::Entries(rows.into_iter().map(|row| Arc::new(entry(registry, epoch, row))).collect()))
}

/// Takes apart rows of head, oldest entry and a page, which repeat the first two. An empty page is one row without
/// an entry.
fn split(rows: &[PgRow]) -> Result<(Position, Option<i64>, Vec<Row>), sqlx::Error> {
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let head = Position { epoch: first.try_get(0)?, seq: first.try_get(1)? };
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(seq) = row.try_get(3)? {
            let (event_type, subject, audience) = (row.try_get(5)?, row.try_get(6)?, row.try_get(7)?);
            entries.push((seq, row.try_get(4)?, event_type, subject, audience, row.try_get(8)?, row.try_get(9)?));
        }
    }
    Ok((head, first.try_get(2)?, entries))
}

/// What a reader of history asks for.
#[derive(Debug)]
pub struct Selection<'a> {
    /// Only these types; all when absent.
    pub types: Option<&'a [&'a str]>,
    /// Only these subjects; all when absent.
    pub subjects: Option<&'a [String]>,
    /// Only entries whose attributes of these names have these texts.
    pub attributes: &'a [(String, String)],
    /// Only entries for one of these rooms; all when absent.
    pub rooms: Option<&'a [Box<str>]>,
    /// Only entries after this one; from the oldest when absent.
    pub after: Option<Position>,
    /// Only entries that were logged from this time on.
    pub since: Option<Timestamp>,
    /// Only entries that were logged before this time.
    pub until: Option<Timestamp>,
    /// Most entries to return.
    pub limit: usize,
}

/// A page of history and where the log began and ended while it was read, all of one snapshot:
/// a partition that retention drops meanwhile is either read or stated as a gap.
#[derive(Debug)]
pub struct History {
    /// The newest place in the log.
    pub head: Position,
    /// The oldest selected entries, in order. They need not follow one another.
    pub entries: Vec<Arc<Entry>>,
    /// What a reader who has everything up to `after` can no longer be given: the last place it has, and the last that
    /// is gone.
    pub gap: Option<(Position, Position)>,
    more: bool,
}

impl History {
    /// Where the next page begins, unless this is the last one.
    pub fn next(&self) -> Option<Position> {
        self.entries.last().filter(|_| self.more).map(|entry| Position { seq: entry.seq, ..self.head })
    }
}

/// Long before the first event, and early enough: Postgres has no times before 4713 BC.
const EARLIEST: Timestamp = Timestamp::UNIX_EPOCH;

/// Reads a page of history, which large events end before its limit; never an empty one while there are events.
pub async fn history(pool: &PgPool, registry: &Registry, selection: &Selection<'_>) -> Result<History, ReadLog> {
    const SELECT: &str = concat!(
        "SELECT head.epoch, head.seq, (SELECT min(seq) FROM log), page.* FROM head LEFT JOIN LATERAL (",
        fitting!(
            "SELECT * FROM log
            WHERE seq > $1 AND ($2::text[] IS NULL OR type = ANY($2)) AND ($3::text[] IS NULL OR subject = ANY($3))
                -- Two indexes find it: the one by subject, and that of an audience's other rooms.
                AND ($4::text[] IS NULL OR (subject = ANY($4) AND subject = ANY(audience))
                    OR (array_remove(audience, subject) <> '{}' AND array_remove(audience, subject) && $4))
                AND ($5::timestamptz IS NULL OR recorded_at >= $5) AND ($6::timestamptz IS NULL OR recorded_at < $6)
                -- Attributes stand before the data, which is not looked into: Postgres fails over text that it cannot hold.
                AND NOT EXISTS (
                    SELECT FROM unnest($7::text[], $8::text[]) AS asked (name, value)
                    WHERE (rtrim(split_part(event::text, ',\"data\":', 1), '}') || '}')::json ->> asked.name
                        IS DISTINCT FROM asked.value)
            ORDER BY seq LIMIT $9",
            "$10"
        ),
        ") page ON true ORDER BY page.seq"
    );
    // No subject has a NUL, and Postgres takes none.
    let subjects = selection.subjects.map(|all| all.iter().filter(|one| !one.contains('\0')).collect::<Vec<_>>());
    let (names, values): (Vec<&str>, Vec<&str>) =
        selection.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).unzip();
    let statement = sqlx::query(SELECT)
        .bind(selection.after.map_or(0, |after| after.seq))
        .bind(selection.types)
        .bind(subjects)
        .bind(selection.rooms)
        .bind(selection.since.map(|since| since.max(EARLIEST).to_sqlx()))
        .bind(selection.until.map(|until| until.max(EARLIEST).to_sqlx()))
        .bind(names)
        .bind(values)
        // Planned each time: whether an index helps depends on what is asked for.
        .persistent(false);
    let statement = statement.bind(bound(selection.limit)).bind(PAGE_BYTES_MAX);
    let rows = bounded(statement.fetch_all(pool)).await?;
    let goes_on = rows.last().map_or(Ok(None), |last| last.try_get("goes_on")).map_err(ReadLog::QueryLog)?;
    let (head, oldest, rows) = split(&rows).map_err(ReadLog::QueryLog)?;
    let gap = match selection.after {
        Some(after) if !head.includes(after) => return Err(ReadLog::RefusePosition { head }),
        Some(after) => {
            let gone = oldest.unwrap_or(head.seq + 1) - 1;
            (after.seq < gone).then_some((after, Position { seq: gone, ..head }))
        }
        None => None,
    };
    let more = goes_on == Some(true) || rows.len() == selection.limit;
    let entries = rows.into_iter().map(|row| Arc::new(entry(registry, head.epoch, row))).collect();
    Ok(History { head, entries, gap, more })
}

/// The places that events of the outbox got; those not stamped yet are left out.
pub(super) async fn stamped(pool: &PgPool, outbox_ids: &[i64]) -> Result<Vec<(i64, Position)>, ReadLog> {
    // As the index has it, which knows only what was in the outbox.
    const FIND: &str =
        "SELECT outbox_id, epoch, log.seq FROM log CROSS JOIN head WHERE outbox_id = ANY($1) AND outbox_id > 0";
    let statement = sqlx::query_as(FIND);
    let rows: Vec<(i64, i32, i64)> = bounded(statement.bind(outbox_ids).fetch_all(pool)).await?;
    Ok(rows.into_iter().map(|(outbox_id, epoch, seq)| (outbox_id, Position { epoch, seq })).collect())
}

type Row = (i64, i64, String, String, String, String, jiff_sqlx::Timestamp);

fn entry(registry: &Registry, epoch: i32, row: Row) -> Entry {
    let (seq, outbox_id, event_type, subject, audience, event, recorded_at) = row;
    let (encoded, published) = texts(registry, &event_type, &event, Position { epoch, seq });
    let type_number = registry.number(&event_type);
    let (event_type, subject, recorded_at) = (registry.name(&event_type), subject.into(), recorded_at.to_jiff());
    let audience = Audience::joined(audience);
    let (attributes, delivery) = (Attributes::default(), Delivery::default());
    Entry {
        seq,
        outbox_id,
        event_type,
        type_number,
        subject,
        audience,
        recorded_at,
        encoded,
        published,
        attributes,
        delivery,
    }
}
