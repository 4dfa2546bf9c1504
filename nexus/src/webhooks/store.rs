//! The rows of the webhooks: where to deliver, with which secrets, and how it has gone.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::message::Message;
use super::signature::SigningSecret;
use crate::auth::Claims;
use crate::consumers::Consumer;
use crate::consumers::store::{self, AccessConsumers, Settings};
use crate::store::postgres::in_time;

/// Most webhooks that a list shows.
const LIST_MAX: i64 = 1_000;

/// A webhook as it is stored.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its name in the API.
    pub id: Uuid,
    /// What it wants and how far it has come.
    pub consumer: Consumer,
    /// Where to deliver.
    pub url: String,
    /// For people.
    pub description: String,
    /// The token by which it was made or last changed.
    pub token: Token,
    /// Signs every delivery.
    secret: SigningSecret,
    /// The secret before, and until when it signs as well.
    previous: Option<(SigningSecret, Timestamp)>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when every delivery has failed, and something waited all the time.
    pub failing_since: Option<Timestamp>,
    /// Why the last one failed.
    pub last_error: Option<String>,
    /// When it was disabled, and why.
    pub disabled: Option<(Timestamp, String)>,
}

/// What is known of a token when it is not there any more.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its `jti`.
    pub id: Option<String>,
    /// When it was issued, in seconds since 1970.
    pub issued_at: i64,
}

/// Why a webhook gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disabled {
    /// Its owner wants it so.
    Owner,
    /// The receiver answered 410.
    Gone,
    /// Everything has failed for too long.
    Failing,
    /// The token that it was made with was revoked.
    Revoked,
}

impl Disabled {
    /// The word in the API and in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Gone => "gone",
            Self::Failing => "failing",
            Self::Revoked => "revoked",
        }
    }
}

impl Token {
    /// What is to be remembered of these claims. A token that does not say when it was issued was good now.
    pub fn of(claims: &Claims, now: Timestamp) -> Self {
        let issued_at = claims.iat.and_then(|seconds| i64::try_from(seconds).ok());
        Self { id: claims.jti.clone(), issued_at: issued_at.unwrap_or_else(|| now.as_second()) }
    }
}

impl Webhook {
    /// The signatures of a message that is sent now: of each secret that counts.
    pub(super) fn sign(&self, message: &Message, now: Timestamp) -> String {
        let sign = |secret: &SigningSecret| secret.sign(&message.id, now.as_second(), &message.body);
        let previous = self.previous.as_ref().filter(|(_, until)| now < *until);
        let signatures: Vec<String> =
            std::iter::once(&self.secret).chain(previous.map(|(secret, _)| secret)).map(sign).collect();
        signatures.join(" ")
    }

    /// Until when the secret before signs as well.
    pub fn previous_until(&self) -> Option<Timestamp> {
        self.previous.as_ref().map(|(_, until)| *until)
    }

    /// Claims by which it can be told whether its token was revoked.
    pub(super) fn claims(&self) -> Claims {
        Claims {
            sub: self.consumer.owner.clone(),
            iat: u64::try_from(self.token.issued_at).ok(),
            jti: self.token.id.clone(),
            ..Claims::default()
        }
    }
}

/// What of a webhook its owner says.
#[derive(Clone, Debug)]
pub struct Written {
    /// Where to deliver.
    pub url: String,
    /// For people.
    pub description: String,
    /// The token of the caller.
    pub token: Token,
    /// What it wants and how it is served.
    pub settings: Settings,
}

const COLUMNS: &str =
    "SELECT consumer.*, webhook.id AS webhook_id, url, description, token_id, token_issued_at, secret,
        previous_secret, previous_until, webhook.created_at AS made_at, failing_since, last_error, disabled_at,
        disabled_reason
    FROM webhook JOIN consumer ON consumer.id = consumer_id";

/// Makes a webhook.
pub async fn create(
    pool: &PgPool,
    owner: &str,
    written: &Written,
    (secret, position): (&SigningSecret, i64),
    max: i64,
) -> Result<Uuid, AccessConsumers> {
    const COUNT: &str = "SELECT count(*) FROM webhook JOIN consumer ON consumer.id = consumer_id WHERE owner = $1";
    const CREATE: &str = "INSERT INTO webhook (id, consumer_id, url, description, token_id, token_issued_at, secret)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let id = Uuid::new_v4();
    let create = async {
        let mut transaction = pool.begin().await?;
        let count: i64 = sqlx::query_scalar(COUNT).bind(owner).fetch_one(&mut *transaction).await?;
        if count >= max {
            return Ok(false);
        }
        let consumer_id = store::insert(&mut transaction, owner, &written.settings, position).await?;
        sqlx::query(CREATE)
            .bind(id)
            .bind(consumer_id)
            .bind(&written.url)
            .bind(&written.description)
            .bind(&written.token.id)
            .bind(written.token.issued_at)
            .bind(secret.bytes())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    };
    let made = in_time(create).await.map_err(AccessConsumers::QueryConsumers)?;
    if made { Ok(id) } else { Err(AccessConsumers::LimitConsumers { max }) }
}

