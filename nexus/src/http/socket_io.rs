//! `/socket.io/`: Socket.IO 4 for the unmodified client, over WebSocket and by polling. Checks who asks from where, and
//! hands the request to its session.

use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::admission::ClientAddress;
use super::extract::Body;
use super::stream::{AllowedOrigin, Handshake, MaybeCaller, switch_protocols, upgrade_to};
use super::{Answer, AppState, Operation, Parameter, Routes, admission, forward};
use crate::realtime::encode::Encoding;
use crate::realtime::engine_io::request::{self, Refusal};
use crate::realtime::engine_io::sessions;
use crate::realtime::session::Session;
use crate::realtime::socket;
use crate::realtime::transport::Transport;

/// Where clients of the protocol ask.
const PATH: &str = "/socket.io/";

/// How long a poll is held when nothing is due: below the deadline of a request, and of most proxies.
const POLL_DEADLINE: Duration = Duration::from_secs(15);

/// Lets a poll end with nothing in it; an answer without a packet would be an error to the client.
const NOOP: &str = "6";

pub(super) fn routes() -> Routes {
    let operation = |method, path, id, summary| Operation {
        parameters: vec![
            Parameter { place: "query", name: "EIO", description: "Always 4.", required: true },
            Parameter { place: "query", name: "transport", description: "websocket or polling.", required: true },
            Parameter { place: "query", name: "sid", description: "The session, unless it opens.", required: false },
        ],
        answers: vec![
            Answer::plain(101, "The connection is open; connect with `auth: { token }`"),
            Answer::plain(200, "Packets of Engine.IO 4"),
        ],
        ..Operation::new(method, path, id, summary)
    };
    let get = |path, id| operation(Method::GET, path, id, "Opens a Socket.IO connection, or polls");
    // A client that was told so leaves the last slash out.
    Routes::new()
        .with(get(PATH, "openSocketIo"), any(open))
        .with(get("/socket.io", "openSocketIoWithoutSlash"), any(open))
}

async fn open(State(state): State<AppState>, request: Request) -> Result<Response, Response> {
    let (mut parts, body) = request.into_parts();
    AllowedOrigin::from_request_parts(&mut parts, &state).await?;
    let query = parts.uri.query().unwrap_or_default().to_owned();
    match request::Request::read(method(&parts), &query).map_err(refusal)? {
        request::Request::OpenWebSocket => {
            let MaybeCaller(claims) = MaybeCaller::from_request_parts(&mut parts, &state).await?;
            let handshake = Handshake::from_request_parts(&mut parts, &state).await?;
            let address = address(&mut parts, &state).await;
            let place = admission::place(&state, address).await?;
            let tasks = state.tasks.clone();
            let session = Box::new(Session::new(state, Encoding::SocketIo, claims, address));
            Ok(upgrade_to(&tasks, session, handshake, place).await?)
        }
        request::Request::OpenPolling => {
            let MaybeCaller(claims) = MaybeCaller::from_request_parts(&mut parts, &state).await?;
            let address = address(&mut parts, &state).await;
            let place = admission::place(&state, address).await?;
            let mut session = Box::new(Session::new(state.clone(), Encoding::SocketIo, claims, address));
            session.take_own_place().await?;
            let listed = state.sessions.open();
            let sid = listed.sid().to_owned();
            state.tasks.spawn(socket::serve(Transport::polling(listed), Bytes::new(), session, place));
            Ok(poll(&state, &sid).await)
        }
        request::Request::Poll(sid) => match forward::holder(&state, &parts, sid).await {
            Some(holder) => Ok(forward::request(&state, &holder, &parts, Bytes::new()).await?),
            None => Ok(poll(&state, sid).await),
        },
        request::Request::Push(sid) => {
            let holder = forward::holder(&state, &parts, sid).await;
            // Nobody has shown a token for it yet.
            if holder.is_none() && state.sessions.get(sid).is_none() {
                return Err(refusal(Refusal::Session));
            }
            let request = Request::from_parts(parts.clone(), body);
            let bytes_max = state.config.limits.frame_bytes_max;
            let body = Body::receive(request, bytes_max, &state.unfinished.strangers).await?;
            match holder {
                Some(holder) => Ok(forward::request(&state, &holder, &parts, body.content.into()).await?),
                None => Ok(push(&state, sid, body).await),
            }
        }
        request::Request::Upgrade(sid) => upgrade(&state, &mut parts, sid).await,
    }
}

