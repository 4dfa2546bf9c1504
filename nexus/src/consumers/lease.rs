//! Leases deliveries and takes back what became of them. A delivery has one lease at a time; a lease that ends without a
//! word counts as a failed attempt, so whoever vanishes in the middle loses nothing.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::dead_letters;
use super::delivery::{Delivery, Lease};
use super::store::{Consumer, await_lock};
use crate::store::postgres::in_time;

/// What became of leased deliveries.
#[derive(Debug, Default)]
pub struct Settled {
    /// Those whose leases were good.
    pub done: Vec<i64>,
    /// Those of them that became dead letters.
    pub dead: Vec<i64>,
}

/// How a failed attempt is taken back.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// Why it failed, for people.
    pub reason: &'a str,
    /// When to try again.
    pub delay: Delay,
}

/// When a failed delivery is tried again.
#[derive(Clone, Copy, Debug)]
pub enum Delay {
    /// As the consumer's waits say.
    Scheduled,
    /// As they say, but not sooner.
    AtLeast(Duration),
    /// Then, whatever they say.
    Exactly(Duration),
}

/// Leases up to `count` deliveries that are due, the oldest first.
pub async fn lease(
    pool: &PgPool,
    consumer: &Consumer,
    count: i64,
    duration: Duration,
    retry: &[i32],
) -> Result<Vec<Delivery>, sqlx::Error> {
    let step = async {
        let mut transaction = pool.begin().await?;
        keep_order(&mut transaction, consumer).await?;
        let leased = lease_within(&mut transaction, consumer, count, duration, retry).await?;
        transaction.commit().await?;
        Ok(leased)
    };
    in_time(step).await
}

/// With an order, lets nobody else lease or extend until the transaction ends. A dead letter that came back between two
/// looks is the oldest of its subject for the one and nothing to the other, and neither sees what the other is about to
/// lease.
async fn keep_order(connection: &mut PgConnection, consumer: &Consumer) -> Result<(), sqlx::Error> {
    if consumer.settings.ordered {
        await_lock(connection, consumer.id).await?;
    }
    Ok(())
}

/// The same, in a transaction that has locked the consumer, or of a consumer without an order.
pub(crate) async fn lease_within(
    connection: &mut PgConnection,
    consumer: &Consumer,
    count: i64,
    duration: Duration,
    retry: &[i32],
) -> Result<Vec<Delivery>, sqlx::Error> {
    // What a person may see no more is no delivery any more. With an order, only the oldest of a subject is due, and only
    // while no later one is out, as it may be when a dead letter has come back. The clock is read after every lock that
    // was waited for: what another transaction has just made due is due.
    const LEASE: &str = "WITH due AS (
            SELECT seq, gap_from IS NOT NULL OR delivery_visible($2, audience) AS visible FROM delivery AS one
            WHERE consumer_id = $1 AND dead_at IS NULL AND due_at <= statement_timestamp()
                AND attempts <= cardinality($6::integer[])
                AND NOT ($3 AND EXISTS (
                    SELECT FROM delivery AS other
                    WHERE other.consumer_id = $1 AND other.subject = one.subject AND other.dead_at IS NULL
                        AND (other.seq < one.seq
                            OR other.seq > one.seq AND other.leased_until > statement_timestamp())))
            ORDER BY seq LIMIT $4 FOR UPDATE OF one SKIP LOCKED
        ), withdrawn AS (
            DELETE FROM delivery USING due
            WHERE delivery.consumer_id = $1 AND delivery.seq = due.seq AND NOT due.visible
        ), leased AS (
            UPDATE delivery SET attempts = attempts + 1, lease = gen_random_uuid(),
                leased_until = statement_timestamp() + $5,
                due_at = statement_timestamp() + $5 + delivery_wait($6, attempts + 1)
            FROM due WHERE delivery.consumer_id = $1 AND delivery.seq = due.seq AND due.visible
            RETURNING delivery.*
        )
        SELECT * FROM leased ORDER BY seq";
    dead_letters::bury(connection, consumer, retry).await?;
    sqlx::query_as(LEASE)
        .bind(consumer.id)
        .bind(&consumer.settings.person)
        .bind(consumer.settings.ordered)
        .bind(count)
        .bind(duration)
        .bind(retry)
        .fetch_all(connection)
        .await
}

/// Ends deliveries that were handled. One whose lease has ended counts too, unless another lease was given since.
pub async fn acknowledge(pool: &PgPool, consumer: i64, leases: &[Lease]) -> Result<Settled, sqlx::Error> {
    const ACKNOWLEDGE: &str = "DELETE FROM delivery USING unnest($2::bigint[], $3::uuid[]) AS held (seq, lease)
        WHERE consumer_id = $1 AND delivery.seq = held.seq AND delivery.lease = held.lease
        RETURNING delivery.seq, false";
    let (seqs, secrets) = columns(leases);
    settle(pool, sqlx::query_as(ACKNOWLEDGE).bind(consumer).bind(seqs).bind(secrets)).await
}