/// The webhook of this id; of this owner, or of anybody's.
pub async fn find(pool: &PgPool, id: Uuid, owner: Option<&str>) -> Result<Option<Webhook>, AccessConsumers> {
    let find = format!("{COLUMNS} WHERE webhook.id = $1 AND ($2::text IS NULL OR owner = $2)");
    let find = sqlx::query_as(sqlx::AssertSqlSafe(find)).bind(id).bind(owner);
    in_time(find.fetch_optional(pool)).await.map_err(AccessConsumers::QueryConsumers)
}

/// The webhooks of this owner, or of everybody.
pub async fn list(pool: &PgPool, owner: Option<&str>) -> Result<Vec<Webhook>, AccessConsumers> {
    let list =
        format!("{COLUMNS} WHERE $1::text IS NULL OR owner = $1 ORDER BY webhook.created_at, webhook.id LIMIT $2");
    let list = sqlx::query_as(sqlx::AssertSqlSafe(list)).bind(owner).bind(LIST_MAX);
    in_time(list.fetch_all(pool)).await.map_err(AccessConsumers::QueryConsumers)
}

/// A webhook that gets something, as it stands.
#[derive(Debug)]
pub(super) struct Ready {
    /// Number of its consumer.
    pub(super) consumer: i64,
    /// Whose it is.
    pub(super) owner: String,
    /// Whether the last attempt failed.
    pub(super) is_failing: bool,
    /// Since when every delivery has failed.
    pub(super) failing_since: Option<Timestamp>,
    /// Whether the log has more.
    pub(super) is_behind: bool,
    /// Whether something is due; none when nothing waits.
    pub(super) is_due: Option<bool>,
}

/// All that get something. In no order, so that with all places taken none comes first every time.
pub(super) async fn ready(pool: &PgPool) -> Result<Vec<Ready>, sqlx::Error> {
    const READY: &str = "SELECT consumer.id, owner, last_error IS NOT NULL AS is_failing, failing_since,
            position < head.seq AS is_behind,
            (SELECT min(due_at) FROM delivery WHERE consumer_id = consumer.id AND dead_at IS NULL) <= now() AS is_due
        FROM webhook JOIN consumer ON consumer.id = consumer_id CROSS JOIN head
        WHERE disabled_at IS NULL ORDER BY random()";
    in_time(sqlx::query_as(READY).fetch_all(pool)).await
}

/// The webhook of this consumer if it gets anything, for as long as the transaction lasts no other's.
pub(super) async fn lock(connection: &mut PgConnection, consumer: i64) -> Result<Option<Webhook>, sqlx::Error> {
    let lock =
        format!("{COLUMNS} WHERE consumer.id = $1 AND disabled_at IS NULL FOR NO KEY UPDATE OF consumer SKIP LOCKED");
    sqlx::query_as(sqlx::AssertSqlSafe(lock)).bind(consumer).fetch_optional(connection).await
}

/// Writes down what the owner says now.
pub async fn change(pool: &PgPool, webhook: &Webhook, written: &Written) -> Result<(), AccessConsumers> {
    const CHANGE: &str =
        "UPDATE webhook SET url = $2, description = $3, token_id = $4, token_issued_at = $5 WHERE id = $1";
    let change = async {
        let mut transaction = pool.begin().await?;
        store::change(&mut transaction, webhook.consumer.id, &written.settings).await?;
        sqlx::query(CHANGE)
            .bind(webhook.id)
            .bind(&written.url)
            .bind(&written.description)
            .bind(&written.token.id)
            .bind(written.token.issued_at)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    };
    in_time(change).await.map_err(AccessConsumers::QueryConsumers)
}

