//! `/v1/consumers/{name}/dead-letters` and `/redrive`: what was given up, and how to try it again.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::{get, post};
use jiff::Timestamp;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::super::events::position;
use super::super::extract::{JsonOf, PathOf, QueryOf};
use super::super::{Answer, AppState, Operation, Parameter, Routes};
use super::leases::{ContentDocument, content};
use super::{NAME, OWNER, OwnerQuery, find, may_take};
use crate::auth::{Caller, ConsumersWrite, Scope};
use crate::consumers::metrics::Kind;
use crate::consumers::{Consumer, Delivery, dead_letters};
use crate::events::{Registry, Violation};
use crate::position::Position;
use crate::problem::ApiError;

const PATH: &str = "/v1/consumers/{name}/dead-letters";
/// Dead letters of one page.
const PAGE_LETTERS: i64 = 100;
/// Most positions that one request names.
const POSITIONS_MAX: usize = 1_000;

pub(in crate::http) const AFTER: Parameter = Parameter {
    place: "query",
    name: "after",
    description: "Only those after this position: the `next` of the page before.",
    required: false,
};
pub(in crate::http) const POSITION: Parameter = Parameter {
    place: "query",
    name: "position",
    description: "Only the one at this position; all by default.",
    required: false,
};

pub(super) fn routes() -> Routes {
    let operation = |method, path, id, summary| Operation {
        scope: Some(ConsumersWrite::NAME),
        parameters: vec![NAME, OWNER],
        ..Operation::new(method, path, id, summary)
    };
    let list = Operation {
        parameters: vec![NAME, OWNER, AFTER],
        answers: vec![Answer::json::<DeadLetters>(200, "Up to 100, the oldest first")],
        ..operation(Method::GET, PATH, "listDeadLetters", "Lists events that were given up")
    };
    let delete = Operation {
        parameters: vec![NAME, OWNER, POSITION],
        answers: vec![Answer::json::<Count>(200, "How many were deleted")],
        ..operation(Method::DELETE, PATH, "deleteDeadLetters", "Forgets events that were given up")
    };
    let redrive = Operation {
        body: vec![("application/json", SchemaGenerator::subschema_for::<Places>)],
        answers: vec![Answer::json::<Count>(200, "How many are due again")],
        ..operation(
            Method::POST,
            "/v1/consumers/{name}/redrive",
            "redriveDeadLetters",
            "Makes events due again that were given up, with all attempts before them",
        )
    };
    Routes::new().with(list, get(list_letters).delete(forget)).documented(delete).with(redrive, post(redrive_letters))
}

/// Events that were given up.
#[derive(Serialize, JsonSchema)]
pub(in crate::http) struct DeadLetters {
    /// The oldest first.
    pub(in crate::http) dead_letters: Vec<DeadLetter>,
    /// Where the next page begins; null on the last one.
    pub(in crate::http) next: Option<Position>,
}

/// An event that was given up, or a gap.
#[derive(Serialize, JsonSchema)]
pub(in crate::http) struct DeadLetter {
    /// Names it.
    position: Position,
    /// How often it was tried.
    attempts: i32,
    /// When it was given up.
    dead_at: Option<Timestamp>,
    /// Why the last attempt failed.
    last_error: Option<String>,
    #[serde(flatten)]
    content: ContentDocument,
}

/// Which dead letters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Places {
    /// Those at these positions, up to 1000; all by default.
    positions: Option<Vec<Position>>,
}

/// How many.
#[derive(Serialize, JsonSchema)]
pub(in crate::http) struct Count {
    count: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    owner: Option<String>,
    after: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    owner: Option<String>,
    position: Option<String>,
}

async fn list_letters(
    State(state): State<AppState>,
    caller: Caller<ConsumersWrite>,
    PathOf(name): PathOf<String>,
    QueryOf(ListQuery { owner, after }): QueryOf<ListQuery>,
) -> Result<Json<DeadLetters>, ApiError> {
    let consumer = find(&state, &caller.claims, &name, &OwnerQuery { owner }).await?;
    may_take(&caller.claims, &consumer)?;
    let retry = consumer.retry_seconds(&state.config.consumers.retry_seconds);
    page(&state, &consumer, retry, after.as_deref()).await
}

