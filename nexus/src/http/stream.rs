//! `GET /v1/stream`: the upgrade to a WebSocket (RFC 6455, section 4.2). Checks who asks from where, and hands the
//! network connection over to the session.

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::admission::{ClientAddress, Noted, Place, admit, place};
use super::event_stream::{self, StreamQuery};
use super::extract::QueryOf;
use super::server::head::Counted;
use super::{Answer, AppState, Operation, Parameter, Routes, server};
use crate::auth::Claims;
use crate::auth::caller::bearer;
use crate::chain::Chain;
use crate::problem::ApiError;
use crate::realtime::encode::Encoding;
use crate::realtime::session::Session;
use crate::realtime::socket;
use crate::realtime::transport::Transport;

/// What a server adds to the client's key before it takes the digest (RFC 6455, section 1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The subprotocol of plain events. Source: WebSockets Protocol Binding for `CloudEvents`, section 1.5.
pub(super) const CLOUD_EVENTS: &str = "cloudevents.json";

pub(super) fn routes() -> Routes {
    let summary = "Opens a WebSocket: subscribe, publish, history; one JSON object per text frame";
    let subprotocol = Parameter {
        place: "header",
        name: "Sec-WebSocket-Protocol",
        description: "`cloudevents.json` for plain CloudEvents both ways. The query says what is followed, and is for \
            this alone.",
        required: false,
    };
    let operation = Operation {
        parameters: event_stream::parameters().into_iter().chain([subprotocol]).collect(),
        answers: vec![Answer::plain(101, "The WebSocket is open; authenticate with `connect` unless the request did")],
        ..Operation::new(Method::GET, "/v1/stream", "openStream", summary)
    };
    Routes::new().with(operation, get(open))
}

async fn open(
    State(state): State<AppState>,
    _: AllowedOrigin,
    address: ClientAddress,
    MaybeCaller(claims): MaybeCaller,
    Plain(query): Plain,
    handshake: Handshake,
) -> Result<Response, ApiError> {
    let place = place(&state, address).await?;
    let tasks = state.tasks.clone();
    let Some(query) = query else {
        let session = Box::new(Session::new(state, Encoding::WebSocket, claims, address));
        return upgrade_to(&tasks, session, handshake, place).await;
    };
    let session = Box::new(event_stream::begin(state, Encoding::CloudEvents, claims, address, query, None).await?);
    let mut response = switch_protocols(&tasks, handshake, move |stream, brought| {
        socket::serve(Transport::Socket(stream), brought, session, place)
    })?;
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(CLOUD_EVENTS));
    Ok(response)
}

/// What a client asks for that speaks plain `CloudEvents`; nothing of any other. Who offers only subprotocols that are not
/// spoken is answered without one, and may leave (RFC 6455, section 4.2.2).
struct Plain(Option<StreamQuery>);

impl FromRequestParts<AppState> for Plain {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        // Exactly: what is answered must be one of those that were offered.
        if !listed(&parts.headers, &header::SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == CLOUD_EVENTS) {
            return Ok(Self(None));
        }
        let QueryOf(query) = QueryOf::from_request_parts(parts, state).await?;
        Ok(Self(Some(query)))
    }
}

/// Answers the handshake, and serves the connection in its own task.
pub(super) async fn upgrade_to(
    tasks: &TaskTracker,
    mut session: Box<Session>,
    handshake: Handshake,
    place: Place,
) -> Result<Response, ApiError> {
    session.take_own_place().await?;
    switch_protocols(tasks, handshake, move |stream, brought| {
        socket::serve(Transport::Socket(stream), brought, session, place)
    })
}

/// Answers the handshake, and hands the WebSocket over in a task of its own.
pub(super) fn switch_protocols<F>(
    tasks: &TaskTracker,
    Handshake { accept, upgrade }: Handshake,
    serve: impl FnOnce(TcpStream, Bytes) -> F + Send + 'static,
) -> Result<Response, ApiError>
where
    F: Future<Output = ()> + Send,
{
    tasks.spawn(async move {
        match connection(upgrade).await {
            Ok((stream, brought)) => serve(stream, brought).await,
            Err(error) => tracing::debug!(error = %Chain(&error), "a client left while its connection was upgraded"),
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept);
    response.body(Body::empty()).map_err(ApiError::internal)
}

/// The network connection, once the answer has gone out on it, and what of the client came with the request.
async fn connection(upgrade: OnUpgrade) -> Result<(TcpStream, Bytes), hyper::Error> {
    let upgraded = upgrade.await?;
    let parts = upgraded.downcast::<TokioIo<Counted>>().expect("Nexus listens on TCP itself");
    let stream = parts.io.into_inner().into_inner();
    server::without_deadline(&stream);
    Ok((stream, parts.read_buf))
}

/// A request that asks for a WebSocket as the standard says.
pub(super) struct Handshake {
    accept: String,
    upgrade: OnUpgrade,
}

impl FromRequestParts<AppState> for Handshake {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Response> {
        let refuse = |name: &'static str, message: &str| {
            let refused = ApiError::InvalidParameter { name, message: message.into() };
            // The client is told what it may ask for (RFC 6455, section 4.4).
            ([(header::SEC_WEBSOCKET_VERSION, "13")], refused).into_response()
        };
        if !names(&parts.headers, &header::CONNECTION, "upgrade") {
            return Err(refuse("Connection", "must be `Upgrade`: this is a WebSocket"));
        }
        if !names(&parts.headers, &header::UPGRADE, "websocket") {
            return Err(refuse("Upgrade", "must ask for a WebSocket"));
        }
        if !names(&parts.headers, &header::SEC_WEBSOCKET_VERSION, "13") {
            return Err(refuse("Sec-WebSocket-Version", "must be 13"));
        }
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| refuse("Sec-WebSocket-Key", "is missing"))?;
        let digest = Sha1::new().chain_update(key.as_bytes()).chain_update(KEY_SUFFIX).finalize();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or_else(|| refuse("Upgrade", "needs HTTP/1.1"))?;
        Ok(Self { accept: BASE64_STANDARD.encode(digest), upgrade })
    }
}

/// Whether the header's list names the word.
fn names(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    listed(headers, name).any(|named| named.eq_ignore_ascii_case(word))
}

/// What the header lists.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lists = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

/// The page that opened the connection is one that may. Browsers always name it for a
/// WebSocket and do not ask first, so CORS does not protect it; other programs name none.
pub(super) struct AllowedOrigin;

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
pub(super) struct MaybeCaller(pub(super) Option<Claims>);

impl FromRequestParts<AppState> for MaybeCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match bearer(parts) {
            Some(token) => {
                let claims = state.verifier.verify(token).await?;
                admit(state, &claims, parts.extensions.get::<Noted>()).await?;
                Ok(Self(Some(claims)))
            }
            None if parts.headers.contains_key(header::AUTHORIZATION) => Err(ApiError::MissToken),
            None => Ok(Self(None)),
        }
    }
}
