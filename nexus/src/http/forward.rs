//! Hands requests for a session that another pod holds over to that pod, so that a client that polls needs no sticky
//! sessions.

use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use reqwest::redirect::Policy;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::admission::{ClientAddress, place};
use super::stream::{Handshake, switch_protocols};
use super::{AppState, server};
use crate::chain::Chain;
use crate::problem::ApiError;
use crate::realtime::Limits;
use crate::realtime::engine_io::sessions::Holder;

/// Marks a request that came from another pod, by the secret of the pod that it is sent to.
const FORWARDED: HeaderName = HeaderName::from_static("nexus-forwarded");

/// The mark for a pod that has said no secret: one of the version before, to which any mark will do.
const MARK_WITHOUT_SECRET: &str = "1";

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

/// Whether another pod has sent the request, and so counted it. One of the version before cannot show that: what it
/// hands on is served, and counts as its own.
pub(super) fn is_from_pod(state: &AppState, headers: &HeaderMap) -> bool {
    headers.get(FORWARDED).is_some_and(|shown| state.sessions.is_secret(shown.as_bytes()))
}

/// Where the session is held, if another pod holds it. A request is not sent on twice, whoever has marked it: a pod
/// that began at the address of one that is gone does not know the secret of that one, and would hand the request to
/// itself without end. Who forges a mark finds fewer sessions, and gains nothing.
pub(super) async fn holder(state: &AppState, parts: &Parts, sid: &str) -> Option<Holder> {
    if parts.headers.contains_key(FORWARDED) { None } else { state.sessions.holder(state, sid).await }
}

/// Sends a request on, and its answer back.
pub(super) async fn request(
    state: &AppState,
    holder: &Holder,
    parts: &Parts,
    body: Bytes,
) -> Result<Response, ApiError> {
    let url = format!("http://{}{}", holder.address, target(parts));
    let request = state.peers.request(parts.method.clone(), url).headers(passed_on(parts, holder)).body(body);
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
    holder: &Holder,
    parts: &Parts,
    handshake: Handshake,
) -> Result<Option<Response>, ApiError> {
    let place = place(state, ClientAddress(None)).await?;
    let opened = match timeout(ACCEPT_DEADLINE, open(holder, parts)).await {
        Ok(opened) => opened.map_err(ApiError::unavailable)?,
        Err(_) => return Err(ApiError::unavailable("another pod did not answer in time")),
    };
    let Some((there, first)) = opened else { return Ok(None) };
    let send = Duration::from_secs(state.config.stream.send_seconds);
    server::with_deadline(&there, send);
    let leave = time_to_leave(state.clone());
    let response = switch_protocols(&state.tasks, handshake, move |here, brought| async move {
        let _place = place;
        server::with_deadline(&here, send);
        pass_on((here, brought), (there, first), leave).await;
    });
    response.map(Some)
}

/// Ends when this pod stops, and before that when it drains: for each client at a time of its own, so that the other
/// pods do not get all of them in one moment.
async fn time_to_leave(state: AppState) {
    let delay = Duration::from_millis(Limits::of(&state.config).delay_of_return());
    let drained = async {
        state.draining.cancelled().await;
        sleep(delay).await;
    };
    tokio::select! {
        () = drained => {}
        () = state.stopping.cancelled() => {}
    }
}

/// Passes on what the client says `here` and the other pod `there`, each after what came with the upgrade. When it is
/// time to leave, the other pod sees its client go, and closes; its last words still reach the client, all of them and
/// in order, and then the end. The client gets no close frame: nobody here knows where a frame of the other pod ends,
/// and a client of Socket.IO comes back after any end.
async fn pass_on(
    (mut here, brought): (TcpStream, Bytes),
    (mut there, first): (TcpStream, Vec<u8>),
    leave: impl Future<Output = ()>,
) {
    let (mut read_here, mut write_here) = here.split();
    let (mut said_there, mut told_there) = there.split();
    let ended = CancellationToken::new();
    let up = async {
        let said = async {
            told_there.write_all(&brought).await?;
            // It holds the whole buffer of the request.
            drop(brought);
            copy(&mut read_here, &mut told_there).await
        };
        tokio::select! {
            said = said => note(said),
            () = leave => {}
        }
        ended.cancel();
        let _ = told_there.shutdown().await;
        // What the client says now is for nobody; if it were left unread, the network would take back what it was told.
        let _ = copy(&mut read_here, &mut sink()).await;
    };
    let down = async {
        let told = async {
            write_here.write_all(&first).await?;
            drop(first);
            copy(&mut said_there, &mut write_here).await
        };
        note(told.await);
        ended.cancel();
        let _ = write_here.shutdown().await;
    };
    // One side has ended: the other may say its last, and holds no place here for longer.
    let late = async {
        ended.cancelled().await;
        sleep(CLOSE_DEADLINE).await;
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(up, down) } => {}
        () = late => {}
    }
}

fn note(passed: std::io::Result<u64>) {
    if let Err(error) = passed {
        tracing::debug!(error = %Chain(&error), "a WebSocket to another pod ended early");
    }
}

/// Asks the other pod for a WebSocket: the connection and what came on it after the answer, or nothing if it refuses.
async fn open(holder: &Holder, parts: &Parts) -> std::io::Result<Option<(TcpStream, Vec<u8>)>> {
    let mut stream = TcpStream::connect(&holder.address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&upgrade_head(&holder.address, target(parts), &passed_on(parts, holder))).await?;
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
fn upgrade_head(address: &str, target: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut head = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n")
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

fn passed_on(parts: &Parts, holder: &Holder) -> HeaderMap {
    let named = PASSED_ON.into_iter().filter_map(|name| Some((name.clone(), parts.headers.get(&name)?.clone())));
    let secret = holder.secret.as_ref().and_then(|secret| HeaderValue::from_str(secret.expose()).ok());
    let mut mark = secret.unwrap_or(HeaderValue::from_static(MARK_WITHOUT_SECRET));
    mark.set_sensitive(true);
    named.chain([(FORWARDED, mark)]).collect()
}

#[cfg(test)]
mod laws {
    use axum::http::{Request, Uri};
    use proptest::prelude::*;

    use super::*;
    use crate::config::Secret;
    use crate::damage::{damaged, damages};

    const TARGETS: [&str; 3] =
        ["/socket.io/?EIO=4&transport=websocket&sid=0123456789abcdef", "http://127.0.0.1:9/socket.io/?EIO=4", "*"];

    proptest! {
        #[test]
        fn no_request_adds_a_line_to_the_one_that_is_handed_on(
            target in prop::sample::select(&TARGETS[..]),
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), PASSED_ON.len()),
            damages in damages(),
            secret in prop::option::of("\\PC{0,20}|[0-9a-f]{32}|[\r\n\0a]{0,4}"),
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
            let holder = Holder { address: "10.0.0.7:4001".to_owned(), secret: secret.as_deref().map(Secret::from) };
            let head = upgrade_head(&holder.address, super::target(&parts), &passed_on(&parts, &holder));
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
