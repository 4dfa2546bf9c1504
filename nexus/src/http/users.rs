//! `/v1/users`: registering users, recording logins, reading users and profiles.

use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::events::POSITION_HEADER;
use super::extract::{JsonOf, PathOf};
use super::{Answer, AppState, Operation, Parameter, Routes};
use crate::auth::caller::bearer;
use crate::auth::{Caller, Scope, UsersRead, UsersWrite};
use crate::chain::Chain;
use crate::position::Position;
use crate::problem::ApiError;
use crate::records::idempotency::IdempotencyKey;
use crate::records::{NewUser, Profile, User, WriteRecord, Written, load, user, write};
use crate::sync::ReadValue;

/// The position of the log at which the answer is current.
const AS_OF_HEADER: HeaderName = HeaderName::from_static("nexus-as-of");
/// Which tier answered: `l1`, `l2` or `miss`.
const CACHE_HEADER: HeaderName = HeaderName::from_static("nexus-cache");
/// The position that the answer must include.
const MIN_POSITION_HEADER: HeaderName = HeaderName::from_static("nexus-min-position");
/// The caller's name for a write, under which it is made at most once.
const IDEMPOTENCY_KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// A UUID has 36; more serves nobody.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

const ID: Parameter = Parameter { place: "path", name: "id", description: "The user's id, a UUID.", required: true };
const IDEMPOTENCY_KEY: Parameter = Parameter {
    place: "header",
    name: "Idempotency-Key",
    description: "1 to 128 visible ASCII characters. A repeated request with the same key gets the first answer and has no second effect, for a day.",
    required: false,
};
const MIN_POSITION: Parameter = Parameter {
    place: "header",
    name: "Nexus-Min-Position",
    description: "The answer holds every change up to this position; give the Nexus-Position of your write to read it back.",
    required: false,
};

pub(super) fn routes() -> Routes {
    Routes::new()
        .with(register_operation(), post(register))
        .with(log_in_operation(), post(log_in))
        .with(read_operation(), get(read))
        .with(profile_operation(), get(profile))
}

fn register_operation() -> Operation {
    Operation {
        scope: Some(UsersWrite::NAME),
        parameters: vec![IDEMPOTENCY_KEY],
        body: vec![("application/json", SchemaGenerator::subschema_for::<NewUser>)],
        answers: vec![Answer {
            headers: &["Location", "Nexus-Position"],
            ..Answer::json::<User>(201, "Registered; `user.registered` was emitted")
        }],
        ..Operation::new(Method::POST, "/v1/users", "registerUser", "Registers a user")
    }
}

fn log_in_operation() -> Operation {
    Operation {
        scope: Some(UsersWrite::NAME),
        parameters: vec![ID, IDEMPOTENCY_KEY],
        answers: vec![Answer {
            headers: &["Nexus-Position"],
            ..Answer::json::<User>(200, "Recorded; `user.login` was emitted")
        }],
        ..Operation::new(Method::POST, "/v1/users/{id}/logins", "recordLogin", "Records that a user has logged in")
    }
}

fn read_operation() -> Operation {
    Operation {
        scope: Some(UsersRead::NAME),
        parameters: vec![ID, MIN_POSITION],
        answers: vec![Answer {
            headers: &["Nexus-As-Of", "Age", "Nexus-Cache"],
            ..Answer::json::<User>(200, "The user, at most 2 s behind the last committed write")
        }],
        ..Operation::new(Method::GET, "/v1/users/{id}", "readUser", "Reads a user; everybody may read himself")
    }
}

fn profile_operation() -> Operation {
    Operation {
        scope: Some(UsersRead::NAME),
        parameters: vec![ID, MIN_POSITION],
        answers: vec![Answer {
            headers: &["Nexus-As-Of"],
            ..Answer::json::<ProfileDocument>(200, "The profile and the position that it has applied")
        }],
        ..Operation::new(Method::GET, "/v1/users/{id}/profile", "readProfile", "Reads a user's profile document")
    }
}

/// A profile with the position that it has applied.
#[derive(Serialize, JsonSchema)]
struct ProfileDocument {
    #[serde(flatten)]
    profile: Profile,
    /// The profile holds every change up to here.
    position: Position,
}

async fn register(
    State(state): State<AppState>,
    caller: Caller<UsersWrite>,
    RequestKey(key): RequestKey,
    JsonOf(document): JsonOf<Value>,
) -> Result<Response, ApiError> {
    let user = NewUser::read(document).map_err(ApiError::InvalidDocument)?;
    let key = key.map(|key| IdempotencyKey::new(&caller.claims.sub, &key, "registerUser", &user));
    let written = write::register(&state.postgres, &user, key.as_ref()).await?;
    let location = location(&written)?;
    let mut response = answer(&state, StatusCode::CREATED, written).await;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

async fn log_in(
    State(state): State<AppState>,
    caller: Caller<UsersWrite>,
    PathOf(id): PathOf<Uuid>,
    RequestKey(key): RequestKey,
) -> Result<Response, ApiError> {
    let key = key.map(|key| IdempotencyKey::new(&caller.claims.sub, &key, "recordLogin", &id));
    let written = write::log_in(&state.postgres, id, key.as_ref()).await?;
    Ok(answer(&state, StatusCode::OK, written).await)
}

async fn read(
    State(state): State<AppState>,
    SelfOrUsersRead(id): SelfOrUsersRead,
    MinPosition(at_least): MinPosition,
) -> Result<Response, ApiError> {
    let reading = state.cache.read(&user::subject(id), at_least, || load::user(&state.postgres, id)).await?;
    let body = reading.body.ok_or(ApiError::FindNothing("there is no such user"))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (AS_OF_HEADER, token(reading.as_of)),
        (header::AGE, HeaderValue::from(reading.age.as_secs())),
        (CACHE_HEADER, HeaderValue::from_static(reading.tier.as_str())),
    ];
    Ok((headers, body).into_response())
}

