//! What the kubelet and Prometheus ask the operator: `/healthz`, `/readyz`, `/metrics`. It changes nothing.

use crate::metrics::Metrics;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Router, routing::get};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The media type of the `OpenMetrics` text form.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether this process can do its work: it reached the API server, whether it leads or stands by.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says so from now on.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Answers on `listener` until `stop`.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = router(readiness, metrics);
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(readiness: Readiness, metrics: Metrics) -> Router {
    Router::new()
        // Alive means that the runtime answers at all; it must not depend on the API server.
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(expose).with_state(metrics))
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, &'static str) {
    if readiness.is_ready() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the API server has not answered yet")
    }
}

async fn expose(State(metrics): State<Metrics>) -> impl IntoResponse {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(error = %error, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn ask(readiness: &Readiness, metrics: &Metrics, path: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, readiness.clone(), metrics.clone(), stop.clone()));
        let mut socket = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("a request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        stop.cancel();
        server.await.expect("no panic").expect("a clean stop");
        answer
    }

    #[tokio::test]
    async fn it_is_alive_before_it_is_ready() {
        let (readiness, metrics) = (Readiness::default(), Metrics::default());
        assert!(ask(&readiness, &metrics, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(&readiness, &metrics, "/readyz").await.starts_with("HTTP/1.1 503"));
        readiness.set(true);
        assert!(ask(&readiness, &metrics, "/readyz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_write_is_counted_under_its_verb_and_kind() {
        let (readiness, metrics) = (Readiness::default(), Metrics::default());
        metrics.writes.get_or_create(&crate::metrics::Write { verb: "apply", kind: "Service" }).inc();
        let answer = ask(&readiness, &metrics, "/metrics").await;
        let line = answer.lines().find(|line| line.starts_with("azora_operator_writes_total{"));
        assert_eq!(line, Some("azora_operator_writes_total{verb=\"apply\",kind=\"Service\"} 1"));
    }
}
