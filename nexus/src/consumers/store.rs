//! The rows of the consumers: who wants what, and how far each has come.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgPool, Row as _};

use super::dead_letters;
use super::types::regular_expression;
use crate::events::Pattern;
use crate::log::{ReadLog, read};
use crate::position::Position;
use crate::store::postgres::in_time;

/// Most consumers that a list shows.
const LIST_MAX: i64 = 1_000;

/// A consumer as it is stored.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Number of its row.
    pub id: i64,
    /// The subject of the token that made it.
    pub owner: String,
    /// Its name among those of its owner; none for a webhook's.
    pub name: Option<String>,
    /// What it wants and how it is served.
    pub settings: Settings,
    /// Every entry up to here has become a delivery or is not wanted.
    pub position: i64,
}

/// What a consumer wants and how it is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The room of the person whose rights count; none when everything may be seen.
    pub person: Option<String>,
    /// Patterns of event types.
    pub types: Vec<Pattern>,
    /// Only these subjects; all when absent.
    pub subjects: Option<Vec<String>>,
    /// The versions that it asks for, by type; it is given the current one of every other.
    pub versions: BTreeMap<String, u16>,
    /// Whether an event waits for the one before it of the same subject.
    pub ordered: bool,
    /// How long a lease lasts when its taker does not say.
    pub lease_seconds: i32,
    /// Waits after each failed attempt but the last; those of the pod's settings when absent.
    pub retry_seconds: Option<Vec<i32>>,
}

/// Where a consumer stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Up to here the log was taken.
    pub position: Position,
    /// The newest place in the log.
    pub head: Position,
    /// Deliveries that wait or are leased.
    pub pending: i64,
    /// Deliveries that were given up.
    pub dead_letters: i64,
}

/// Why consumers could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessConsumers {
    /// The statement failed.
    #[error("read or change the consumers")]
    QueryConsumers(#[source] sqlx::Error),
    /// The head of the log could not be read, or does not know the position to begin at.
    #[error("find the place in the log to begin at")]
    FindPlace(#[source] ReadLog),
    /// The owner has as many as one may have.
    #[error("an owner has at most {max}")]
    LimitConsumers {
        /// The most.
        max: i64,
    },
}

impl Consumer {
    /// The waits after each failed attempt but the last.
    pub fn retry_seconds<'a>(&'a self, default: &'a [i32]) -> &'a [i32] {
        self.settings.retry_seconds.as_deref().unwrap_or(default)
    }

    /// What its types look like to Postgres.
    pub(super) fn types(&self) -> String {
        regular_expression(&self.settings.types)
    }
}

/// The place in the log at which a new consumer begins: after the position, or now.
pub async fn beginning(pool: &PgPool, after: Option<Position>) -> Result<i64, AccessConsumers> {
    let head = read::head(pool).await.map_err(AccessConsumers::FindPlace)?;
    match after {
        Some(after) if !head.includes(after) => Err(AccessConsumers::FindPlace(ReadLog::RefusePosition { head })),
        Some(after) => Ok(after.seq),
        None => Ok(head.seq),
    }
}

/// Makes the consumer of this owner and name, or changes its settings; whether it is new. One that is there goes on from
/// where it stands.
pub async fn put(
    pool: &PgPool,
    (owner, name): (&str, &str),
    settings: &Settings,
    position: i64,
    max: i64,
) -> Result<(Consumer, bool), AccessConsumers> {
    const PUT: &str = "INSERT INTO consumer
            (owner, name, person, types, subjects, ordered, lease_seconds, retry_seconds, position, versions)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $11
        WHERE (SELECT count(*) FROM consumer WHERE owner = $1 AND name IS NOT NULL) < $10
            OR EXISTS (SELECT FROM consumer WHERE owner = $1 AND name = $2)
        ON CONFLICT (owner, name) DO UPDATE SET person = excluded.person, types = excluded.types,
            subjects = excluded.subjects, ordered = excluded.ordered, lease_seconds = excluded.lease_seconds,
            retry_seconds = excluded.retry_seconds, versions = excluded.versions
        RETURNING consumer.*, xmax = 0 AS is_new";
    let put = sqlx::query(PUT)
        .bind(owner)
        .bind(name)
        .bind(&settings.person)
        .bind(texts(&settings.types))
        .bind(&settings.subjects)
        .bind(settings.ordered)
        .bind(settings.lease_seconds)
        .bind(&settings.retry_seconds)
        .bind(position)
        .bind(max)
        .bind(Json(&settings.versions));
    let row = in_time(put.fetch_optional(pool)).await.map_err(AccessConsumers::QueryConsumers)?;
    let row = row.ok_or(AccessConsumers::LimitConsumers { max })?;
    let read = |row: &PgRow| Ok((Consumer::from_row(row)?, row.try_get("is_new")?));
    read(&row).map_err(AccessConsumers::QueryConsumers)
}

/// Makes a consumer without a name; answers its number.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    owner: &str,
    settings: &Settings,
    position: i64,
) -> Result<i64, sqlx::Error> {
    const INSERT: &str = "INSERT INTO consumer
            (owner, person, types, subjects, ordered, lease_seconds, retry_seconds, position, versions)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id";
    let insert = sqlx::query_scalar(INSERT).bind(owner).bind(&settings.person).bind(texts(&settings.types));
    let insert = insert.bind(&settings.subjects).bind(settings.ordered).bind(settings.lease_seconds);
    let insert = insert.bind(&settings.retry_seconds).bind(position).bind(Json(&settings.versions));
    insert.fetch_one(connection).await
}