/// Takes back deliveries that failed: they are due again after a wait, or are dead letters after the last attempt.
pub async fn fail(
    pool: &PgPool,
    consumer: &Consumer,
    leases: &[Lease],
    retry: &[i32],
    failure: Failure<'_>,
) -> Result<Settled, sqlx::Error> {
    const FAIL: &str = "UPDATE delivery SET lease = NULL, leased_until = NULL, last_error = $5,
            dead_at = CASE WHEN attempts > cardinality($4::integer[]) THEN now() END,
            due_at = now() + coalesce($6, greatest($7, delivery_wait($4, attempts)))
        FROM unnest($2::bigint[], $3::uuid[]) AS held (seq, lease)
        WHERE consumer_id = $1 AND delivery.seq = held.seq AND delivery.lease = held.lease AND dead_at IS NULL
        RETURNING delivery.seq, dead_at IS NOT NULL";
    let (seqs, secrets) = columns(leases);
    let (exactly, at_least) = match failure.delay {
        Delay::Scheduled => (None, None),
        Delay::AtLeast(delay) => (None, Some(delay)),
        Delay::Exactly(delay) => (Some(delay), None),
    };
    let statement = sqlx::query_as(FAIL).bind(consumer.id).bind(seqs).bind(secrets).bind(retry);
    settle(pool, statement.bind(failure.reason).bind(exactly).bind(at_least)).await
}

/// Takes back a delivery that was not tried: the lease does not count.
pub(crate) async fn release(pool: &PgPool, consumer: i64, lease: Lease) -> Result<(), sqlx::Error> {
    const RELEASE: &str =
        "UPDATE delivery SET attempts = attempts - 1, lease = NULL, leased_until = NULL, due_at = now()
        WHERE consumer_id = $1 AND seq = $2 AND lease = $3 AND dead_at IS NULL";
    let release = sqlx::query(RELEASE).bind(consumer).bind(lease.seq).bind(lease.secret);
    in_time(release.execute(pool)).await?;
    Ok(())
}

/// Lets leases last for `duration` from now. With an order one that has ended is not extended when another of its subject
/// was given meanwhile, as it may be when a dead letter has come back.
pub async fn extend(
    pool: &PgPool,
    consumer: &Consumer,
    leases: &[Lease],
    retry: &[i32],
    duration: Duration,
) -> Result<Settled, sqlx::Error> {
    const EXTEND: &str = "UPDATE delivery SET leased_until = statement_timestamp() + $5,
            due_at = statement_timestamp() + $5 + delivery_wait($4, attempts)
        FROM unnest($2::bigint[], $3::uuid[]) AS held (seq, lease)
        WHERE consumer_id = $1 AND delivery.seq = held.seq AND delivery.lease = held.lease AND dead_at IS NULL
            AND NOT ($6 AND leased_until <= statement_timestamp() AND EXISTS (
                SELECT FROM delivery AS other
                WHERE other.consumer_id = $1 AND other.subject = delivery.subject AND other.dead_at IS NULL
                    AND other.seq <> delivery.seq AND other.lease IS NOT NULL))
        RETURNING delivery.seq, false";
    let (seqs, secrets) = columns(leases);
    let statement = sqlx::query_as(EXTEND).bind(consumer.id).bind(seqs).bind(secrets).bind(retry).bind(duration);
    let statement = statement.bind(consumer.settings.ordered);
    let step = async {
        let mut transaction = pool.begin().await?;
        keep_order(&mut transaction, consumer).await?;
        let rows = statement.fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(rows)
    };
    Ok(settled(&in_time(step).await?))
}

type Settling<'q> = sqlx::query::QueryAs<'q, sqlx::Postgres, (i64, bool), sqlx::postgres::PgArguments>;

async fn settle(pool: &PgPool, statement: Settling<'_>) -> Result<Settled, sqlx::Error> {
    Ok(settled(&in_time(statement.fetch_all(pool)).await?))
}

fn settled(rows: &[(i64, bool)]) -> Settled {
    let dead = rows.iter().filter(|(_, dead)| *dead).map(|(seq, _)| *seq).collect();
    Settled { done: rows.iter().map(|(seq, _)| *seq).collect(), dead }
}

fn columns(leases: &[Lease]) -> (Vec<i64>, Vec<Uuid>) {
    leases.iter().map(|lease| (lease.seq, lease.secret)).unzip()
}
