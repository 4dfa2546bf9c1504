//! `GET /v1/stream/sse`: events as they come, over plain HTTP.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use super::admission::{ClientAddress, admit, place};
use super::extract::QueryOf;
use super::stream::{AllowedOrigin, MaybeCaller};
use super::{Answer, AppState, Operation, Parameter, Routes, events};
use crate::auth::{EventsReadOwn, Scope};
use crate::position::Position;
use crate::problem::ApiError;
use crate::realtime::encode::Encoding;
use crate::realtime::event_stream;
use crate::realtime::session::Session;
use crate::realtime::subscription::Asked;

/// Where a client that comes back by itself says what it has. Source: HTML, section 9.2.4.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Proxies that know it send on what they get at once.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

pub(super) fn routes() -> Routes {
    let parameter = |place, name, description| Parameter { place, name, description, required: false };
    let operation = Operation {
        scope: Some(EventsReadOwn::NAME),
        parameters: vec![
            parameter("query", "type", "Patterns of types, separated by commas; all by default."),
            parameter("query", "subject", "Only events about this subject."),
            parameter("query", "attributes", "Only events with these attributes: `source=/mint,tenant=7`."),
            parameter("query", "room", "Only what is told in this room, in which the client then is."),
            parameter("query", "after", "Only events after this position; those from now on by default."),
            events::VERSIONS,
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
    attributes: Option<String>,
    room: Option<String>,
    after: Option<String>,
    versions: Option<String>,
    access_token: Option<String>,
}

async fn open(
    State(state): State<AppState>,
    _: AllowedOrigin,
    address: ClientAddress,
    MaybeCaller(claims): MaybeCaller,
    headers: HeaderMap,
    QueryOf(query): QueryOf<StreamQuery>,
) -> Result<Response, ApiError> {
    let claims = match (claims, query.access_token) {
        (Some(claims), _) => claims,
        (None, Some(token)) => {
            let claims = state.verifier.verify(&token).await?;
            admit(&state, &claims, None).await?;
            claims
        }
        (None, None) => return Err(ApiError::MissToken),
    };
    if !claims.allows(EventsReadOwn::NAME) {
        return Err(ApiError::LackScope { scope: EventsReadOwn::NAME });
    }
    let place = place(&state, address).await?;
    let attributes = events::attributes(query.attributes.as_deref())?;
    let others = Asked { attributes, room: query.room, ..Asked::default() };
    let filter = events::filter(&state.registry, query.r#type.as_deref(), query.subject, others)?;
    let filter = filter.in_versions(&events::by_type(query.versions.as_deref())?);
    let filter =
        filter.map_err(|refused| ApiError::InvalidParameter { name: "versions", message: refused.to_string() })?;
    let after = match last_event(&headers)? {
        Some(last) => Some(last),
        None => query.after.map(|after| events::position("after", &after)).transpose()?,
    };
    let mut session = Session::new(state, Encoding::EventStream, Some(claims));
    session.take_own_place().await?;
    let body = event_stream::body(session, place, filter, after).await?;
    let media_type = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    let kept_nowhere = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([media_type, kept_nowhere, UNBUFFERED], body).into_response())
}

/// The position of the last event that the client has, if it says so.
fn last_event(headers: &HeaderMap) -> Result<Option<Position>, ApiError> {
    let id = headers.get(LAST_EVENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()));
    id.map(|id| events::position("Last-Event-ID", &id)).transpose()
}

#[cfg(test)]
mod laws {
    use proptest::prelude::*;

    use super::*;
    use crate::damage::{damaged, damages};

    proptest! {
        #[test]
        fn the_last_event_is_a_position_or_is_refused(
            epoch in 0..i32::MAX, seq in 0..i64::MAX, damages in damages(), noise in any::<Option<Vec<u8>>>(),
        ) {
            let position = Position { epoch, seq };
            let id = noise.unwrap_or_else(|| damaged(position.to_string().as_bytes(), &damages));
            let Ok(value) = HeaderValue::from_bytes(&id) else { return Ok(()) };
            let headers = HeaderMap::from_iter([(LAST_EVENT_ID, value)]);
            if let Ok(read) = last_event(&headers) {
                prop_assert_eq!(read.map(|position| position.to_string().into_bytes()), Some(id));
            }
        }
    }

    #[test]
    fn who_says_nothing_has_no_last_event() {
        assert!(last_event(&HeaderMap::new()).is_ok_and(|last| last.is_none()));
    }
}
