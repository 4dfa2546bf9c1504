//! Writes of users: each is one transaction that claims its idempotency key, changes the
//! record, appends the event with the record's row lock held, and stores its answer.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::idempotency::{Claim, IdempotencyKey};
use super::load::UserRow;
use super::new_user::NewUser;
use super::user::User;
use crate::events::system::{UserLogin, UserRegistered};
use crate::log::{self, AppendEvents, NewEvent};
use crate::traces;

const INSERT_USER: &str = "INSERT INTO users (id, email, display_name, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $4)";

const INSERT_PROFILE: &str = "INSERT INTO profiles (user_id, attributes, updated_at) VALUES ($1, $2, $3)";

/// The clocks of two pods differ a little: time does not go backwards in a record.
const TOUCH: &str = "UPDATE users SET version = version + 1,
        updated_at = greatest($2, updated_at), last_login_at = greatest($2, updated_at)
    WHERE id = $1
    RETURNING id, email, display_name, version, created_at, updated_at, last_login_at";

/// A write that is committed.
#[derive(Clone, Debug)]
pub struct Written {
    /// The user as JSON, as after the write.
    pub answer: String,
    /// Number of its event in the outbox, to wait for its place in the log.
    pub outbox_id: i64,
    /// Whether it was made by an earlier request with the same idempotency key.
    pub repeated: bool,
}

/// Why a write was not made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum WriteRecord {
    /// Another user has the address.
    #[error("another user has this email address")]
    TakeEmail,
    /// There is no such user.
    #[error("there is no such user")]
    FindUser,
    /// The key was used for another request.
    #[error("the idempotency key was used for another request")]
    ReuseKey,
    /// A statement failed.
    #[error("write the record")]
    ExecuteStatement(#[source] sqlx::Error),
    /// The event could not be appended.
    #[error("append the event of the write")]
    AppendEvent(#[source] AppendEvents),
}

/// Registers a user with a profile; emits `user.registered`.
pub async fn register(pool: &PgPool, user: &NewUser, key: Option<&IdempotencyKey>) -> Result<Written, WriteRecord> {
    let mut transaction = match begin(pool, key).await? {
        Begun::Fresh(transaction) => transaction,
        Begun::Answered(written) => return Ok(written),
    };
    let now = now();
    let id = Uuid::now_v7();
    sqlx::query(INSERT_USER)
        .bind(id)
        .bind(&user.email)
        .bind(&user.display_name)
        .bind(now.to_sqlx())
        .execute(&mut *transaction)
        .await
        .map_err(refine)?;
    sqlx::query(INSERT_PROFILE)
        .bind(id)
        .bind(Json(&user.profile))
        .bind(now.to_sqlx())
        .execute(&mut *transaction)
        .await
        .map_err(WriteRecord::ExecuteStatement)?;
    let registered = User {
        id,
        email: user.email.clone(),
        display_name: user.display_name.clone(),
        version: 1,
        created_at: now,
        updated_at: now,
        last_login_at: None,
    };
    let payload = UserRegistered { user_id: id, version: 1, registered_at: now };
    let event = NewEvent::emit(Uuid::now_v7(), &id.to_string(), now, &payload);
    finish(transaction, &registered, &event, key).await
}

/// Records that the user has logged in; emits `user.login`.
pub async fn log_in(pool: &PgPool, id: Uuid, key: Option<&IdempotencyKey>) -> Result<Written, WriteRecord> {
    let mut transaction = match begin(pool, key).await? {
        Begun::Fresh(transaction) => transaction,
        Begun::Answered(written) => return Ok(written),
    };
    let user = touch(&mut transaction, id, now()).await?;
    let now = user.updated_at;
    let payload = UserLogin { user_id: id, version: user.version, logged_in_at: now };
    let event = NewEvent::emit(Uuid::now_v7(), &id.to_string(), now, &payload);
    finish(transaction, &user, &event, key).await
}

/// Takes the user's row lock, which orders the events about this user as their commits.
async fn touch(connection: &mut PgConnection, id: Uuid, now: Timestamp) -> Result<User, WriteRecord> {
    let row: Option<UserRow> = sqlx::query_as(TOUCH)
        .bind(id)
        .bind(now.to_sqlx())
        .fetch_optional(connection)
        .await
        .map_err(WriteRecord::ExecuteStatement)?;
    row.map(User::from).ok_or(WriteRecord::FindUser)
}

enum Begun {
    Fresh(Transaction<'static, Postgres>),
    Answered(Written),
}

async fn begin(pool: &PgPool, key: Option<&IdempotencyKey>) -> Result<Begun, WriteRecord> {
    let mut transaction = pool.begin().await.map_err(WriteRecord::ExecuteStatement)?;
    let Some(key) = key else {
        return Ok(Begun::Fresh(transaction));
    };
    match key.claim(&mut transaction).await.map_err(WriteRecord::ExecuteStatement)? {
        Claim::First => Ok(Begun::Fresh(transaction)),
        Claim::Answered { answer, outbox_id } => Ok(Begun::Answered(Written { answer, outbox_id, repeated: true })),
        Claim::Reused => Err(WriteRecord::ReuseKey),
    }
}

async fn finish(
    mut transaction: Transaction<'static, Postgres>,
    user: &User,
    event: &NewEvent,
    key: Option<&IdempotencyKey>,
) -> Result<Written, WriteRecord> {
    let _append = traces::step("append");
    let outbox_id = log::append(&mut transaction, event).await.map_err(WriteRecord::AppendEvent)?;
    let answer = serde_json::to_string(user).expect("a user has only string keys, so it always serialises");
    if let Some(key) = key {
        key.store(&mut transaction, &answer, outbox_id).await.map_err(WriteRecord::ExecuteStatement)?;
    }
    transaction.commit().await.map_err(WriteRecord::ExecuteStatement)?;
    Ok(Written { answer, outbox_id, repeated: false })
}

/// The time to the microsecond, which is what Postgres keeps: the answer to a write and a
/// later read are equal.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

fn refine(error: sqlx::Error) -> WriteRecord {
    let taken = error.as_database_error().is_some_and(|error| error.constraint() == Some("users_email"));
    if taken { WriteRecord::TakeEmail } else { WriteRecord::ExecuteStatement(error) }
}