/// Lets it go on where it stood: what waits is due at once, with all attempts before it.
pub async fn enable(pool: &PgPool, webhook: &Webhook) -> Result<(), AccessConsumers> {
    const ENABLE: &str = "UPDATE webhook SET disabled_at = NULL, disabled_reason = NULL, failing_since = NULL
        WHERE id = $1 AND disabled_at IS NOT NULL";
    const DUE: &str = "UPDATE delivery SET attempts = 0, lease = NULL, leased_until = NULL, due_at = now()
        WHERE consumer_id = $1 AND dead_at IS NULL";
    let enable = async {
        let mut transaction = pool.begin().await?;
        let enabled = sqlx::query(ENABLE).bind(webhook.id).execute(&mut *transaction).await?;
        if enabled.rows_affected() > 0 {
            sqlx::query(DUE).bind(webhook.consumer.id).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    };
    in_time(enable).await.map_err(AccessConsumers::QueryConsumers)
}

/// Lets it get nothing any more; whether it got something before.
pub async fn disable(pool: &PgPool, id: Uuid, reason: Disabled) -> Result<bool, AccessConsumers> {
    const DISABLE: &str =
        "UPDATE webhook SET disabled_at = now(), disabled_reason = $2 WHERE id = $1 AND disabled_at IS NULL";
    let disable = sqlx::query(DISABLE).bind(id).bind(reason.as_str());
    let disabled = in_time(disable.execute(pool)).await.map_err(AccessConsumers::QueryConsumers)?;
    Ok(disabled.rows_affected() > 0)
}

/// Signs with another secret from now on, and with the one before for as long as `overlap`. One before that signs no more.
pub async fn rotate(pool: &PgPool, id: Uuid, secret: &SigningSecret, overlap: Duration) -> Result<(), AccessConsumers> {
    const ROTATE: &str =
        "UPDATE webhook SET previous_secret = secret, previous_until = now() + $3, secret = $2 WHERE id = $1";
    let rotate = sqlx::query(ROTATE).bind(id).bind(secret.bytes()).bind(overlap);
    in_time(rotate.execute(pool)).await.map_err(AccessConsumers::QueryConsumers)?;
    Ok(())
}

/// Ends a webhook, with everything that waits for it.
pub async fn delete(pool: &PgPool, webhook: &Webhook) -> Result<(), AccessConsumers> {
    let delete = sqlx::query("DELETE FROM consumer WHERE id = $1").bind(webhook.consumer.id);
    in_time(delete.execute(pool)).await.map_err(AccessConsumers::QueryConsumers)?;
    Ok(())
}

/// Takes note that something arrived.
pub(super) async fn succeeded(pool: &PgPool, id: Uuid) -> Result<(), sqlx::Error> {
    const SUCCEEDED: &str =
        "UPDATE webhook SET failing_since = NULL, last_error = NULL WHERE id = $1 AND last_error IS NOT NULL";
    in_time(sqlx::query(SUCCEEDED).bind(id).execute(pool)).await?;
    Ok(())
}

/// Forgets since when everything has failed, unless something waits: what comes after a pause is given all its attempts.
pub(super) async fn rest(pool: &PgPool, consumer: i64) -> Result<(), sqlx::Error> {
    const REST: &str = "UPDATE webhook SET failing_since = NULL WHERE consumer_id = $1
        AND NOT EXISTS (SELECT FROM delivery WHERE consumer_id = $1 AND dead_at IS NULL)";
    in_time(sqlx::query(REST).bind(consumer).execute(pool)).await?;
    Ok(())
}

/// Takes note that something did not arrive; whether the webhook is disabled for it, because nothing has for `patience`.
pub(super) async fn failed(pool: &PgPool, id: Uuid, reason: &str, patience: Duration) -> Result<bool, sqlx::Error> {
    const FAILED: &str = "UPDATE webhook SET failing_since = coalesce(failing_since, now()), last_error = $2
        WHERE id = $1 RETURNING disabled_at IS NULL AND failing_since <= now() - $3::interval";
    let failed = sqlx::query_scalar(FAILED).bind(id).bind(reason).bind(patience);
    let is_enough: Option<bool> = in_time(failed.fetch_optional(pool)).await?;
    Ok(is_enough.unwrap_or(false))
}

impl FromRow<'_, PgRow> for Ready {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let failing_since: Option<jiff_sqlx::Timestamp> = row.try_get("failing_since")?;
        Ok(Self {
            consumer: row.try_get("id")?,
            owner: row.try_get("owner")?,
            is_failing: row.try_get("is_failing")?,
            failing_since: failing_since.map(jiff_sqlx::Timestamp::to_jiff),
            is_behind: row.try_get("is_behind")?,
            is_due: row.try_get("is_due")?,
        })
    }
}

impl FromRow<'_, PgRow> for Webhook {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let time = |name: &str| -> Result<Option<Timestamp>, sqlx::Error> {
            Ok(row.try_get::<Option<jiff_sqlx::Timestamp>, _>(name)?.map(jiff_sqlx::Timestamp::to_jiff))
        };
        let secret =
            |bytes: Vec<u8>| SigningSecret::of_bytes(bytes).map_err(|error| sqlx::Error::Decode(Box::new(error)));
        let previous: Option<Vec<u8>> = row.try_get("previous_secret")?;
        let previous = previous.map(secret).transpose()?.zip(time("previous_until")?);
        let disabled_reason: Option<String> = row.try_get("disabled_reason")?;
        Ok(Self {
            id: row.try_get("webhook_id")?,
            consumer: Consumer::from_row(row)?,
            url: row.try_get("url")?,
            description: row.try_get("description")?,
            token: Token { id: row.try_get("token_id")?, issued_at: row.try_get("token_issued_at")? },
            secret: secret(row.try_get("secret")?)?,
            previous,
            created_at: row.try_get::<jiff_sqlx::Timestamp, _>("made_at")?.to_jiff(),
            failing_since: time("failing_since")?,
            last_error: row.try_get("last_error")?,
            disabled: time("disabled_at")?.zip(disabled_reason),
        })
    }
}