/// Moves a session to a WebSocket, wherever it is held.
async fn upgrade(state: &AppState, parts: &mut Parts, sid: &str) -> Result<Response, Response> {
    if let Some(holder) = forward::holder(state, parts, sid).await {
        let handshake = Handshake::from_request_parts(parts, state).await?;
        let forwarded = forward::upgrade(state, &holder, parts, handshake).await?;
        return forwarded.ok_or_else(|| refusal(Refusal::Session));
    }
    let session = state.sessions.get(sid).ok_or_else(|| refusal(Refusal::Session))?;
    let handshake = Handshake::from_request_parts(parts, state).await?;
    let switched = switch_protocols(&state.tasks, handshake, move |stream, brought| async move {
        // A session that has ended drops the WebSocket, and so closes it.
        let _ = session.send(sessions::Request::Upgrade(stream, brought)).await;
    });
    Ok(switched?)
}

async fn address(parts: &mut Parts, state: &AppState) -> ClientAddress {
    let Ok(address) = ClientAddress::from_request_parts(parts, state).await;
    address
}

fn method(parts: &Parts) -> request::Method {
    match parts.method {
        Method::GET if parts.headers.contains_key(header::SEC_WEBSOCKET_KEY) => request::Method::WebSocket,
        Method::GET => request::Method::Get,
        Method::POST => request::Method::Post,
        _ => request::Method::Other,
    }
}

/// Waits until something is due for the session.
async fn poll(state: &AppState, sid: &str) -> Response {
    let (reply, mut answer) = oneshot::channel();
    if !ask(state, sid, sessions::Request::Poll(reply)).await {
        return refusal(Refusal::Session);
    }
    let answered = if let Ok(answered) = timeout(POLL_DEADLINE, &mut answer).await {
        answered.ok()
    } else {
        // From here on the session keeps what is due for the next poll.
        answer.close();
        Some(answer.try_recv().unwrap_or_else(|_| sessions::Answer::Payload(NOOP.into())))
    };
    answered.map_or_else(|| refusal(Refusal::Session), respond)
}

async fn push(state: &AppState, sid: &str, Body { content, share, .. }: Body) -> Response {
    let (reply, answer) = oneshot::channel();
    if !ask(state, sid, sessions::Request::Push(content, share, reply)).await {
        return refusal(Refusal::Session);
    }
    answer.await.map_or_else(|_| refusal(Refusal::Session), respond)
}

/// Gives the request to its session; whether there is one.
async fn ask(state: &AppState, sid: &str, request: sessions::Request) -> bool {
    match state.sessions.get(sid) {
        Some(session) => session.send(request).await.is_ok(),
        None => false,
    }
}

fn respond(answer: sessions::Answer) -> Response {
    let text = (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    let kept_nowhere = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match answer {
        sessions::Answer::Payload(packets) => ([text, kept_nowhere], packets).into_response(),
        sessions::Answer::Taken => ([text, kept_nowhere], "ok").into_response(),
        sessions::Answer::TooLarge => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        sessions::Answer::Refused(refused) => refusal(refused),
    }
}

/// The answer that clients of the protocol know.
fn refusal(refused: Refusal) -> Response {
    let status = StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::BAD_REQUEST);
    (status, [(header::CONTENT_TYPE, "application/json")], refused.body()).into_response()
}
