//! Extractors whose refusals are problem documents.

use std::time::Duration;

use axum::body::{self, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use futures::TryStreamExt as _;
use serde::de::DeserializeOwned;

use super::AppState;
use crate::problem::ApiError;
use crate::unfinished::{Memory, Share};

/// How long a client may take to send a body.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// The query of a request.
#[derive(Debug)]
pub struct QueryOf<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(refused) => Err(ApiError::InvalidParameter { name: "query", message: refused.body_text() }),
        }
    }
}

/// The parameters in a path.
#[derive(Debug)]
pub struct PathOf<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for PathOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(path)) => Ok(Self(path)),
            Err(refused) => Err(ApiError::InvalidParameter { name: "path", message: refused.body_text() }),
        }
    }
}

/// A body within the bound on size and time, with its media type in lower case and without parameters.
#[derive(Debug)]
pub struct Body {
    /// The media type.
    pub media_type: String,
    /// The content.
    pub content: Vec<u8>,
    /// The memory for it.
    pub share: Share,
}

impl FromRequest<AppState> for Body {
    type Rejection = ApiError;

    /// Of a caller who has shown a token.
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        Self::receive(request, state.config.limits.body_bytes_max, &state.unfinished.callers).await
    }
}

impl Body {
    /// At most so many bytes, for which this memory is.
    pub(super) async fn receive(request: Request, bytes_max: usize, memory: &Memory) -> Result<Self, ApiError> {
        let media_type = media_type(request.headers());
        // Nothing is unpacked here: a small body must not become a large one.
        if request.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(ApiError::RefuseMediaType);
        }
        // By its announced length, before it takes any time or memory.
        if request.body().size_hint().lower() > bytes_max as u64 {
            return Err(ApiError::LimitBody { bytes_max });
        }
        let mut share = memory.share();
        let content = tokio::time::timeout(BODY_DEADLINE, receive(request.into_body(), bytes_max, &mut share)).await;
        let late = |_| ApiError::MalformedBody("the body did not arrive in time".to_owned());
        Ok(Self { media_type, content: content.map_err(late)??, share })
    }
}

async fn receive(body: body::Body, bytes_max: usize, share: &mut Share) -> Result<Vec<u8>, ApiError> {
    let broken = |_| ApiError::MalformedBody("the body did not arrive whole".to_owned());
    let (mut chunks, mut content) = (body.into_data_stream(), Vec::new());
    while let Some(chunk) = chunks.try_next().await.map_err(broken)? {
        if chunk.len() > bytes_max - content.len() {
            return Err(ApiError::LimitBody { bytes_max });
        }
        content.extend_from_slice(&chunk);
        // It has room for more than came.
        if !share.hold(content.capacity()) {
            return Err(ApiError::Overload("this pod receives too much at once"));
        }
    }
    Ok(content)
}

/// A JSON document.
#[derive(Debug)]
pub struct JsonOf<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for JsonOf<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let body = Body::from_request(request, state).await?;
        if body.media_type != "application/json" {
            return Err(ApiError::RefuseMediaType);
        }
        let document = serde_json::from_slice(&body.content);
        document.map(Self).map_err(|error| ApiError::MalformedBody(error.to_string()))
    }
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
