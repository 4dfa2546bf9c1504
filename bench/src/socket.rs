//! One WebSocket client: subscribes, then hands over the events in the order of their arrival.

use crate::target::Target;
use anyhow::{Context as _, Result, bail};
use futures::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// A subscribed client.
pub(crate) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What of a push is looked at; the rest is skipped unread.
#[derive(Deserialize)]
struct Push<'a> {
    push: Option<&'a str>,
    #[serde(borrow)]
    event: Option<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    id: &'a str,
    source: &'a str,
}

impl Socket {
    /// Connects and subscribes to what the generator publishes; returns when the server has confirmed it.
    pub(crate) async fn subscribed(target: &Target) -> Result<Self> {
        let mut request = target.stream_url().into_client_request().context("make the upgrade request")?;
        let authorization = target.authorization().parse().context("write the token as a header")?;
        request.headers_mut().insert("authorization", authorization);
        let (mut stream, _) = connect_async(request).await.context("connect a socket")?;
        let subscribe = json!({ "id": 1, "command": "subscribe", "types": ["mining.*"] });
        stream.send(Message::text(subscribe.to_string())).await.context("subscribe")?;
        let mut socket = Self(stream);
        loop {
            let text = socket.frame().await?;
            let answer: serde_json::Value = serde_json::from_str(&text).context("read the answer to subscribe")?;
            if answer["id"] == 1 {
                if answer.get("error").is_some() {
                    bail!("the subscription was refused: {text}");
                }
                return Ok(socket);
            }
        }
    }

    /// The number of the next event of `series`.
    pub(crate) async fn next(&mut self, target: &Target, series: &str) -> Result<u32> {
        loop {
            let text = self.frame().await?;
            let frame: Push = serde_json::from_str(&text).context("read a push")?;
            if let Some(kind @ ("gap" | "drain")) = frame.push {
                bail!("the server announced a {kind} in the middle of a measurement: {text}");
            }
            let number = frame.event.and_then(|event| target.number(series, event.source, event.id));
            if let Some(number) = number {
                return Ok(number);
            }
        }
    }

    async fn frame(&mut self) -> Result<Utf8Bytes> {
        loop {
            match self.0.next().await.context("the server closed a socket")?.context("read a socket")? {
                Message::Text(text) => return Ok(text),
                Message::Close(frame) => bail!("the server closed a socket: {frame:?}"),
                // Pings are answered by the library.
                _ => {}
            }
        }
    }
}
