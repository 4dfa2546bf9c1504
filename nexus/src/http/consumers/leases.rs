//! `/v1/consumers/{name}/lease`, `/ack`, `/nack`, `/extend`: takes events, and tells what became of them.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::post;
use jiff::Timestamp;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::super::admission::{ClientAddress, place};
use super::super::extract::{JsonOf, PathOf, QueryOf};
use super::super::{Answer, AppState, Operation, Routes};
use super::{NAME, OWNER, OwnerQuery, find, may_take, refused_lease};
use crate::auth::{Caller, ConsumersWrite, Scope};
use crate::consumers::delivery::Lease;
use crate::consumers::fill::{Asker, fill};
use crate::consumers::lease::{self, Delay, Failure, Settled};
use crate::consumers::metrics::Kind;
use crate::consumers::{Consumer, Content, Delivery};
use crate::events::{Registry, Violation};
use crate::position::Position;
use crate::problem::ApiError;

/// Most events of one lease: with the bound on one event it bounds the answer.
const COUNT_MAX: i64 = 100;
/// Longest that a caller may wait for events, in seconds: below the deadline of a request.
const WAIT_SECONDS_MAX: u64 = 12;
/// How soon a waiting caller looks again for what no entry of the log announces: a wait or a lease that has ended.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Shortest time between two looks of a waiting caller, however much is written that is not for it.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Longest wait that a nack may ask for, in seconds: half a day.
const DELAY_SECONDS_MAX: u64 = 43_200;
/// Longest reason of a nack, in bytes.
const REASON_BYTES_MAX: usize = 1_024;

pub(super) fn routes() -> Routes {
    let lease = Operation {
        body: vec![("application/json", SchemaGenerator::subschema_for::<Asked>)],
        answers: vec![Answer::json::<Leased>(200, "The oldest events that are due; none when there are none")],
        ..operation("/v1/consumers/{name}/lease", "leaseDeliveries", "Leases events to the caller")
    };
    let settled = || vec![Answer::json::<Receipt>(200, "What was done, and the leases that were no longer good")];
    let ack = Operation {
        body: vec![("application/json", SchemaGenerator::subschema_for::<Held>)],
        answers: settled(),
        ..operation("/v1/consumers/{name}/ack", "acknowledgeDeliveries", "Acknowledges leased events: they are done")
    };
    let nack = Operation {
        body: vec![("application/json", SchemaGenerator::subschema_for::<Failed>)],
        answers: settled(),
        ..operation("/v1/consumers/{name}/nack", "refuseDeliveries", "Gives leased events back: they are tried again")
    };
    let extend = Operation {
        body: vec![("application/json", SchemaGenerator::subschema_for::<Extended>)],
        answers: settled(),
        ..operation("/v1/consumers/{name}/extend", "extendLeases", "Lets leases last longer, from now on")
    };
    Routes::new()
        .with(lease, post(take))
        .with(ack, post(acknowledge))
        .with(nack, post(give_back))
        .with(extend, post(prolong))
}

fn operation(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    let parameters = vec![NAME, OWNER];
    Operation { scope: Some(ConsumersWrite::NAME), parameters, ..Operation::new(Method::POST, path, id, summary) }
}

/// What is to be leased.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Most events, 1 to 100; 10 by default.
    #[serde(default = "count")]
    #[schemars(range(min = 1, max = 100))]
    count: i64,
    /// Seconds to wait when there is no event yet, 0 to 12; 0 by default.
    #[serde(default)]
    #[schemars(range(max = 12))]
    wait_seconds: u64,
    /// How long the leases last; as the consumer says by default.
    lease_seconds: Option<i32>,
}

fn count() -> i64 {
    10
}

/// What was leased.
#[derive(Serialize, JsonSchema)]
struct Leased {
    /// The oldest first.
    deliveries: Vec<LeasedDelivery>,
}

/// One delivery: an event or a gap.
#[derive(Serialize, JsonSchema)]
struct LeasedDelivery {
    /// Names the lease when it is acknowledged, given back or extended.
    lease: String,
    /// When the lease ends.
    leased_until: Option<Timestamp>,
    /// The how manieth attempt it is, from 1.
    attempt: i32,
    #[serde(flatten)]
    content: ContentDocument,
}

/// What is delivered.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ContentDocument {
    /// The event, with the extension attribute `position`.
    #[schemars(with = "Value")]
    Event(Box<RawValue>),
    /// Retention has dropped everything after `from`, up to and with `to`, before this consumer was given it.
    Gap {
        /// The last place before the gap.
        from: Position,
        /// The last place of the gap.
        to: Position,
    },
}

