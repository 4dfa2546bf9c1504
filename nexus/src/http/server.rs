//! Accepts connections and speaks HTTP/1.1 on them. Bounds what a client may cost before a handler knows of it: the
//! time for a request's head, and the time in which it takes nothing of what it is sent.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::MapRequest;

use super::admission::Peer;
use crate::chain::Chain;

/// A head that is not whole after so many bytes is refused: room for the longest tokens. Every connection may hold as
/// much, and what comes with one more read.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Pause after the machine had no room for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the head of a request, and before it.
    pub head: Duration,
    /// While it takes nothing of what it is sent: the kernel then gives it up, whatever that was.
    pub send: Duration,
}

/// Serves until `closing`, and then what is under way to its end.
pub async fn serve(listener: TcpListener, router: Router, deadlines: Deadlines, closing: CancellationToken) {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(deadlines.head).max_buf_size(HEAD_BYTES_MAX);
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
        prepare(&stream, deadlines.send);
        let with_peer = move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request
        };
        let service = TowerToHyperService::new(MapRequest::new(router.clone(), with_peer));
        let connection = protocol.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let closing = closing.clone();
        connections.spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
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
