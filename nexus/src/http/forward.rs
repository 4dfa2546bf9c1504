//! Hands requests for a session that another pod holds over to that pod, so that a client that polls needs no sticky
//! sessions.

use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use reqwest::redirect::Policy;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::admission::{ClientAddress, place};
use super::stream::{Handshake, switch_protocols};
use super::{AppState, server};
use crate::chain::Chain;
use crate::problem::ApiError;

/// Marks a request that came from another pod: it is not sent on once more.
pub(super) const FORWARDED: HeaderName = HeaderName::from_static("nexus-forwarded");

/// Calls other pods: at the addresses that they say, and at no other.
pub fn peers() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .connect_timeout(ACCEPT_DEADLINE)
        // Sooner than the other side ends it.
        .pool_idle_timeout(Duration::from_secs(30))
        .build()
}

/// How long another pod may take to accept a WebSocket.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(2);

/// How long one side may go on after the other has ended.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// Largest head of an answer.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// What another pod needs of a request's head. No token: the secret of the session is one.
const PASSED_ON: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::ORIGIN,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
];

/// Where the session is held, if another pod holds it.
pub(super) async fn holder(state: &AppState, parts: &Parts, sid: &str) -> Option<String> {
    if parts.headers.contains_key(FORWARDED) { None } else { state.sessions.holder(state, sid).await }
}

/// Sends a request on, and its answer back.
pub(super) async fn request(state: &AppState, holder: &str, parts: &Parts, body: Bytes) -> Result<Response, ApiError> {
    let url = format!("http://{holder}{}", target(parts));
    let request = state.peers.request(parts.method.clone(), url).headers(passed_on(parts)).body(body);
    let answer = request.send().await.map_err(ApiError::unavailable)?;
    let status = answer.status();
    let names = [header::CONTENT_TYPE, header::CACHE_CONTROL];
    let headers: HeaderMap =
        names.into_iter().filter_map(|name| Some((name.clone(), answer.headers().get(&name)?.clone()))).collect();
    let body = answer.bytes().await.map_err(ApiError::unavailable)?;
    Ok((status, headers, body).into_response())
}

/// Opens the WebSocket at the pod that holds the session, and passes on what is said; nothing if it refuses.
pub(super) async fn upgrade(
    state: &AppState,
    holder: &str,
    parts: &Parts,
    handshake: Handshake,
) -> Result<Option<Response>, ApiError> {
    let place = place(state, ClientAddress(None)).await?;
    let opened = match timeout(ACCEPT_DEADLINE, open(holder, parts)).await {
        Ok(opened) => opened.map_err(ApiError::unavailable)?,
        Err(_) => return Err(ApiError::unavailable("another pod did not answer in time")),
    };
    let Some((mut there, first)) = opened else { return Ok(None) };
    let send = Duration::from_secs(state.config.stream.send_seconds);
    server::with_deadline(&there, send);
    let stopping = state.stopping.clone();
    let response = switch_protocols(&state.tasks, handshake, move |mut here, brought| async move {
        let _place = place;
        server::with_deadline(&here, send);
        let pass_on = async {
            there.write_all(&brought).await?;
            here.write_all(&first).await?;
            let (mut read_here, mut write_here) = here.split();
            let (mut said_there, mut told_there) = there.split();
            tokio::select! {
                ended = copy(&mut read_here, &mut told_there) => ended,
                ended = copy(&mut said_there, &mut write_here) => ended,
            }
        };
        tokio::select! {
            passed = pass_on => {
                if let Err(error) = passed {
                    tracing::debug!(error = %Chain(&error), "a WebSocket to another pod ended early");
                }
            }
            () = stopping.cancelled() => {}
        }
        // One side has ended: the other may say its last, and holds no place here for longer.
        let _ = timeout(CLOSE_DEADLINE, copy_bidirectional(&mut here, &mut there)).await;
    });
    response.map(Some)
}

/// Asks the other pod for a WebSocket: the connection and what came on it after the answer, or nothing if it refuses.
async fn open(holder: &str, parts: &Parts) -> std::io::Result<Option<(TcpStream, Vec<u8>)>> {
    let mut stream = TcpStream::connect(holder).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&upgrade_head(holder, target(parts), &passed_on(parts))).await?;
    let mut answer = Vec::new();
    loop {
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = answer.split_off(end + 4);
            return Ok(answer.starts_with(b"HTTP/1.1 101 ").then_some((stream, rest)));
        }
        if answer.len() > HEAD_BYTES_MAX || stream.read_buf(&mut answer).await? == 0 {
            return Ok(None);
        }
    }
}

/// The head of a request for a WebSocket.
fn upgrade_head(holder: &str, target: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut head = format!("GET {target} HTTP/1.1\r\nhost: {holder}\r\nconnection: upgrade\r\nupgrade: websocket\r\n")
        .into_bytes();
    for (name, value) in headers {
        // A header's value has no line break, or it would not have been read.
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn target(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |target| target.as_str())
}

fn passed_on(parts: &Parts) -> HeaderMap {
    let named = PASSED_ON.into_iter().filter_map(|name| Some((name.clone(), parts.headers.get(&name)?.clone())));
    named.chain([(FORWARDED, HeaderValue::from_static("1"))]).collect()
}

#[cfg(test)]
mod laws {
    use axum::http::{Request, Uri};
    use proptest::prelude::*;

    use super::*;
    use crate::damage::{damaged, damages};

    const TARGETS: [&str; 3] =
        ["/socket.io/?EIO=4&transport=websocket&sid=0123456789abcdef", "http://127.0.0.1:9/socket.io/?EIO=4", "*"];

    proptest! {
        #[test]
        fn no_request_adds_a_line_to_the_one_that_is_handed_on(
            target in prop::sample::select(&TARGETS[..]),
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), PASSED_ON.len()),
            damages in damages(),
        ) {
            let Ok(uri) = Uri::try_from(damaged(target.as_bytes(), &damages)) else { return Ok(()) };
            let mut request = Request::builder().uri(uri).header("x-other", "not handed on");
            let mut handed_on = 0;
            for (name, value) in PASSED_ON.iter().zip(&values) {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    request = request.header(name, value);
                    handed_on += 1;
                }
            }
            let (parts, ()) = request.body(()).expect("each part of it is valid").into_parts();
            let head = upgrade_head("10.0.0.7:4001", super::target(&parts), &passed_on(&parts));
            let head = String::from_utf8_lossy(&head).into_owned();
            let lines: Vec<&str> = head.split("\r\n").collect();
            // The request, who is asked, two that ask for a WebSocket, the mark, and two empty ones at the end.
            prop_assert_eq!(lines.len(), 4 + handed_on + 1 + 2, "{}", head);
            prop_assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])), "{}", head);
            prop_assert!(lines[0].starts_with("GET ") && lines[0].ends_with(" HTTP/1.1"), "{}", head);
            prop_assert_eq!(lines[0].split(' ').count(), 3, "{}", head);
        }
    }
}
