//! Takes entries of the log that a consumer wants and may see, and makes deliveries of them. The deliveries and the
//! consumer's new position are one transaction: no entry is passed over, and none is taken twice.

use sqlx::{PgConnection, PgPool};

use super::store::{Consumer, await_lock, lock};
use crate::config::ConsumersConfig;
use crate::store::postgres::in_time;

/// Entries of the log that one transaction looks at: some ten milliseconds.
const SCAN_ENTRIES: i64 = 5_000;
/// Deliveries that one transaction makes. With the bound on one event it bounds what is copied.
const FILL_ENTRIES: i64 = 200;
/// Entries that concern the consumer in nothing are looked at again until there are so many: each new position is a
/// write, and a log moves many times a second.
const SKIP_ENTRIES: i64 = 200;

/// Who asks for more, and how much trouble that is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Keeps everybody ahead of retention: moves each position to where it has looked, and leaves a consumer alone that
    /// somebody else is about.
    Follower,
    /// Wants events now: waits for whoever is about the consumer, and leaves the position where it is over a few entries
    /// that are not wanted.
    Taker,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Everything that the log has was looked at, or as many deliveries wait as may.
    Whole,
    /// There may be more.
    More,
}

/// The log and the consumer's deliveries, in one snapshot.
struct Looked {
    epoch: i32,
    head: i64,
    /// First entry that is left after the consumer's position.
    next: i64,
    /// Deliveries that may be made.
    places: i64,
}

/// Takes everything that may be taken now.
pub(crate) async fn fill(pool: &PgPool, id: i64, bounds: &ConsumersConfig, asker: Asker) -> Result<(), sqlx::Error> {
    loop {
        let step = async {
            let mut transaction = pool.begin().await?;
            let locked = match asker {
                Asker::Follower => lock(&mut transaction, id).await?,
                Asker::Taker => await_lock(&mut transaction, id).await?,
            };
            let Some(mut consumer) = locked else { return Ok(Filled::Whole) };
            let filled = step(&mut transaction, &mut consumer, bounds, asker).await?;
            transaction.commit().await?;
            Ok(filled)
        };
        if in_time(step).await? == Filled::Whole {
            return Ok(());
        }
    }
}

/// Takes one bounded step, in the transaction that has locked the consumer.
pub(crate) async fn step(
    connection: &mut PgConnection,
    consumer: &mut Consumer,
    bounds: &ConsumersConfig,
    asker: Asker,
) -> Result<Filled, sqlx::Error> {
    // From here to the end of the transaction retention waits: dropping a partition locks the whole log.
    let looked = look(connection, consumer, bounds).await?;
    if looked.places <= 0 || looked.head <= consumer.position {
        return Ok(Filled::Whole);
    }
    if looked.next > consumer.position + 1 {
        let gone = (looked.next - 1).min(looked.head);
        state_gap(connection, consumer, looked.epoch, gone).await?;
        move_to(connection, consumer, gone).await?;
        return Ok(Filled::More);
    }
    let end = looked.head.min(consumer.position + SCAN_ENTRIES);
    let limit = looked.places.min(FILL_ENTRIES);
    let (taken, newest) = take(connection, consumer, looked.epoch, end, limit).await?;
    let end = if taken == limit { newest.unwrap_or(end) } else { end };
    if taken > 0 || asker == Asker::Follower || end - consumer.position >= SKIP_ENTRIES {
        move_to(connection, consumer, end).await?;
    }
    Ok(if end < looked.head && taken < looked.places { Filled::More } else { Filled::Whole })
}

async fn look(
    connection: &mut PgConnection,
    consumer: &Consumer,
    bounds: &ConsumersConfig,
) -> Result<Looked, sqlx::Error> {
    const LOOK: &str = "SELECT epoch, seq, (SELECT min(seq) FROM log WHERE seq > $2),
            (SELECT count(*) FROM delivery WHERE consumer_id = $1 AND dead_at IS NULL),
            (SELECT count(*) FROM delivery WHERE consumer_id = $1 AND dead_at IS NOT NULL)
        FROM head";
    let (epoch, head, next, pending, dead): (i32, i64, Option<i64>, i64, i64) =
        sqlx::query_as(LOOK).bind(consumer.id).bind(consumer.position).fetch_one(connection).await?;
    let places = if dead >= bounds.dead_letters_max { 0 } else { bounds.pending_max - pending };
    Ok(Looked { epoch, head, next: next.unwrap_or(head + 1), places })
}

/// The gap is a delivery like any other: it was stated when it is acknowledged.
async fn state_gap(
    connection: &mut PgConnection,
    consumer: &Consumer,
    epoch: i32,
    gone: i64,
) -> Result<(), sqlx::Error> {
    const STATE: &str = "INSERT INTO delivery (consumer_id, seq, epoch, gap_from) VALUES ($1, $2, $3, $4)";
    sqlx::query(STATE).bind(consumer.id).bind(gone).bind(epoch).bind(consumer.position).execute(connection).await?;
    tracing::warn!(consumer.id, log.after = consumer.position, log.to = gone, "retention was faster than a consumer");
    Ok(())
}

/// Makes deliveries of what is wanted after the position, up to `end`: how many, and the newest.
async fn take(
    connection: &mut PgConnection,
    consumer: &Consumer,
    epoch: i32,
    end: i64,
    limit: i64,
) -> Result<(i64, Option<i64>), sqlx::Error> {
    const TAKE: &str = "WITH wanted AS (
            SELECT seq, key, subject, audience, event, recorded_at FROM log
            WHERE seq > $2 AND seq <= $3 AND (type || '.') ~ $5 AND ($6::text[] IS NULL OR subject = ANY ($6))
                AND delivery_visible($7, audience)
            ORDER BY seq LIMIT $8
        ), taken AS (
            INSERT INTO delivery (consumer_id, seq, epoch, key, subject, audience, event, recorded_at)
            SELECT $1, seq, $4, key, subject, audience, event::text, recorded_at FROM wanted
        )
        SELECT count(*), max(seq) FROM wanted";
    let statement = sqlx::query_as(TAKE)
        .bind(consumer.id)
        .bind(consumer.position)
        .bind(end)
        .bind(epoch)
        .bind(consumer.types())
        .bind(&consumer.settings.subjects)
        .bind(&consumer.settings.person)
        .bind(limit);
    statement.fetch_one(connection).await
}

async fn move_to(connection: &mut PgConnection, consumer: &mut Consumer, seq: i64) -> Result<(), sqlx::Error> {
    let update = sqlx::query("UPDATE consumer SET position = $2 WHERE id = $1").bind(consumer.id).bind(seq);
    update.execute(connection).await?;
    consumer.position = seq;
    Ok(())
}
