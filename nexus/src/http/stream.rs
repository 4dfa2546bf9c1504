//! `GET /v1/stream`: the upgrade to a WebSocket. Checks who asks from where, sets the bounds
//! of the transport, and hands over to the session.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::response::Response;
use axum::routing::get;

use super::{Answer, AppState, Operation, Routes};
use crate::auth::Claims;
use crate::auth::caller::bearer;
use crate::problem::ApiError;
use crate::realtime::session::Session;
use crate::realtime::{Limits, socket};

/// Buffers of a connection; the WebSocket layer would take 128 KiB each. Frames larger than
/// this pass all the same, in several reads or writes.
const BUFFER_BYTES: usize = 4 * 1024;

/// Most bytes that wait for the network of one client before it is waited for: a stretch.
const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// A frame above the limit is refused with its own close code, for which it has to be read;
/// one above this multiple of the limit is not read at all.
const UNREAD_FACTOR: usize = 4;

pub(super) fn routes() -> Routes {
    let summary = "Opens a WebSocket: subscribe, publish, history; one JSON object per text frame";
    let operation = Operation {
        answers: vec![Answer::plain(101, "The WebSocket is open; authenticate with `connect` unless the request did")],
        ..Operation::new(Method::GET, "/v1/stream", "openStream", summary)
    };
    Routes::new().with(operation, get(open))
}

async fn open(
    State(state): State<AppState>,
    _: AllowedOrigin,
    MaybeCaller(claims): MaybeCaller,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|refused| ApiError::InvalidParameter {
        name: "Upgrade",
        message: format!("must ask for a WebSocket: {}", refused.body_text()),
    })?;
    if state.metrics.stream.open() >= state.config.stream.connections_max {
        return Err(ApiError::Overload("this pod has as many connections as it may hold"));
    }
    let limits = Limits::of(&state.config);
    let tasks = state.tasks.clone();
    let session = Session::new(state, limits.clone(), claims);
    Ok(upgrade
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(limits.frame_bytes_max * UNREAD_FACTOR)
        .max_frame_size(limits.frame_bytes_max * UNREAD_FACTOR)
        .on_upgrade(move |socket| tasks.track_future(socket::serve(socket, session))))
}

/// The page that opened the connection is one that may. Browsers always name it for a
/// WebSocket and do not ask first, so CORS does not protect it; other programs name none.
struct AllowedOrigin;

impl FromRequestParts<AppState> for AllowedOrigin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Some(origin) = parts.headers.get(header::ORIGIN) else {
            return Ok(Self);
        };
        let listed = state.config.allowed_origins.iter().any(|allowed| allowed.trim().as_bytes() == origin.as_bytes());
        if listed { Ok(Self) } else { Err(ApiError::RefuseOrigin) }
    }
}

/// The caller, when the request carries a token; a browser cannot, and sends it as its first
/// command. A token that is refused is an error, never no token.
struct MaybeCaller(Option<Claims>);

impl FromRequestParts<AppState> for MaybeCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match bearer(parts) {
            Some(token) => Ok(Self(Some(state.verifier.verify(token).await?))),
            None if parts.headers.contains_key(header::AUTHORIZATION) => Err(ApiError::MissToken),
            None => Ok(Self(None)),
        }
    }
}
