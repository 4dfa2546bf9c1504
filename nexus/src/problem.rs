//! Every error answer: RFC 9457 problem documents with a stable code. Causes are logged here, once, and never sent.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::{FetchKeys, VerifyToken};
use crate::chain::Chain;
use crate::events::Violation;
use crate::log::{Publish, ReadLog};
use crate::position::Position;
use crate::throttle::{Policy, Standing};

/// When a caller may come back after a moment's trouble, in seconds.
pub(crate) const RETRY_AFTER_SECONDS: u64 = 1;

/// What is answered when a request cannot be served.
#[derive(Debug)]
pub enum ApiError {
    /// The body is not what the operation reads.
    MalformedBody(String),
    /// A query parameter, path segment or header is not what the operation reads.
    InvalidParameter {
        /// Its name.
        name: &'static str,
        /// What it should be.
        message: String,
    },
    /// The document was understood and breaks rules.
    InvalidDocument(Vec<Violation>),
    /// No token was sent.
    MissToken,
    /// The token was refused.
    RefuseToken(VerifyToken),
    /// The token lacks a scope.
    LackScope {
        /// The scope that is needed.
        scope: &'static str,
    },
    /// The page that asks is of an origin that may not.
    RefuseOrigin,
    /// The type is emitted by Nexus alone.
    ReservedType(String),
    /// There is no such thing.
    FindNothing(&'static str),
    /// The path exists, the method does not.
    RefuseMethod,
    /// The body is larger than allowed.
    LimitBody {
        /// The largest allowed, in bytes.
        bytes_max: usize,
    },
    /// The media type is not one that the operation reads.
    RefuseMediaType,
    /// The write contradicts what is there.
    Conflict {
        /// Stable code.
        code: &'static str,
        /// One sentence.
        detail: String,
    },
    /// The position is of a log that was replaced, or lies beyond the head.
    UnknownPosition {
        /// The head as it is now.
        head: Position,
    },
    /// Too much at once.
    Overload(&'static str),
    /// The caller asks too often.
    Throttle(Standing),
    /// The caller has as many connections as it may.
    LimitConnections {
        /// Whose they are.
        policy: Policy,
        /// The most.
        connections_max: u32,
    },
    /// The caller was not let into the room.
    RefuseRoom,
    /// The caller is in too many rooms to follow them one by one.
    LimitRooms {
        /// The most rooms.
        rooms_max: usize,
    },
    /// Something that Nexus needs is away; safe to repeat.
    Unavailable(Cause),
    /// A mistake of ours.
    Internal(Cause),
}

/// The inside reason of an answer; logged, never sent.
pub type Cause = Box<dyn Error + Send + Sync>;

/// An error answer as it is sent.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Names the kind of problem, `urn:azora:problem:` and the code.
    pub r#type: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable name of the kind, for programs.
    pub code: String,
    /// This case in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What is wrong where, when a document broke rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
}

impl ApiError {
    /// An `Unavailable` with its cause.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(cause.into())
    }

