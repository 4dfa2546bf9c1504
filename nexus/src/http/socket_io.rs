//! `/socket.io/`: Socket.IO 4 for the unmodified client. Checks who asks from where, and hands the connection over.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use super::stream::{AllowedOrigin, Handshake, MaybeCaller, upgrade_to};
use super::{Answer, AppState, Operation, Parameter, Routes};
use crate::problem::ApiError;
use crate::realtime::encode::Encoding;
use crate::realtime::engine_io::request::{self, Refusal};

pub(super) fn routes() -> Routes {
    let operation = |path, id| Operation {
        parameters: vec![
            Parameter { place: "query", name: "EIO", description: "Always 4.", required: true },
            Parameter { place: "query", name: "transport", description: "Always websocket.", required: true },
        ],
        answers: vec![Answer::plain(101, "The connection is open; connect with `auth: { token }`")],
        ..Operation::new(Method::GET, path, id, "Opens a Socket.IO connection, over WebSocket")
    };
    // A client that was told so leaves the last slash out.
    Routes::new()
        .with(operation("/socket.io/", "openSocketIo"), any(open))
        .with(operation("/socket.io", "openSocketIoWithoutSlash"), any(open))
}

async fn open(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    let is_upgrade = parts.headers.contains_key(header::SEC_WEBSOCKET_KEY);
    let method = match parts.method {
        Method::GET if is_upgrade => request::Method::WebSocket,
        Method::GET => request::Method::Get,
        Method::POST => request::Method::Post,
        _ => request::Method::Other,
    };
    match request::Request::read(method, parts.uri.query().unwrap_or_default()) {
        Ok(request::Request::OpenWebSocket) => {}
        // Sessions live as long as their WebSocket, so none is known by its id.
        Ok(request::Request::Poll(_) | request::Request::Push(_) | request::Request::Upgrade(_)) => {
            return Ok(refusal(Refusal::Session));
        }
        Ok(request::Request::OpenPolling) => return Ok(refusal(Refusal::Transport)),
        Err(refused) => return Ok(refusal(refused)),
    }
    AllowedOrigin::from_request_parts(&mut parts, &state).await?;
    let MaybeCaller(claims) = MaybeCaller::from_request_parts(&mut parts, &state).await?;
    match Handshake::from_request_parts(&mut parts, &state).await {
        Ok(handshake) => upgrade_to(state, Encoding::SocketIo, claims, handshake),
        Err(refused) => Ok(refused),
    }
}

/// The answer that clients of the protocol know.
fn refusal(refused: Refusal) -> Response {
    let status = StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::BAD_REQUEST);
    (status, [(header::CONTENT_TYPE, "application/json")], refused.body()).into_response()
}
