//! What a client still sends when it has been answered already: a body that was refused by its length, its media type
//! or its sender. Closed at once, the connection would take the answer with it (RFC 9112, section 9.6).

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::middleware::Next;
use axum::response::Response;
use futures::{StreamExt as _, stream};
use tokio::sync::oneshot;

use super::lent::Lent;

/// How much more is taken from a client: a body that is a little too large, or comes without a right, not a flood.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// For how long.
const DEADLINE: Duration = Duration::from_secs(5);

/// Answers at once, and takes what the client still sends before the answer ends.
pub(super) async fn take(request: Request, next: Next) -> Response {
    // Who expects a word before the body sends none after a refusal.
    if request.body().is_end_stream() || request.headers().contains_key(EXPECT) {
        return next.run(request).await;
    }
    let (hand_back, mut handed_back) = oneshot::channel();
    let request = request.map(|body| {
        // Nobody takes it back when the answer never came.
        Body::new(Lent::new(body, move |rest| drop(hand_back.send(rest))))
    });
    let response = next.run(request).await;
    let rest = handed_back.try_recv().unwrap_or_default();
    if rest.is_end_stream() || rest.size_hint().lower() > BYTES_MAX {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The length alone would tell where the answer ends.
    parts.headers.remove(CONTENT_LENGTH);
    let end = stream::once(drain(rest)).filter_map(async |()| None);
    Response::from_parts(parts, Body::from_stream(body.into_data_stream().chain(end)))
}

async fn drain(rest: Body) {
    let mut rest = rest.into_data_stream();
    let mut taken = 0;
    let _ = tokio::time::timeout(DEADLINE, async {
        while taken <= BYTES_MAX
            && let Some(Ok(bytes)) = rest.next().await
        {
            taken += bytes.len() as u64;
        }
    })
    .await;
}