    /// An `Internal` with its cause.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::Internal(cause.into())
    }

    /// Status, stable code and title.
    pub fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::MalformedBody(_) => (StatusCode::BAD_REQUEST, "malformed_body", "The body cannot be read"),
            Self::InvalidParameter { .. } => (StatusCode::BAD_REQUEST, "invalid_parameter", "A parameter is not valid"),
            Self::InvalidDocument(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_document", "The document breaks rules")
            }
            Self::MissToken => (StatusCode::UNAUTHORIZED, "token_missing", "A bearer token is needed"),
            Self::RefuseToken(VerifyToken::FetchKeys(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "issuer_unavailable", "Tokens cannot be verified now")
            }
            Self::RefuseToken(VerifyToken::AwaitRevocations) => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Nexus cannot do this now")
            }
            Self::RefuseToken(VerifyToken::Expired) => {
                (StatusCode::UNAUTHORIZED, "token_expired", "The token has expired")
            }
            Self::RefuseToken(VerifyToken::Revoked) => {
                (StatusCode::UNAUTHORIZED, "token_revoked", "The token was revoked")
            }
            Self::RefuseToken(VerifyToken::Refuse) => {
                (StatusCode::UNAUTHORIZED, "token_invalid", "The token is not valid")
            }
            Self::LackScope { .. } => (StatusCode::FORBIDDEN, "scope_missing", "The token lacks a scope"),
            Self::RefuseOrigin => (StatusCode::FORBIDDEN, "origin_refused", "Pages of this origin may not connect"),
            Self::ReservedType(_) => (StatusCode::FORBIDDEN, "type_reserved", "Only Nexus emits this event type"),
            Self::FindNothing(_) => (StatusCode::NOT_FOUND, "not_found", "There is no such thing"),
            Self::RefuseMethod => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "The path has no such method"),
            Self::LimitBody { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
            Self::RefuseMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type_unsupported", "The media type is not supported")
            }
            Self::Conflict { code, .. } => (StatusCode::CONFLICT, code, "The write contradicts what is there"),
            Self::UnknownPosition { .. } => (StatusCode::CONFLICT, "position_unknown", "The log has no such position"),
            Self::Overload(_) => (StatusCode::TOO_MANY_REQUESTS, "overloaded", "Too much at once"),
            Self::Throttle(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "The caller asks too often"),
            Self::LimitConnections { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_connections", "The caller has too many connections")
            }
            Self::RefuseRoom => (StatusCode::FORBIDDEN, "room_refused", "The caller was not let into the room"),
            Self::LimitRooms { .. } => (StatusCode::FORBIDDEN, "too_many_rooms", "The caller is in too many rooms"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Nexus cannot do this now"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Nexus made a mistake"),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::MalformedBody(detail) | Self::Conflict { detail, .. } => Some(detail.clone()),
            Self::InvalidParameter { name, message } => Some(format!("{name} {message}")),
            Self::LackScope { scope } => Some(format!("the scope {scope} is needed")),
            Self::ReservedType(event_type) => Some(format!("{event_type} tells about a write that Nexus makes itself")),
            Self::FindNothing(what) | Self::Overload(what) => Some((*what).to_owned()),
            Self::LimitBody { bytes_max } => Some(format!("at most {bytes_max} bytes are read")),
            Self::LimitRooms { rooms_max } => {
                Some(format!("more than {rooms_max}; read with the scope events:read and choose subjects"))
            }
            Self::Throttle(Standing { policy, rate, .. }) => {
                Some(format!("a {} may ask {} times a second", policy.name(), rate.per_second))
            }
            Self::LimitConnections { policy, connections_max } => {
                Some(format!("a {} may have {connections_max}; close one", policy.name()))
            }
            Self::UnknownPosition { head } => Some(format!("the head of the log is {head}; read from the start")),
            Self::Unavailable(_) => Some("repeat the request after a moment; writes are idempotent".to_owned()),
            Self::InvalidDocument(_)
            | Self::MissToken
            | Self::RefuseToken(_)
            | Self::RefuseOrigin
            | Self::RefuseMethod
            | Self::RefuseMediaType
            | Self::RefuseRoom
            | Self::Internal(_) => None,
        }
    }

    /// The answer's document.
    pub fn problem(&self) -> Problem {
        let (status, code, title) = self.kind();
        let violations = match self {
            Self::InvalidDocument(violations) => violations.clone(),
            _ => Vec::new(),
        };
        Problem {
            r#type: format!("urn:azora:problem:{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            detail: self.detail(),
            violations,
        }
    }

    /// In how long it may be worth another try, if the caller is told.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttle(Standing { wait, .. }) => *wait,
            _ => None,
        }
    }

    /// One failure, one line: only what is ours to mend is logged.
    fn log(&self) {
        match self {
            Self::Unavailable(cause) => tracing::warn!(error = %Chain(&**cause), "a request could not be served"),
            Self::Internal(cause) => tracing::error!(error = %Chain(&**cause), "a request failed"),
            // It was told when the keys were asked for; anybody can name a key that is not known.
            Self::RefuseToken(VerifyToken::FetchKeys(FetchKeys::Wait)) => {}
            Self::RefuseToken(error @ VerifyToken::FetchKeys(_)) => {
                tracing::warn!(error = %Chain(error), "a token could not be verified");
            }
            _ => {}
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let seconds = |wait: Duration| wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let retry_after_seconds = self.retry_after().map_or(RETRY_AFTER_SECONDS, seconds);
        let problem = self.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
        }
        response
    }
}

impl From<ApiError> for Response {
    fn from(error: ApiError) -> Self {
        error.into_response()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.kind().2)
    }
}

impl From<VerifyToken> for ApiError {
    fn from(error: VerifyToken) -> Self {
        Self::RefuseToken(error)
    }
}

impl From<ReadLog> for ApiError {
    fn from(error: ReadLog) -> Self {
        match error {
            ReadLog::RefusePosition { head } => Self::UnknownPosition { head },
            ReadLog::LimitRooms { rooms_max } => Self::LimitRooms { rooms_max },
            ReadLog::FindHole { .. } => Self::internal(error),
            ReadLog::QueryLog(_) | ReadLog::AwaitStamp => Self::unavailable(error),
        }
    }
}

impl From<Publish> for ApiError {
    fn from(error: Publish) -> Self {
        match error {
            Publish::FillQueue => Self::Overload("too many publishes wait for the database"),
            _ => Self::unavailable(error),
        }
    }
}