/// The document, where it is there and fresh enough; otherwise the same from the records.
async fn profile(
    State(state): State<AppState>,
    SelfOrUsersRead(id): SelfOrUsersRead,
    MinPosition(at_least): MinPosition,
) -> Result<Response, ApiError> {
    let includes = |as_of: Position| at_least.is_none_or(|asked| as_of.includes(asked));
    let (profile, position) = match state.profiles.get(id).await {
        Some(found) if includes(found.as_of) => (found.profile, found.as_of),
        _ => {
            let read = load::profiles(&state.postgres, &[id]).await.map_err(ApiError::unavailable)?;
            if !includes(read.as_of) {
                return Err(ApiError::UnknownPosition { head: read.as_of });
            }
            let profile = read.profiles.into_iter().next();
            (profile.ok_or(ApiError::FindNothing("there is no such user"))?, read.as_of)
        }
    };
    let document = ProfileDocument { profile, position };
    Ok(([(AS_OF_HEADER, token(position))], axum::Json(document)).into_response())
}

/// The answer to a write that is committed. It carries the write's position, unless the
/// sequencer is away for so long that the caller would give up and not know of the commit.
async fn answer(state: &AppState, status: StatusCode, written: Written) -> Response {
    let ids = [written.outbox_id];
    let places = if written.repeated { state.tail.await_old(&ids).await } else { state.tail.await_all(&ids).await };
    let json = HeaderValue::from_static("application/json");
    let mut response = (status, [(header::CONTENT_TYPE, json)], Bytes::from(written.answer)).into_response();
    match places {
        Ok(places) => {
            response.headers_mut().extend(places.first().map(|position| (POSITION_HEADER, token(*position))));
        }
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "a write is committed and has no position yet");
        }
    }
    response
}

fn location(written: &Written) -> Result<HeaderValue, ApiError> {
    let user: User = serde_json::from_str(&written.answer).map_err(ApiError::internal)?;
    HeaderValue::try_from(format!("/v1/users/{}", user.id)).map_err(ApiError::internal)
}

fn token(position: Position) -> HeaderValue {
    HeaderValue::try_from(position.to_string()).expect("a position is digits and a dot")
}

/// A caller who may read the user in the path: the user, or who has the scope `users:read`.
struct SelfOrUsersRead(Uuid);

impl FromRequestParts<AppState> for SelfOrUsersRead {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let claims = state.verifier.verify(bearer(parts).ok_or(ApiError::MissToken)?).await?;
        let PathOf(id) = PathOf::<Uuid>::from_request_parts(parts, state).await?;
        if claims.sub == id.to_string() || claims.allows(UsersRead::NAME) {
            Ok(Self(id))
        } else {
            Err(ApiError::LackScope { scope: UsersRead::NAME })
        }
    }
}

/// The `Nexus-Min-Position` of a request.
struct MinPosition(Option<Position>);

impl FromRequestParts<AppState> for MinPosition {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(MIN_POSITION_HEADER) else {
            return Ok(Self(None));
        };
        let position = value.to_str().ok().and_then(|token| token.parse().ok());
        let message = "must be a position as Nexus gave it".to_owned();
        position
            .map(|position| Self(Some(position)))
            .ok_or(ApiError::InvalidParameter { name: "Nexus-Min-Position", message })
    }
}

/// The `Idempotency-Key` of a request.
struct RequestKey(Option<String>);

impl FromRequestParts<AppState> for RequestKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(IDEMPOTENCY_KEY_HEADER) else {
            return Ok(Self(None));
        };
        let fits = |key: &&str| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len());
        let key = value.to_str().ok().filter(fits);
        let message = format!("must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
        key.map(|key| Self(Some(key.to_owned()))).ok_or(ApiError::InvalidParameter { name: "Idempotency-Key", message })
    }
}

impl From<WriteRecord> for ApiError {
    fn from(error: WriteRecord) -> Self {
        match error {
            WriteRecord::TakeEmail => {
                Self::Conflict { code: "email_taken", detail: "another user has this email address".to_owned() }
            }
            WriteRecord::ReuseKey => Self::Conflict {
                code: "idempotency_key_reused",
                detail: "the Idempotency-Key was used for another request".to_owned(),
            },
            WriteRecord::FindUser => Self::FindNothing("there is no such user"),
            error => Self::unavailable(error),
        }
    }
}

impl From<ReadValue> for ApiError {
    fn from(error: ReadValue) -> Self {
        match error {
            ReadValue::ReachPosition { head, .. } => Self::UnknownPosition { head },
            error @ ReadValue::LoadRecord(_) => Self::unavailable(error),
        }
    }
}
