//! Accepts connections and speaks HTTP/1.1 on them. Bounds what clients may cost before a handler knows of them: their
//! number, the time for a request's head, and the time in which one takes nothing of what it is sent.

pub(super) mod head;
mod places;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use socket2::SockRef;
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use self::head::Counted;
use self::places::Places;
use super::AppState;
use super::admission::Peer;
use super::lent::Lent;
use crate::chain::Chain;
use crate::metrics;
use crate::problem::{ApiError, RETRY_AFTER_SECONDS};

/// A head that is not whole after so many bytes is refused: room for long tokens. Every connection may have a buffer of
/// this size, and keeps it.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Pause after the machine had no room for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Connections of callers that are no clients of a stream, where those are few: probes, other pods, services.
const OTHERS: usize = 256;

/// How long a client that is refused may take to read why.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(1);

/// Clients that read at the same time why they are refused; further ones are not told.
const REFUSALS_MAX: usize = 256;

/// Serves until `closing`, and then what is under way to its end.
pub async fn serve(listener: TcpListener, state: AppState, closing: CancellationToken) {
    let head = Duration::from_secs(state.config.limits.head_seconds);
    let send = Duration::from_secs(state.config.stream.send_seconds);
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(HEAD_BYTES_MAX);
    let router = super::router(state.clone());
    let places = Places::new(places(state.config.stream.connections_max));
    let unheard = unread(&state, 408);
    let refusals = Refusals::new(&state);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // The client has gone already, or this process has as many files open as it may.
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Some(place) = places.enter() else {
            refusals.refuse(stream, &connections);
            continue;
        };
        prepare(&stream, send);
        // Held until the end, or until it is a WebSocket, which has a place of its own.
        let stream = Counted::new(stream, state.unfinished.strangers.share());
        let (its_place, head, router) = (Arc::clone(&place), stream.head(), router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let under_way = (its_place.request(), head.whole());
            request.extensions_mut().insert(Peer(peer));
            let answer = router.clone().call(request);
            // Until all of the answer is written.
            async move { Ok::<_, Infallible>(answer.await?.map(|body| Lent::new(body, |_| drop(under_way)))) }
        });
        let connection = protocol.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let (closing, unheard) = (closing.clone(), unheard.clone());
        connections.spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                // What comes now is too late: a newcomer has the place.
                biased;
                () = place.given_up() => {
                    unheard.inc();
                    return;
                }
                ended = connection.as_mut() => ended,
                () = closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error = %Chain(&error), "a connection ended early");
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// How many connections may be open that are no WebSockets, or not yet. All clients that this pod may hold may come
/// back in one moment, and each may hold two: one for its stream or poll, and one for what it sends or asks beside it.
fn places(connections_max: usize) -> usize {
    connections_max.saturating_mul(2).saturating_add(OTHERS)
}

/// Counts the connections that ended so before a whole request was read.
fn unread(state: &AppState, status: u16) -> Counter {
    let labels = metrics::Request { method: "other".to_owned(), route: "unread".to_owned(), status };
    state.metrics.requests.get_or_create(&labels).clone()
}

/// Answers connections for which there is no place. No handler sees them, so it is the same for all.
struct Refusals {
    answer: Bytes,
    under_way: Arc<Semaphore>,
    counter: Counter,
}

impl Refusals {
    fn new(state: &AppState) -> Self {
        let problem = ApiError::unavailable("there are too many connections").problem();
        let body = serde_json::to_string(&problem).expect("a problem is text and numbers");
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
            retry-after: {RETRY_AFTER_SECONDS}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { answer: answer.into(), under_way: Arc::new(Semaphore::new(REFUSALS_MAX)), counter: unread(state, 503) }
    }

    fn refuse(&self, mut stream: TcpStream, connections: &TaskTracker) {
        self.counter.inc();
        let Ok(place) = Arc::clone(&self.under_way).try_acquire_owned() else { return };
        let answer = self.answer.clone();
        let told = async move {
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
            // If something of the request were left unread, the network would take the answer back.
            copy(&mut stream, &mut sink()).await
        };
        connections.spawn(async move {
            let _place = place;
            // One that does not read it, or has gone, is as well refused.
            let _ = timeout(REFUSAL_DEADLINE, told).await;
        });
    }
}

/// The connection has a deadline of its own from now on, and closes in order when that has passed.
pub(super) fn without_deadline(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_tcp_user_timeout(None);
}

/// A client that takes nothing for as long as `send` is given up by the kernel.
pub(super) fn with_deadline(stream: &TcpStream, send: Duration) {
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(send));
}

/// A connection on which these cannot be set is no worse than one on a system without them.
fn prepare(stream: &TcpStream, send: Duration) {
    // An event must not wait for the acknowledgement of the one before it.
    let _ = stream.set_nodelay(true);
    with_deadline(stream, send);
}
