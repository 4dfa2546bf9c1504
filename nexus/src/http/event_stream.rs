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
use crate::auth::{Claims, EventsReadOwn, Scope};
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
    let last = Parameter {
        place: "header",
        name: "Last-Event-ID",
        description: "The position of the last event; it counts before `after`.",
        required: false,
    };
    let operation = Operation {
        scope: Some(EventsReadOwn::NAME),
        parameters: parameters().into_iter().chain([last]).collect(),
        answers: vec![Answer::plain(200, "Server-sent events: CloudEvents, each with its position as id")],
        ..Operation::new(Method::GET, "/v1/stream/sse", "streamEvents", "Streams events as they come")
    };
    Routes::new().with(operation, get(open))
}

/// What a query may ask for, over whatever protocol a client follows that sends no commands.
pub(super) fn parameters() -> Vec<Parameter> {
    let parameter = |name, description| Parameter { place: "query", name, description, required: false };
    vec![
        parameter("type", "Patterns of types, separated by commas; all by default."),
        parameter("subject", "Only events about this subject."),
        parameter("attributes", "Only events with these attributes: `source=/mint,tenant=7`."),
        parameter("room", "Only what is told in this room, in which the client then is."),
        parameter("after", "Only events after this position; those from now on by default."),
        events::VERSIONS,
        parameter("access_token", "The token, for a browser, which cannot send a header."),
    ]
}

/// What the client follows, who sends no commands.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamQuery {
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
    let place = place(&state, address).await?;
    let session = begin(state, Encoding::EventStream, claims, address, query, last_event(&headers)?).await?;
    let body = event_stream::body(session, place);
    let media_type = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    let kept_nowhere = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([media_type, kept_nowhere, UNBUFFERED], body).into_response())
}

/// A session that follows what the query asks for, after the client's last event if it names one.
pub(super) async fn begin(
    state: AppState,
    encoding: Encoding,
    claims: Option<Claims>,
    address: ClientAddress,
    query: StreamQuery,
    last: Option<Position>,
) -> Result<Session, ApiError> {
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
    let attributes = events::attributes(query.attributes.as_deref())?;
    let others = Asked { attributes, room: query.room, ..Asked::default() };
    let filter = events::filter(&state.registry, query.r#type.as_deref(), query.subject, others)?;
    let filter = filter.in_versions(&events::by_type(query.versions.as_deref())?);
    let filter =
        filter.map_err(|refused| ApiError::InvalidParameter { name: "versions", message: refused.to_string() })?;
    let after = match last {
        Some(last) => Some(last),
        None => query.after.map(|after| events::position("after", &after)).transpose()?,
    };
    let mut session = Session::new(state, encoding, Some(claims), address);
    session.take_own_place().await?;
    session.begin(filter, after).await?;
    Ok(session)
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