/// A page of what was given up, for consumers and webhooks.
pub(in crate::http) async fn page(
    state: &AppState,
    consumer: &Consumer,
    retry: &[i32],
    after: Option<&str>,
) -> Result<Json<DeadLetters>, ApiError> {
    let after = after.map(|after| position("after", after)).transpose()?.map_or(0, |after| after.seq);
    let list = dead_letters::list(&state.postgres, consumer, after, PAGE_LETTERS, retry).await;
    let list = list.map_err(ApiError::unavailable)?;
    let is_full = i64::try_from(list.len()).is_ok_and(|count| count == PAGE_LETTERS);
    let next = list.last().filter(|_| is_full).map(|last| last.position);
    let dead_letters =
        list.into_iter().map(|delivery| letter(&state.registry, consumer, delivery)).collect::<Result<_, _>>()?;
    Ok(Json(DeadLetters { dead_letters, next }))
}

fn letter(registry: &Registry, consumer: &Consumer, delivery: Delivery) -> Result<DeadLetter, ApiError> {
    let (position, attempts, dead_at) = (delivery.position, delivery.attempts, delivery.dead_at);
    let last_error = delivery.last_error.clone();
    Ok(DeadLetter { position, attempts, dead_at, last_error, content: content(registry, consumer, delivery)? })
}

async fn redrive_letters(
    State(state): State<AppState>,
    caller: Caller<ConsumersWrite>,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<OwnerQuery>,
    JsonOf(places): JsonOf<Places>,
) -> Result<Json<Count>, ApiError> {
    let consumer = find(&state, &caller.claims, &name, &query).await?;
    let retry = consumer.retry_seconds(&state.config.consumers.retry_seconds);
    redrive(&state, (&consumer, Kind::Consumer), retry, &places).await
}

/// Makes dead letters due again, for consumers and webhooks.
pub(in crate::http) async fn redrive(
    state: &AppState,
    (consumer, kind): (&Consumer, Kind),
    retry: &[i32],
    places: &Places,
) -> Result<Json<Count>, ApiError> {
    if places.positions.as_ref().is_some_and(|positions| positions.len() > POSITIONS_MAX) {
        let message = format!("must have at most {POSITIONS_MAX} positions");
        return Err(ApiError::InvalidDocument(vec![Violation::new("/positions", message)]));
    }
    let seqs: Option<Vec<i64>> =
        places.positions.as_ref().map(|positions| positions.iter().map(|position| position.seq).collect());
    let redriven = dead_letters::redrive(&state.postgres, consumer, seqs.as_deref(), retry).await;
    let count = redriven.map_err(ApiError::unavailable)?;
    state.metrics.deliveries.count(kind, "redriven", usize::try_from(count).unwrap_or(usize::MAX));
    Ok(Json(Count { count }))
}

async fn forget(
    State(state): State<AppState>,
    caller: Caller<ConsumersWrite>,
    PathOf(name): PathOf<String>,
    QueryOf(DeleteQuery { owner, position }): QueryOf<DeleteQuery>,
) -> Result<Json<Count>, ApiError> {
    let consumer = find(&state, &caller.claims, &name, &OwnerQuery { owner }).await?;
    delete(&state, &consumer, position.as_deref()).await
}

/// Forgets dead letters, for consumers and webhooks.
pub(in crate::http) async fn delete(
    state: &AppState,
    consumer: &Consumer,
    place: Option<&str>,
) -> Result<Json<Count>, ApiError> {
    let seq = place.map(|place| position("position", place)).transpose()?.map(|position| position.seq);
    let seqs = seq.as_ref().map(std::slice::from_ref);
    let count = dead_letters::delete(&state.postgres, consumer, seqs).await.map_err(ApiError::unavailable)?;
    Ok(Json(Count { count }))
}
