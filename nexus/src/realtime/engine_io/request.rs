//! What an HTTP request asks of the Engine.IO server, from its query parameters; and the refusals. Pure.
//!
//! The order of the checks, the codes and the messages are those of the reference server
//! (<https://github.com/socketio/socket.io/blob/main/packages/engine.io/lib/server.ts>). Values are taken as they are:
//! no client percent-encodes these three, and no session id of ours needs it.

use serde::Serialize;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A plain `GET`.
    Get,
    /// A `POST`.
    Post,
    /// A request that asks to become a WebSocket.
    WebSocket,
    /// Any other; a preflight has been answered before.
    Other,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Open a session; the answer is the handshake.
    OpenPolling,
    /// Open a session on a WebSocket; the first frame is the handshake.
    OpenWebSocket,
    /// Wait for packets of the session.
    Poll(&'a str),
    /// Take packets of the session.
    Push(&'a str),
    /// Move the session to this WebSocket.
    Upgrade(&'a str),
}

/// Why a request is refused. The body of the answer is JSON with a code and a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `transport` is missing, or none of ours.
    #[error("Transport unknown")]
    Transport,
    /// There is no session of this `sid`, or no longer. The client opens a new one.
    #[error("Session ID unknown")]
    Session,
    /// A session is opened by `GET` only.
    #[error("Bad handshake method")]
    HandshakeMethod,
    /// The parts of the request do not fit together, or the session does not allow it now.
    #[error("Bad request")]
    Request,
    /// The server does not want this client.
    #[error("Forbidden")]
    Forbidden,
    /// `EIO` is missing or not 4. Clients of Socket.IO 2 and older send 3.
    #[error("Unsupported protocol version")]
    Version,
}

impl Refusal {
    /// The code of the reference server.
    pub fn code(self) -> u8 {
        match self {
            Self::Transport => 0,
            Self::Session => 1,
            Self::HandshakeMethod => 2,
            Self::Request => 3,
            Self::Forbidden => 4,
            Self::Version => 5,
        }
    }

    /// The HTTP status of the answer.
    pub fn status(self) -> u16 {
        if self == Self::Forbidden { 403 } else { 400 }
    }

    /// The body of the answer, `application/json`.
    pub fn body(self) -> String {
        #[derive(Serialize)]
        struct Body {
            code: u8,
            message: String,
        }
        serde_json::to_string(&Body { code: self.code(), message: self.to_string() }).expect("it is a number and text")
    }
}

impl<'a> Request<'a> {
    /// Reads the query of a request, without its `?`. Whether the session exists is for the caller to say.
    pub fn read(method: Method, query: &'a str) -> Result<Self, Refusal> {
        let parameter = |name| {
            // Of several, the last counts. An empty one is none.
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.rev().find(|(key, _)| *key == name).map(|(_, value)| value).filter(|value| !value.is_empty())
        };
        let over_websocket = match parameter("transport") {
            Some("polling") => false,
            Some("websocket") => true,
            _ => return Err(Refusal::Transport),
        };
        let request = match (parameter("sid"), over_websocket, method) {
            (None, false, Method::Get) => Self::OpenPolling,
            (None, true, Method::WebSocket) => Self::OpenWebSocket,
            (None, _, Method::Post | Method::Other) => return Err(Refusal::HandshakeMethod),
            (Some(sid), false, Method::Get) => Self::Poll(sid),
            (Some(sid), false, Method::Post) => Self::Push(sid),
            (Some(sid), true, Method::WebSocket) => Self::Upgrade(sid),
            _ => return Err(Refusal::Request),
        };
        if parameter("EIO") == Some("4") { Ok(request) } else { Err(Refusal::Version) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const METHODS: [Method; 4] = [Method::Get, Method::Post, Method::WebSocket, Method::Other];

    #[test]
    fn each_request_of_a_client_is_known() {
        for (method, query, want) in [
            (Method::Get, "EIO=4&transport=polling", Request::OpenPolling),
            (Method::Get, "EIO=4&transport=polling&t=N8hyd6w&b64=1", Request::OpenPolling),
            (Method::Get, "transport=polling&sid=&EIO=4", Request::OpenPolling),
            (Method::WebSocket, "EIO=4&transport=websocket", Request::OpenWebSocket),
            (Method::Get, "EIO=4&transport=polling&t=1&sid=lv_VI-9", Request::Poll("lv_VI-9")),
            (Method::Post, "EIO=4&transport=polling&sid=lv", Request::Push("lv")),
            (Method::WebSocket, "EIO=4&transport=websocket&sid=lv", Request::Upgrade("lv")),
            (Method::Get, "EIO=3&EIO=4&transport=polling&sid=a&sid=b", Request::Poll("b")),
        ] {
            assert_eq!(Request::read(method, query), Ok(want), "{query}");
        }
    }

    #[test]
    fn every_other_request_is_refused_each_with_its_reason() {
        for (method, query, want) in [
            (Method::Get, "", Refusal::Transport),
            (Method::Get, "EIO=4", Refusal::Transport),
            (Method::Get, "EIO=4&transport=abc", Refusal::Transport),
            (Method::Get, "EIO=4&transport=webtransport", Refusal::Transport),
            (Method::WebSocket, "EIO=4", Refusal::Transport),
            (Method::WebSocket, "EIO=4&transport=abc", Refusal::Transport),
            (Method::Get, "transport=polling", Refusal::Version),
            (Method::Get, "EIO=abc&transport=polling", Refusal::Version),
            (Method::Get, "EIO=3&transport=polling", Refusal::Version),
            (Method::Post, "EIO=3&transport=polling&sid=lv", Refusal::Version),
            (Method::WebSocket, "transport=websocket", Refusal::Version),
            (Method::WebSocket, "EIO=abc&transport=websocket", Refusal::Version),
            (Method::Post, "EIO=4&transport=polling", Refusal::HandshakeMethod),
            (Method::Other, "EIO=4&transport=polling", Refusal::HandshakeMethod),
            (Method::Get, "EIO=4&transport=websocket", Refusal::Request),
            (Method::WebSocket, "EIO=4&transport=polling", Refusal::Request),
            (Method::Get, "EIO=4&transport=websocket&sid=lv", Refusal::Request),
            (Method::WebSocket, "EIO=4&transport=polling&sid=lv", Refusal::Request),
            (Method::Other, "EIO=4&transport=polling&sid=lv", Refusal::Request),
        ] {
            assert_eq!(Request::read(method, query), Err(want), "{method:?} {query}");
        }
    }

    #[test]
    fn every_refusal_has_the_body_of_the_reference_server() {
        for (refusal, status, body) in [
            (Refusal::Transport, 400, r#"{"code":0,"message":"Transport unknown"}"#),
            (Refusal::Session, 400, r#"{"code":1,"message":"Session ID unknown"}"#),
            (Refusal::HandshakeMethod, 400, r#"{"code":2,"message":"Bad handshake method"}"#),
            (Refusal::Request, 400, r#"{"code":3,"message":"Bad request"}"#),
            (Refusal::Forbidden, 403, r#"{"code":4,"message":"Forbidden"}"#),
            (Refusal::Version, 400, r#"{"code":5,"message":"Unsupported protocol version"}"#),
        ] {
            assert_eq!((refusal.status(), refusal.body().as_str()), (status, body));
        }
    }

    proptest! {
        #[test]
        fn no_query_makes_it_fail_otherwise_than_by_an_answer(
            query in "((EIO|transport|sid|t|)=?(4|3|polling|websocket|[a-z%&=]*)&){0,6}|\\PC*",
            method in 0..METHODS.len(),
        ) {
            let _ = Request::read(METHODS[method], &query);
        }
    }
}