/// Leases that the caller holds.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Held {
    /// Up to 100 leases.
    leases: Vec<String>,
}

/// Leases that are given back.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Failed {
    /// Up to 100 leases.
    leases: Vec<String>,
    /// Seconds until the next attempt, 0 to 43200; as the consumer's waits say by default.
    delay_seconds: Option<u64>,
    /// Why, for people who look at the dead letters; up to 1024 bytes.
    #[serde(default)]
    reason: String,
}

/// Leases that are to last longer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Extended {
    /// Up to 100 leases.
    leases: Vec<String>,
    /// How long they last from now on; as the consumer says by default.
    lease_seconds: Option<i32>,
}

/// What became of leases.
#[derive(Serialize, JsonSchema)]
struct Receipt {
    /// How many were good.
    done: usize,
    /// How many of them were the last attempt: the events are dead letters now.
    dead_letters: usize,
    /// Those that were no longer good: another lease was given since, or the event is done.
    lost: Vec<String>,
}

async fn take(
    State(state): State<AppState>,
    caller: Caller<ConsumersWrite>,
    address: ClientAddress,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<OwnerQuery>,
    JsonOf(asked): JsonOf<Asked>,
) -> Result<Json<Leased>, ApiError> {
    check(&asked)?;
    let deadline = Instant::now() + Duration::from_secs(asked.wait_seconds);
    let _place = if asked.wait_seconds > 0 { Some(place(&state, address).await?) } else { None };
    let mut moved = state.tail.subscribe();
    loop {
        // Before the first look: what comes after that is noticed.
        moved.mark_unchanged();
        let consumer = find(&state, &caller.claims, &name, &query).await?;
        may_take(&caller.claims, &consumer)?;
        let bounds = &state.config.consumers;
        if consumer.position < state.tail.head() {
            fill(&state.postgres, consumer.id, bounds, Asker::Taker).await.map_err(ApiError::unavailable)?;
        }
        let duration = seconds(asked.lease_seconds.unwrap_or(consumer.settings.lease_seconds));
        let retry = consumer.retry_seconds(&bounds.retry_seconds);
        let leased = lease::lease(&state.postgres, &consumer, asked.count, duration, retry).await;
        let leased = leased.map_err(ApiError::unavailable)?;
        if !leased.is_empty() || Instant::now() >= deadline || state.draining.is_cancelled() {
            state.metrics.deliveries.count(Kind::Consumer, "leased", leased.len());
            let deliveries = leased.into_iter().map(|delivery| document(&state.registry, &consumer, delivery));
            let deliveries = deliveries.collect::<Result<_, _>>()?;
            return Ok(Json(Leased { deliveries }));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        let _ = timeout_at(deadline.min(Instant::now() + LOOK_PERIOD), moved.changed()).await;
        // What came meanwhile is not for one whose token was revoked meanwhile.
        state.verifier.check(&caller.claims)?;
    }
}

fn check(asked: &Asked) -> Result<(), ApiError> {
    let mut violations = Vec::new();
    if !(1..=COUNT_MAX).contains(&asked.count) {
        violations.push(Violation::new("/count", format!("must be a number from 1 to {COUNT_MAX}")));
    }
    if asked.wait_seconds > WAIT_SECONDS_MAX {
        let message = format!("must be a number of seconds from 0 to {WAIT_SECONDS_MAX}");
        violations.push(Violation::new("/wait_seconds", message));
    }
    violations.extend(asked.lease_seconds.and_then(|seconds| refused_lease("/lease_seconds", seconds)));
    if violations.is_empty() { Ok(()) } else { Err(ApiError::InvalidDocument(violations)) }
}

fn document(registry: &Registry, consumer: &Consumer, delivery: Delivery) -> Result<LeasedDelivery, ApiError> {
    let lease = delivery.lease.map(|lease| lease.to_string()).unwrap_or_default();
    let (leased_until, attempt) = (delivery.leased_until, delivery.attempts);
    Ok(LeasedDelivery { lease, leased_until, attempt, content: content(registry, consumer, delivery)? })
}

pub(super) fn content(
    registry: &Registry,
    consumer: &Consumer,
    delivery: Delivery,
) -> Result<ContentDocument, ApiError> {
    match delivery.content {
        Content::Event { event, .. } => {
            let text = consumer.text(registry, &event, delivery.position);
            serde_json::from_slice(&text).map(ContentDocument::Event).map_err(ApiError::internal)
        }
        Content::Gap { from } => Ok(ContentDocument::Gap { from, to: delivery.position }),
    }
}

async fn acknowledge(
    State(state): State<AppState>,
    caller: Caller<ConsumersWrite>,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<OwnerQuery>,
    JsonOf(Held { leases }): JsonOf<Held>,
) -> Result<Json<Receipt>, ApiError> {
    let leases = read(&leases)?;
    let consumer = find(&state, &caller.claims, &name, &query).await?;
    let settled = lease::acknowledge(&state.postgres, consumer.id, &leases).await.map_err(ApiError::unavailable)?;
    Ok(receipt(&state, "acknowledged", &leases, &settled))
}

async fn give_back(
    State(state): State<AppState>,
    caller: Caller<ConsumersWrite>,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<OwnerQuery>,
    JsonOf(Failed { leases, delay_seconds, reason }): JsonOf<Failed>,
) -> Result<Json<Receipt>, ApiError> {
    let leases = read(&leases)?;
    if delay_seconds.is_some_and(|seconds| seconds > DELAY_SECONDS_MAX) {
        let message = format!("must be a number of seconds from 0 to {DELAY_SECONDS_MAX}");
        return Err(ApiError::InvalidDocument(vec![Violation::new("/delay_seconds", message)]));
    }
    if reason.len() > REASON_BYTES_MAX || reason.contains('\0') {
        let message = format!("must have at most {REASON_BYTES_MAX} bytes, none of them zero");
        return Err(ApiError::InvalidDocument(vec![Violation::new("/reason", message)]));
    }
    let consumer = find(&state, &caller.claims, &name, &query).await?;
    let retry = consumer.retry_seconds(&state.config.consumers.retry_seconds);
    let delay = delay_seconds.map_or(Delay::Scheduled, |seconds| Delay::Exactly(Duration::from_secs(seconds)));
    let failure = Failure { reason: &reason, delay };
    let settled = lease::fail(&state.postgres, &consumer, &leases, retry, failure).await;
    Ok(receipt(&state, "failed", &leases, &settled.map_err(ApiError::unavailable)?))
}

async fn prolong(
    State(state): State<AppState>,
    caller: Caller<ConsumersWrite>,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<OwnerQuery>,
    JsonOf(Extended { leases, lease_seconds }): JsonOf<Extended>,
) -> Result<Json<Receipt>, ApiError> {
    let leases = read(&leases)?;
    if let Some(violation) = lease_seconds.and_then(|seconds| refused_lease("/lease_seconds", seconds)) {
        return Err(ApiError::InvalidDocument(vec![violation]));
    }
    let consumer = find(&state, &caller.claims, &name, &query).await?;
    let duration = seconds(lease_seconds.unwrap_or(consumer.settings.lease_seconds));
    let retry = consumer.retry_seconds(&state.config.consumers.retry_seconds);
    let settled = lease::extend(&state.postgres, &consumer, &leases, retry, duration).await;
    Ok(receipt(&state, "extended", &leases, &settled.map_err(ApiError::unavailable)?))
}

/// The leases of a request. What is none is refused: its sender has lost a part of it.
fn read(leases: &[String]) -> Result<Vec<Lease>, ApiError> {
    let most = usize::try_from(COUNT_MAX).unwrap_or(usize::MAX);
    if leases.is_empty() || leases.len() > most {
        return Err(ApiError::InvalidDocument(vec![Violation::new(
            "/leases",
            format!("must have 1 to {most} leases"),
        )]));
    }
    let (mut read, mut violations) = (Vec::with_capacity(leases.len()), Vec::new());
    for (index, token) in leases.iter().enumerate() {
        match token.parse() {
            Ok(lease) => read.push(lease),
            Err(error) => {
                let error: crate::consumers::delivery::ParseLease = error;
                violations.push(Violation::new(format!("/leases/{index}"), error.to_string()));
            }
        }
    }
    if violations.is_empty() { Ok(read) } else { Err(ApiError::InvalidDocument(violations)) }
}

fn receipt(state: &AppState, outcome: &'static str, leases: &[Lease], settled: &Settled) -> Json<Receipt> {
    let lost: Vec<&Lease> = leases.iter().filter(|lease| !settled.done.contains(&lease.seq)).collect();
    state.metrics.deliveries.count(Kind::Consumer, outcome, settled.done.len() - settled.dead.len());
    state.metrics.deliveries.count(Kind::Consumer, "dead", settled.dead.len());
    Json(Receipt {
        done: settled.done.len(),
        dead_letters: settled.dead.len(),
        lost: lost.into_iter().map(Lease::to_string).collect(),
    })
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}
