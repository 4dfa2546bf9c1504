//! What is done with a webhook: another secret, a test, and its dead letters.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::{get, post};
use jiff::Timestamp;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::consumers::dead_letters::{self, AFTER, Count, DeadLetters, POSITION, Places};
use super::super::consumers::may_take;
use super::super::extract::{JsonOf, PathOf, QueryOf};
use super::super::{Answer, AppState, Operation, Routes};
use super::document::read_secret;
use super::{ID, find, operation};
use crate::auth::{Caller, WebhooksWrite};
use crate::consumers::metrics::Kind;
use crate::problem::ApiError;
use crate::webhooks::{Message, Outcome, SigningSecret, store};

const DEAD_LETTERS: &str = "/v1/webhooks/{id}/dead-letters";
/// Longest test, in seconds: the caller waits for it, and a request has a deadline.
const TEST_SECONDS_MAX: u64 = 10;

pub(super) fn routes() -> Routes {
    let action = |path, id, summary| Operation { parameters: vec![ID], ..operation(Method::POST, path, id, summary) };
    let rotate = Operation {
        body: vec![("application/json", SchemaGenerator::subschema_for::<NewSecret>)],
        answers: vec![Answer::json::<Rotated>(200, "The new secret, shown this once")],
        ..action("/v1/webhooks/{id}/rotate-secret", "rotateWebhookSecret", "Signs with another secret from now on")
    };
    let test = Operation {
        answers: vec![Answer::json::<Tested>(200, "What came of it")],
        ..action("/v1/webhooks/{id}/test", "testWebhook", "Delivers an event of the type nexus.test, once and now")
    };
    let redrive = Operation {
        body: vec![("application/json", SchemaGenerator::subschema_for::<Places>)],
        answers: vec![Answer::json::<Count>(200, "How many are due again")],
        ..action(
            "/v1/webhooks/{id}/redrive",
            "redriveWebhook",
            "Makes events due again that were given up, with all attempts before them",
        )
    };
    let list = Operation {
        parameters: vec![ID, AFTER],
        answers: vec![Answer::json::<DeadLetters>(200, "Up to 100, the oldest first")],
        ..operation(Method::GET, DEAD_LETTERS, "listWebhookDeadLetters", "Lists events that were given up")
    };
    let delete = Operation {
        parameters: vec![ID, POSITION],
        answers: vec![Answer::json::<Count>(200, "How many were deleted")],
        ..operation(Method::DELETE, DEAD_LETTERS, "deleteWebhookDeadLetters", "Forgets events that were given up")
    };
    Routes::new()
        .with(rotate, post(rotate_secret))
        .with(test, post(try_out))
        .with(redrive, post(redrive_letters))
        .with(list, get(list_letters).delete(forget))
        .documented(delete)
}

/// Another secret.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewSecret {
    /// A secret of the caller's own, `whsec_` and the base64 of 24 to 64 bytes; made by Nexus by default.
    secret: Option<String>,
}

/// The secrets after a rotation.
#[derive(Serialize, JsonSchema)]
struct Rotated {
    /// The new secret. It is not shown again.
    secret: String,
    /// Until then the secret before signs as well. One that was before that signs no more.
    previous_secret_until: Option<Timestamp>,
}

/// What came of a test.
#[derive(Serialize, JsonSchema)]
struct Tested {
    /// Whether the receiver answered with success.
    delivered: bool,
    /// The status of the answer; null when there was none.
    status: Option<u16>,
    /// What went wrong.
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    after: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    position: Option<String>,
}

async fn rotate_secret(
    State(state): State<AppState>,
    caller: Caller<WebhooksWrite>,
    PathOf(id): PathOf<Uuid>,
    JsonOf(NewSecret { secret }): JsonOf<NewSecret>,
) -> Result<Json<Rotated>, ApiError> {
    find(&state, &caller.claims, id).await?;
    let secret = secret.as_deref().map_or_else(|| Ok(SigningSecret::generate()), read_secret)?;
    let overlap = Duration::from_secs(state.config.webhooks.secret_overlap_seconds);
    store::rotate(&state.postgres, id, &secret, overlap).await?;
    let webhook = find(&state, &caller.claims, id).await?;
    Ok(Json(Rotated { secret: secret.expose(), previous_secret_until: webhook.previous_until() }))
}

async fn try_out(
    State(state): State<AppState>,
    caller: Caller<WebhooksWrite>,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Tested>, ApiError> {
    let webhook = find(&state, &caller.claims, id).await?;
    let message = Message::test(id, Timestamp::now());
    let deadline = Duration::from_secs(state.config.webhooks.attempt_seconds.min(TEST_SECONDS_MAX));
    let tested = match state.receivers.attempt(&webhook, &message, deadline).await {
        Outcome::Delivered { status } => Tested { delivered: true, status: Some(status), error: None },
        Outcome::Gone => Tested { delivered: false, status: Some(410), error: None },
        Outcome::Failed { status, reason, .. } => Tested { delivered: false, status, error: Some(reason) },
    };
    Ok(Json(tested))
}

async fn list_letters(
    State(state): State<AppState>,
    caller: Caller<WebhooksWrite>,
    PathOf(id): PathOf<Uuid>,
    QueryOf(ListQuery { after }): QueryOf<ListQuery>,
) -> Result<Json<DeadLetters>, ApiError> {
    let webhook = find(&state, &caller.claims, id).await?;
    may_take(&caller.claims, &webhook.consumer)?;
    let retry = webhook.consumer.retry_seconds(&state.config.webhooks.retry_seconds);
    dead_letters::page(&state, &webhook.consumer, retry, after.as_deref()).await
}

async fn redrive_letters(
    State(state): State<AppState>,
    caller: Caller<WebhooksWrite>,
    PathOf(id): PathOf<Uuid>,
    JsonOf(places): JsonOf<Places>,
) -> Result<Json<Count>, ApiError> {
    let webhook = find(&state, &caller.claims, id).await?;
    let retry = webhook.consumer.retry_seconds(&state.config.webhooks.retry_seconds);
    dead_letters::redrive(&state, (&webhook.consumer, Kind::Webhook), retry, &places).await
}

async fn forget(
    State(state): State<AppState>,
    caller: Caller<WebhooksWrite>,
    PathOf(id): PathOf<Uuid>,
    QueryOf(DeleteQuery { position }): QueryOf<DeleteQuery>,
) -> Result<Json<Count>, ApiError> {
    let webhook = find(&state, &caller.claims, id).await?;
    dead_letters::delete(&state, &webhook.consumer, position.as_deref()).await
}
