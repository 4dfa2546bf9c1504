//! What surrounds every route: answers for what is not routed, bounds, CORS, panics, counting.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{AppState, admission, unread};
use crate::metrics;
use crate::problem::ApiError;

/// How long a browser may keep the answer to a preflight request.
const PREFLIGHT_AGE_MAX: Duration = Duration::from_mins(10);

/// Longest that a request may take, whatever it waits for: longer than every deadline within.
const REQUEST_DEADLINE: Duration = Duration::from_secs(20);

/// Says of which trace a request is (W3C Trace Context).
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// The router with everything that is the same for all routes. The first layer named is the outermost. They are one layer
/// to the router, which would put each of several into a box and clone it for every request.
pub(super) fn surround(router: Router<AppState>, state: AppState) -> Router {
    let layers = (
        from_fn(unread::take),
        from_fn_with_state(state.clone(), count),
        cors(&state.config.allowed_origins),
        from_fn_with_state(state.clone(), trace),
        from_fn_with_state(state.clone(), admission::throttle),
        CatchPanicLayer::custom(answer_panic),
        from_fn(bound),
    );
    router
        .fallback(|| async { ApiError::FindNothing("no operation has this path") })
        .method_not_allowed_fallback(|| async { ApiError::RefuseMethod })
        .layer(layers)
        .with_state(state)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that the layer asks for")]
fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<String>().cloned();
    let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    ApiError::internal(format!("a handler panicked: {}", message.unwrap_or_default())).into_response()
}

/// Only listed origins; no cookies are used, so credentials are never allowed.
fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.iter().filter_map(|origin| origin.trim().parse::<HeaderValue>().ok());
    let name = HeaderName::from_static;
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            name("idempotency-key"),
            name("last-event-id"),
            name("nexus-min-position"),
            TRACE_PARENT,
        ])
        .expose_headers([
            header::AGE,
            header::LOCATION,
            header::RETRY_AFTER,
            name("nexus-position"),
            name("nexus-as-of"),
            name("nexus-cache"),
            admission::RATE_LIMIT,
            admission::RATE_LIMIT_POLICY,
        ])
        .max_age(PREFLIGHT_AGE_MAX)
}

async fn bound(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unavailable("the request took longer than its deadline").into_response(),
    }
}

/// Counts by the route as it was declared, so that a caller cannot make labels.
async fn count(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = known(request.method()).to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let labels = metrics::Request { method, route, status: response.status().as_u16() };
    state.metrics.requests.get_or_create(&labels).inc();
    state.metrics.request_seconds.observe(begun.elapsed().as_secs_f64());
    response
}

/// Traces what may publish. Probes and polls would only be noise.
async fn trace(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route = route.filter(|route| state.traces.is_on() && route.starts_with("/v1/"));
    let Some(route) = route.map(str::to_owned) else { return next.run(request).await };
    let method = known(request.method());
    let parent = request.headers().get(TRACE_PARENT).and_then(|parent| parent.to_str().ok()?.parse().ok());
    let Some(mut work) = state.traces.begin(format!("{method} {route}"), parent) else {
        return next.run(request).await;
    };
    work.note("http.request.method", method);
    work.note("http.route", route);
    let response = work.run(next.run(request)).await;
    work.note("http.response.status_code", i64::from(response.status().as_u16()));
    response
}

fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
