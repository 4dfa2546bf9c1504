//! Reads of users and profiles, each with the head of the log from the same snapshot: one
//! statement has one snapshot, so the value holds every change up to its `as_of`.

use bytes::Bytes;
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgPool, Row};
use uuid::Uuid;

use super::user::{Profile, User};
use crate::position::Position;
use crate::store::postgres::in_time;
use crate::sync::Loaded;

/// A row of `users`.
pub(super) struct UserRow {
    id: Uuid,
    email: String,
    display_name: String,
    version: i64,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
    last_login_at: Option<jiff_sqlx::Timestamp>,
}

impl FromRow<'_, PgRow> for UserRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            email: row.try_get("email")?,
            display_name: row.try_get("display_name")?,
            version: row.try_get("version")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            last_login_at: row.try_get("last_login_at")?,
        })
    }
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            id: row.id,
            email: row.email,
            display_name: row.display_name,
            version: row.version,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
            last_login_at: row.last_login_at.map(jiff_sqlx::Timestamp::to_jiff),
        }
    }
}

/// The head of the log in a row's snapshot.
fn head(row: &PgRow) -> Result<Position, sqlx::Error> {
    Ok(Position { epoch: row.try_get("epoch")?, seq: row.try_get("seq")? })
}

/// The user as JSON, or the knowledge that there is none.
pub async fn user(pool: &PgPool, id: Uuid) -> Result<Loaded, sqlx::Error> {
    const LOAD: &str = "SELECT head.epoch, head.seq, users.* FROM head LEFT JOIN users ON users.id = $1";
    let row = in_time(sqlx::query(LOAD).bind(id).fetch_one(pool)).await?;
    let as_of = head(&row)?;
    if row.try_get::<Option<Uuid>, _>("id")?.is_none() {
        return Ok(Loaded { body: None, as_of });
    }
    let user = User::from(UserRow::from_row(&row)?);
    let body = serde_json::to_vec(&user).expect("a user has only string keys, so it always serialises");
    Ok(Loaded { body: Some(Bytes::from(body)), as_of })
}

/// Profiles of one snapshot.
#[derive(Debug)]
pub struct Profiles {
    /// The profiles that were found.
    pub profiles: Vec<Profile>,
    /// The head of the log in their snapshot.
    pub as_of: Position,
}

/// The profiles of these users.
pub async fn profiles(pool: &PgPool, ids: &[Uuid]) -> Result<Profiles, sqlx::Error> {
    const LOAD: &str = "SELECT head.epoch, head.seq, users.*, profiles.attributes FROM head
        LEFT JOIN users ON users.id = ANY($1) LEFT JOIN profiles ON profiles.user_id = users.id";
    collect(&in_time(sqlx::query(LOAD).bind(ids).fetch_all(pool)).await?)
}

/// Up to `limit` profiles of the users after `after`, in order of their ids.
pub async fn profiles_after(pool: &PgPool, after: Uuid, limit: i64) -> Result<Profiles, sqlx::Error> {
    const LOAD: &str = "SELECT head.epoch, head.seq, page.* FROM head LEFT JOIN (
            SELECT users.*, profiles.attributes FROM users LEFT JOIN profiles ON profiles.user_id = users.id
            WHERE users.id > $1 ORDER BY users.id LIMIT $2
        ) AS page ON true ORDER BY page.id";
    collect(&in_time(sqlx::query(LOAD).bind(after).bind(limit).fetch_all(pool)).await?)
}

/// There is always a row, because there is always a head.
fn collect(rows: &[PgRow]) -> Result<Profiles, sqlx::Error> {
    let as_of = head(rows.first().ok_or(sqlx::Error::RowNotFound)?)?;
    let mut profiles = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get::<Option<Uuid>, _>("id")?.is_none() {
            continue;
        }
        let attributes: Option<Json<Map<String, Value>>> = row.try_get("attributes")?;
        let user = User::from(UserRow::from_row(row)?);
        profiles.push(Profile {
            user_id: user.id,
            display_name: user.display_name,
            attributes: attributes.map(|Json(attributes)| attributes).unwrap_or_default(),
            version: user.version,
            registered_at: user.created_at,
            last_login_at: user.last_login_at,
        });
    }
    Ok(Profiles { profiles, as_of })
}
