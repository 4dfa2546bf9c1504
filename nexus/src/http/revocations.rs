//! `POST /v1/revocations`: ends tokens before their time.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::routing::post;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::extract::JsonOf;
use super::{Answer, AppState, Operation, Routes};
use crate::auth::{Admin, Caller, Scope};
use crate::events::Violation;
use crate::problem::ApiError;
use crate::store::postgres::in_time;

/// Longest subject or id of a token, in bytes.
const NAME_BYTES_MAX: usize = 256;

pub(super) fn routes() -> Routes {
    let operation = Operation {
        scope: Some(Admin::NAME),
        body: vec![("application/json", SchemaGenerator::subschema_for::<NewRevocation>)],
        answers: vec![Answer::json::<Revocation>(201, "Revoked; every pod knows within a second")],
        ..Operation::new(Method::POST, "/v1/revocations", "revokeTokens", "Ends tokens before their time")
    };
    Routes::new().with(operation, post(revoke))
}

/// What is to be revoked: one of the two.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewRevocation {
    /// Every token of this subject (`sub`) that was issued up to now. Tokens count again that are issued more than
    /// ten seconds later, for the clocks of the issuer and the database may differ.
    #[schemars(length(min = 1, max = 256))]
    subject: Option<String>,
    /// The token with this id (`jti`).
    #[schemars(length(min = 1, max = 256))]
    token_id: Option<String>,
    /// When the last of these tokens ends (`exp`), RFC 3339. A minute later the revocation is forgotten. Without it that
    /// follows from the longest life of a token, if the deployment has set one; else it is kept for ever.
    expires: Option<Timestamp>,
}

/// What was revoked.
#[derive(Serialize, JsonSchema)]
struct Revocation {
    /// The subject whose tokens count no more.
    subject: Option<String>,
    /// The token that counts no more.
    token_id: Option<String>,
    /// Up to when they were issued.
    revoked_at: Timestamp,
    /// When the last of them ends, if that was said.
    expires: Option<Timestamp>,
}

async fn revoke(
    State(state): State<AppState>,
    _: Caller<Admin>,
    JsonOf(NewRevocation { subject, token_id, expires }): JsonOf<NewRevocation>,
) -> Result<(StatusCode, Json<Revocation>), ApiError> {
    let violation = match (&subject, &token_id) {
        (Some(_), Some(_)) | (None, None) => Some(Violation::new("", "has either `subject` or `token_id`")),
        (Some(name), None) => refused("/subject", name),
        (None, Some(name)) => refused("/token_id", name),
    };
    // Who has mixed up two times would else revoke nothing.
    let over = expires.is_some_and(|expires| expires < Timestamp::now());
    let violation = violation.or_else(|| over.then(|| Violation::new("/expires", "must lie in the future")));
    if let Some(violation) = violation {
        return Err(ApiError::InvalidDocument(vec![violation]));
    }
    let insert = "INSERT INTO revocation (subject, token_id, ends_at) VALUES ($1, $2, $3) RETURNING revoked_at";
    let insert = sqlx::query_scalar(insert).bind(&subject).bind(&token_id).bind(expires.map(ToSqlx::to_sqlx));
    let revoked_at: jiff_sqlx::Timestamp =
        in_time(insert.fetch_one(&state.postgres)).await.map_err(ApiError::unavailable)?;
    tracing::info!(subject, token_id, "tokens were revoked");
    // The other pods look by themselves; whoever asks this one is refused from now on.
    let revocations = state.verifier.revocations();
    revocations.look(&state.postgres, &state.hub).await.map_err(ApiError::unavailable)?;
    Ok((StatusCode::CREATED, Json(Revocation { subject, token_id, revoked_at: revoked_at.to_jiff(), expires })))
}

fn refused(path: &str, name: &str) -> Option<Violation> {
    let valid = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control);
    let message = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control characters");
    (!valid).then(|| Violation::new(path, message))
}