/// Writes down what a consumer wants now.
pub(crate) async fn change(connection: &mut PgConnection, id: i64, settings: &Settings) -> Result<(), sqlx::Error> {
    const CHANGE: &str = "UPDATE consumer
        SET person = $2, types = $3, subjects = $4, retry_seconds = $5, versions = $6 WHERE id = $1";
    let change = sqlx::query(CHANGE).bind(id).bind(&settings.person).bind(texts(&settings.types));
    let change = change.bind(&settings.subjects).bind(&settings.retry_seconds).bind(Json(&settings.versions));
    change.execute(connection).await?;
    Ok(())
}

/// The consumer of this owner and name.
pub async fn find(pool: &PgPool, owner: &str, name: &str) -> Result<Option<Consumer>, AccessConsumers> {
    let find = sqlx::query_as("SELECT * FROM consumer WHERE owner = $1 AND name = $2").bind(owner).bind(name);
    in_time(find.fetch_optional(pool)).await.map_err(AccessConsumers::QueryConsumers)
}

/// The consumers of this owner, or of everybody.
pub async fn list(pool: &PgPool, owner: Option<&str>) -> Result<Vec<Consumer>, AccessConsumers> {
    const LIST: &str = "SELECT * FROM consumer WHERE name IS NOT NULL AND ($1::text IS NULL OR owner = $1)
        ORDER BY owner, name LIMIT $2";
    let list = sqlx::query_as(LIST).bind(owner).bind(LIST_MAX);
    in_time(list.fetch_all(pool)).await.map_err(AccessConsumers::QueryConsumers)
}

/// Ends a consumer, with everything that waits for it; whether it was there.
pub async fn delete(pool: &PgPool, owner: &str, name: &str) -> Result<bool, AccessConsumers> {
    let delete = sqlx::query("DELETE FROM consumer WHERE owner = $1 AND name = $2").bind(owner).bind(name);
    let deleted = in_time(delete.execute(pool)).await.map_err(AccessConsumers::QueryConsumers)?;
    Ok(deleted.rows_affected() > 0)
}

/// Where the consumer stands.
pub async fn standing(pool: &PgPool, consumer: &Consumer, retry: &[i32]) -> Result<Standing, AccessConsumers> {
    const STANDING: &str = "SELECT head.epoch, head.seq, (SELECT position FROM consumer WHERE id = $1),
            count(consumer_id) FILTER (WHERE dead_at IS NULL), count(dead_at)
        FROM head LEFT JOIN delivery ON consumer_id = $1 GROUP BY head.epoch, head.seq";
    let look = async {
        let mut connection = pool.acquire().await?;
        dead_letters::bury(&mut connection, consumer, retry).await?;
        sqlx::query_as(STANDING).bind(consumer.id).fetch_one(&mut *connection).await
    };
    let (epoch, head, position, pending, dead_letters): (i32, i64, Option<i64>, i64, i64) =
        in_time(look).await.map_err(AccessConsumers::QueryConsumers)?;
    let place = |seq| Position { epoch, seq };
    let position = position.unwrap_or(consumer.position);
    Ok(Standing { position: place(position), head: place(head), pending, dead_letters })
}

/// The consumer, for as long as the transaction lasts no other's: nothing when another transaction has it, or it is gone.
pub(crate) async fn lock(connection: &mut PgConnection, id: i64) -> Result<Option<Consumer>, sqlx::Error> {
    const LOCK: &str = "SELECT * FROM consumer WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED";
    sqlx::query_as(LOCK).bind(id).fetch_optional(connection).await
}

/// The same, once no other transaction has it: nothing when it is gone.
pub(super) async fn await_lock(connection: &mut PgConnection, id: i64) -> Result<Option<Consumer>, sqlx::Error> {
    const LOCK: &str = "SELECT * FROM consumer WHERE id = $1 FOR NO KEY UPDATE";
    sqlx::query_as(LOCK).bind(id).fetch_optional(connection).await
}

/// Patterns as they were written.
pub(crate) fn texts(patterns: &[Pattern]) -> Vec<String> {
    patterns.iter().map(Pattern::to_string).collect()
}

impl FromRow<'_, PgRow> for Consumer {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let types: Vec<String> = row.try_get("types")?;
        let types = types.iter().map(|text| text.parse()).collect::<Result<_, _>>();
        let settings = Settings {
            person: row.try_get("person")?,
            types: types.map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            subjects: row.try_get("subjects")?,
            versions: row.try_get::<Json<_>, _>("versions")?.0,
            ordered: row.try_get("ordered")?,
            lease_seconds: row.try_get("lease_seconds")?,
            retry_seconds: row.try_get("retry_seconds")?,
        };
        let (id, owner, name) = (row.try_get("id")?, row.try_get("owner")?, row.try_get("name")?);
        Ok(Self { id, owner, name, settings, position: row.try_get("position")? })
    }
}
