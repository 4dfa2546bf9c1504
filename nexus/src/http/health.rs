//! `/livez /readyz /health /metrics`: whether the process lives, whether it may get traffic, and how it does.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mongodb::bson::doc;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Answer, AppState, Operation, Routes};
use crate::log::{read, standing};
use crate::problem::ApiError;

/// Longest a check may take: shorter than a probe's own timeout.
const CHECK_DEADLINE: Duration = Duration::from_millis(900);

/// Events that wait longer than this for their place do not get on: a leader is followed by the next one sooner.
const WAITING_MILLISECONDS_MAX: i64 = 5_000;

pub(super) fn routes() -> Routes {
    let operation = |path, id, summary, answer| Operation {
        answers: vec![answer],
        ..Operation::new(Method::GET, path, id, summary)
    };
    Routes::new()
        .with(operation("/livez", "isAlive", "Whether the process runs", Answer::plain(200, "It runs")), get(live))
        .with(
            operation("/readyz", "isReady", "Whether requests can be served", Answer::plain(200, "They can")),
            get(ready),
        )
        .with(
            operation("/health", "getHealth", "How every part does", Answer::json::<Health>(200, "Ready to serve")),
            get(health),
        )
        .with(
            operation("/metrics", "getMetrics", "What is counted", Answer::plain(200, "OpenMetrics text")),
            get(metrics),
        )
}

/// Never asks a database: a restart would not bring one back.
async fn live() -> &'static str {
    "alive\n"
}

async fn ready(State(state): State<AppState>) -> Result<&'static str, ApiError> {
    if state.draining.is_cancelled() {
        return Err(ApiError::unavailable("the pod is draining"));
    }
    match tokio::time::timeout(CHECK_DEADLINE, read::head(&state.postgres)).await {
        Ok(head) => head?,
        Err(_) => return Err(ApiError::unavailable("Postgres did not answer in time")),
    };
    if !state.tail.is_loaded() {
        return Err(ApiError::unavailable("the log was not read yet"));
    }
    if !state.verifier.revocations().is_loaded() {
        return Err(ApiError::unavailable("the revocations were not read yet"));
    }
    Ok("ready\n")
}

/// How every part does.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Health {
    /// `ready`; `degraded` when a part that can be missed is away, or events do not get on; `unavailable` when requests
    /// cannot be served.
    status: &'static str,
    postgres: Dependency,
    redis: Dependency,
    mongo: Dependency,
    log: LogHealth,
    sequencer: SequencerHealth,
    /// Name of the pod that tells this.
    pod: String,
}

/// How a database answers.
#[derive(Debug, Serialize, JsonSchema)]
struct Dependency {
    reachable: bool,
    /// Time of one round trip, in milliseconds.
    latency_milliseconds: Option<f64>,
}

/// How far this pod has followed the log.
#[derive(Debug, Serialize, JsonSchema)]
struct LogHealth {
    /// Newest stamped entry; absent when Postgres is away.
    head: Option<i64>,
    /// Newest entry that this pod has applied.
    applied: i64,
    /// Entries that this pod still has to apply.
    lag: Option<i64>,
    /// Events that wait for their place; at most 100,000 are counted.
    waiting: Option<i64>,
    /// For how long the oldest of them waits, in milliseconds; 0 when none does.
    waiting_milliseconds: Option<i64>,
    /// Events that the log could not take. They stand in the table `outbox_refused`, and wait for a person.
    refused: Option<i64>,
}

/// Who stamps.
#[derive(Debug, Serialize, JsonSchema)]
struct SequencerHealth {
    /// Whether this pod leads.
    leading: bool,
    /// Name of the pod that leads; absent while none does, and when Postgres is away.
    leader: Option<String>,
}

async fn health(State(state): State<AppState>) -> Response {
    let postgres = measure(async { read::head(&state.postgres).await.ok().map(|head| head.seq) });
    let standing = async { tokio::time::timeout(CHECK_DEADLINE, standing::look(&state.postgres)).await.ok()?.ok() };
    let redis = measure(async {
        let mut connection = state.redis.clone();
        redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
    });
    let mongo = measure(async { state.mongo.run_command(doc! { "ping": 1 }).await.ok() });
    let ((postgres, head), standing, (redis, _), (mongo, _)) = tokio::join!(postgres, standing, redis, mongo);
    let gets_on =
        standing.as_ref().is_some_and(|log| log.refused == 0 && log.waiting_milliseconds < WAITING_MILLISECONDS_MAX);
    let status = match (postgres.reachable, redis.reachable && mongo.reachable && gets_on) {
        (false, _) => "unavailable",
        (true, false) => "degraded",
        (true, true) => "ready",
    };
    let applied = state.tail.head();
    let lag = head.map(|head| (head - applied).max(0));
    let waiting = standing.as_ref().map(|standing| standing.waiting);
    let waiting_milliseconds = standing.as_ref().map(|standing| standing.waiting_milliseconds);
    let refused = standing.as_ref().map(|standing| standing.refused);
    let log = LogHealth { head, applied, lag, waiting, waiting_milliseconds, refused };
    let leader = standing.and_then(|standing| standing.leader);
    let sequencer = SequencerHealth { leading: state.wake.is_leading(), leader };
    let pod = state.pod.to_string();
    let code = if postgres.reachable { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Health { status, postgres, redis, mongo, log, sequencer, pod })).into_response()
}

async fn measure<T>(check: impl Future<Output = Option<T>>) -> (Dependency, Option<T>) {
    let begun = Instant::now();
    let answer = tokio::time::timeout(CHECK_DEADLINE, check).await.ok().flatten();
    let latency_milliseconds = answer.as_ref().map(|_| begun.elapsed().as_secs_f64() * 1_000.0);
    (Dependency { reachable: answer.is_some(), latency_milliseconds }, answer)
}

async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    let metrics = &state.metrics;
    let (requests, bytes) = state.publisher.waiting();
    metrics.publish_queue_requests.set(i64::try_from(requests).unwrap_or(i64::MAX));
    metrics.publish_queue_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    metrics.log_head.set(state.tail.head());
    let head = tokio::time::timeout(CHECK_DEADLINE, read::head(&state.postgres));
    let standing = tokio::time::timeout(CHECK_DEADLINE, standing::look(&state.postgres));
    let (head, standing) = tokio::join!(head, standing);
    metrics.postgres_reachable.set(i64::from(matches!(head, Ok(Ok(_)))));
    // While it is not, these stay what they were.
    if let Ok(Ok(log)) = standing {
        metrics.outbox_events.set(log.waiting);
        metrics.outbox_oldest_milliseconds.set(log.waiting_milliseconds);
        metrics.log_lag.set((log.head - state.tail.head()).max(0));
    }
    metrics.ring_entries.set(i64::try_from(state.tail.ring_entries()).unwrap_or(i64::MAX));
    metrics.sequencer_leading.set(i64::from(state.wake.is_leading()));
    metrics.postgres_connections.set(i64::from(state.postgres.size()));
    let text = metrics.encode().map_err(ApiError::internal)?;
    let media_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, media_type)], text).into_response())
}
