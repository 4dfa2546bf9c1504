//! The extractor that makes a handler's scope visible in its signature.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::claims::Claims;
use crate::http::{AppState, admission};
use crate::problem::ApiError;

/// A right that a token may carry.
pub trait Scope: Send + Sync {
    /// The word in the token's `scope`.
    const NAME: &'static str;
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $scope:ident = $name:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $scope;

        impl Scope for $scope {
            const NAME: &'static str = $name;
        }
    )*};
}

scopes! {
    /// May read every event.
    EventsRead = "events:read";
    /// May read the events that are told in the caller's rooms.
    EventsReadOwn = "events:read:own";
    /// May publish events.
    EventsWrite = "events:write";
    /// May publish what the registry lets people say of themselves.
    EventsWriteOwn = "events:write:own";
    /// May make durable consumers and take events from them; which events, the scopes for reading say.
    ConsumersWrite = "consumers:write";
    /// May make webhooks; which events they get, the scopes for reading say.
    WebhooksWrite = "webhooks:write";
    /// May read users.
    UsersRead = "users:read";
    /// May write users.
    UsersWrite = "users:write";
    /// May do everything.
    Admin = "admin";
}

/// A caller whose token is valid and carries the scope.
#[derive(Clone, Debug)]
pub struct Caller<S: Scope> {
    /// What the token says.
    pub claims: Claims,
    scope: PhantomData<S>,
}

impl<S: Scope> FromRequestParts<AppState> for Caller<S> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let token = bearer(parts).ok_or(ApiError::MissToken)?;
        let claims = state.verifier.verify(token).await?;
        admission::admit(state, &claims, parts.extensions.get()).await?;
        if claims.allows(S::NAME) {
            Ok(Self { claims, scope: PhantomData })
        } else {
            Err(ApiError::LackScope { scope: S::NAME })
        }
    }
}

/// The token of the one `Authorization: Bearer` header. With two of them a proxy may have judged by the other.
pub fn bearer(parts: &Parts) -> Option<&str> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let (header, None) = (headers.next()?, headers.next()) else { return None };
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
