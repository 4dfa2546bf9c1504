//! A client of `/v1/stream`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::{SinkExt as _, StreamExt as _};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::{Field, Follower, PATIENCE, SILENCE, Way};

/// The network holds no more for a client that stops to read, in bytes.
const RECEIVE_BYTES: u32 = 4_096;
/// How often it stops, by event.
const STOPS: f64 = 0.01;
/// For how long at most, in milliseconds.
const STOP_MS: u64 = 3_000;

/// Opens a WebSocket of a pod.
pub(super) async fn open(
    pod: SocketAddr,
    path: &str,
    token: Option<&str>,
    receive_bytes: Option<u32>,
) -> Result<WebSocketStream<TcpStream>> {
    let mut request = format!("ws://{pod}{path}").into_client_request().context("make a request")?;
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().context("make a header")?;
        request.headers_mut().insert("authorization", value);
    }
    let socket = TcpSocket::new_v4().context("make a socket")?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes).context("make its buffer small")?;
    }
    let opened = timeout(PATIENCE, async {
        let stream = socket.connect(pod).await.context("connect")?;
        tokio_tungstenite::client_async(request, stream).await.context("upgrade")
    });
    Ok(opened.await.context("the pod does not answer")??.0)
}

pub(super) async fn visit(follower: &Follower, field: &Field, rng: &mut StdRng) -> Result<()> {
    let slow = matches!(follower.way, Way::SlowWebSocket);
    let receive_bytes = slow.then_some(RECEIVE_BYTES);
    let mut stream = open(field.any_pod(rng), "/v1/stream", Some(&follower.token()), receive_bytes).await?;
    let mut subscribe =
        json!({"id": 1, "command": "subscribe", "types": follower.wants.types, "after": follower.position()});
    if let Some(subject) = follower.wants.subject {
        subscribe["subjects"] = json!([subject]);
    }
    stream.send(Message::text(subscribe.to_string())).await.context("subscribe")?;
    let mut left = Follower::stay(rng);
    while left > 0 {
        let message = timeout(SILENCE, stream.next()).await.context("the pod says nothing")?;
        let text = match message.context("the connection is closed")?.context("the connection is broken")? {
            Message::Text(text) => text,
            Message::Close(frame) => bail!("closed: {frame:?}"),
            _ => continue,
        };
        let frame: Value = serde_json::from_str(&text).context("a frame is JSON")?;
        match frame["push"].as_str() {
            Some("event") => {
                follower.apply(&frame["event"])?;
                left -= 1;
                if slow && rng.random_bool(STOPS) {
                    sleep(Duration::from_millis(rng.random_range(0..STOP_MS))).await;
                }
            }
            Some("gap") => follower.must_not(format!("was told of a gap: {frame}")),
            Some("drain") => return Ok(()),
            None if frame.get("error").is_some() => bail!("refused: {frame}"),
            _ => {}
        }
    }
    Ok(())
}
