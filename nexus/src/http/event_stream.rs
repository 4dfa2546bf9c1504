//! `GET /v1/stream/sse`: events as they come, over plain HTTP.

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use super::extract::QueryOf;
use super::stream::{AllowedOrigin, room};
use super::{Answer, AppState, Operation, Parameter, Routes};
use crate::auth::caller::bearer;
use crate::auth::{Claims, EventsRead, Scope};
use crate::position::Position;
use crate::problem::ApiError;
use crate::realtime::encode::Encoding;
use crate::realtime::event_stream;
use crate::realtime::session::Session;
use crate::realtime::subscription::Filter;

/// Where a client that comes back by itself says what it has. Source: HTML, section 9.2.4.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Proxies that know it send on what they get at once.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

pub(super) fn routes() -> Routes {
    let parameter = |place, name, description| Parameter { place, name, description, required: false };
    let operation = Operation {
        scope: Some(EventsRead::NAME),
        parameters: vec![
            parameter("query", "type", "Patterns of types, separated by commas; all by default."),
            parameter("query", "subject", "Only events about this subject."),
            parameter("query", "after", "Only events after this position; those from now on by default."),
            parameter("query", "access_token", "The token, for a browser's EventSource, which cannot send a header."),
            parameter("header", "Last-Event-ID", "The position of the last event; it counts before `after`."),
        ],
        answers: vec![Answer::plain(200, "Server-sent events: CloudEvents, each with its position as id")],
        ..Operation::new(Method::GET, "/v1/stream/sse", "streamEvents", "Streams events as they come")
    };
    Routes::new().with(operation, get(open))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamQuery {
    r#type: Option<String>,
    subject: Option<String>,
    after: Option<String>,
    access_token: Option<String>,
}

async fn open(
    State(state): State<AppState>,
    _: AllowedOrigin,
    Head { token, last_event_id }: Head,
    QueryOf(query): QueryOf<StreamQuery>,
) -> Result<Response, ApiError> {
    let claims = reader(&state, token.or(query.access_token)).await?;
    let place = room(&state)?;
    let types: Vec<String> = query.r#type.as_deref().unwrap_or("**").split(',').map(str::to_owned).collect();
    let invalid = |name| move |message: String| ApiError::InvalidParameter { name, message };
    let filter = Filter::read(&types, query.subject.map(|subject| vec![subject]));
    let filter = filter.map_err(|refused| invalid("type")(refused.to_string()))?;
    let position =
        |name| move |text: String| text.parse::<Position>().map_err(|error| invalid(name)(error.to_string()));
    let after = match last_event_id {
        Some(text) => Some(position("Last-Event-ID")(text)?),
        None => query.after.map(position("after")).transpose()?,
    };
    let session = Session::new(state, Encoding::EventStream, Some(claims));
    let body = event_stream::body(session, place, filter, after).await?;
    let media_type = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    let kept_nowhere = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([media_type, kept_nowhere, UNBUFFERED], body).into_response())
}

/// A caller who may read events.
async fn reader(state: &AppState, token: Option<String>) -> Result<Claims, ApiError> {
    let claims = state.verifier.verify(&token.ok_or(ApiError::MissToken)?).await?;
    if claims.allows(EventsRead::NAME) { Ok(claims) } else { Err(ApiError::LackScope { scope: EventsRead::NAME }) }
}

/// What the request says beside its query.
struct Head {
    token: Option<String>,
    last_event_id: Option<String>,
}

impl FromRequestParts<AppState> for Head {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let token = bearer(parts).map(str::to_owned);
        if token.is_none() && parts.headers.contains_key(header::AUTHORIZATION) {
            return Err(ApiError::MissToken);
        }
        let last_event_id =
            parts.headers.get(LAST_EVENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
        Ok(Self { token, last_event_id })
    }
}
