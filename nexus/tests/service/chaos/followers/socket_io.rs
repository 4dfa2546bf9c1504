//! A client of Socket.IO, over a WebSocket or by polling. Polls go to any pod, whichever holds the session.

use std::collections::VecDeque;

use anyhow::{Context as _, Result, bail};
use futures::{SinkExt as _, StreamExt as _};
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{Field, Follower, PATIENCE, SILENCE, web_socket};

/// Stands between two packets of a poll.
const SEPARATOR: char = '\x1e';

/// What a client hands back to be known again.
#[derive(Default)]
pub(super) struct Memory {
    pid: Option<String>,
    offset: Option<String>,
}

/// Where packets come from and go to.
enum Transport<'a> {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Polling { field: &'a Field, query: String, packets: VecDeque<String> },
}

pub(super) async fn visit(follower: &Follower, field: &Field, rng: &mut StdRng, memory: &mut Memory) -> Result<()> {
    let stream = web_socket::open(field.any_pod(rng), "/socket.io/?EIO=4&transport=websocket", None, None).await?;
    session(follower, Transport::WebSocket(Box::new(stream)), rng, memory).await
}

pub(super) async fn visit_by_polling(
    follower: &Follower,
    field: &Field,
    rng: &mut StdRng,
    memory: &mut Memory,
) -> Result<()> {
    let query = "EIO=4&transport=polling".to_owned();
    session(follower, Transport::Polling { field, query, packets: VecDeque::new() }, rng, memory).await
}

async fn session(
    follower: &Follower,
    mut transport: Transport<'_>,
    rng: &mut StdRng,
    memory: &mut Memory,
) -> Result<()> {
    let opened = transport.next(rng).await?;
    let opened: Value = serde_json::from_str(opened.strip_prefix('0').context("it opens")?).context("JSON")?;
    transport.is_called(opened["sid"].as_str().context("a session has an id")?);
    let mut auth = json!({"token": follower.token()});
    for (name, value) in [("pid", &memory.pid), ("offset", &memory.offset)] {
        if let Some(value) = value {
            auth[name] = json!(value);
        }
    }
    transport.send(&format!("40{auth}"), rng).await?;
    let mut left = Follower::stay(rng);
    while left > 0 {
        let packet = transport.next(rng).await?;
        if packet == "2" {
            transport.send("3", rng).await?;
        } else if let Some(connected) = packet.strip_prefix("40") {
            let connected: Value = serde_json::from_str(connected).context("JSON")?;
            let pid = connected["pid"].as_str().context("a client has a pid")?;
            if memory.pid.as_deref() != Some(pid) {
                *memory = Memory { pid: Some(pid.to_owned()), offset: None };
                let subscribe = json!(["subscribe", {"types": follower.wants.types, "after": follower.position()}]);
                transport.send(&format!("421{subscribe}"), rng).await?;
            }
        } else if let Some(event) = packet.strip_prefix("42") {
            let event: Value = serde_json::from_str(event).context("JSON")?;
            match event[0].as_str() {
                Some("gap") => follower.must_not(format!("was told of a gap: {event}")),
                Some("error") => bail!("refused: {event}"),
                Some("drain") => return Ok(()),
                _ => {
                    follower.apply(&event[1])?;
                    memory.offset = event[2].as_str().map(str::to_owned);
                    left -= 1;
                }
            }
        } else if let Some(answer) = packet.strip_prefix("431") {
            if answer.contains("\"error\"") {
                // It has no subscription: the next connection is not the same client.
                memory.pid = None;
                bail!("refused: {answer}");
            }
        } else if packet != "6" {
            bail!("ended: {packet}");
        }
    }
    Ok(())
}

impl Transport<'_> {
    fn is_called(&mut self, sid: &str) {
        if let Self::Polling { query, .. } = self {
            *query = format!("{query}&sid={sid}");
        }
    }

    async fn send(&mut self, packet: &str, rng: &mut StdRng) -> Result<()> {
        match self {
            Self::WebSocket(stream) => stream.send(Message::text(packet)).await.context("send"),
            Self::Polling { field, query, .. } => {
                let url = format!("http://{}/socket.io/?{query}", field.any_pod(rng));
                let request = field.http.post(url).header("content-type", "text/plain;charset=UTF-8");
                let answer = request.body(packet.to_owned()).timeout(PATIENCE).send().await.context("send")?;
                if answer.status() != 200 {
                    bail!("a packet was refused with {}", answer.status());
                }
                Ok(())
            }
        }
    }

    async fn next(&mut self, rng: &mut StdRng) -> Result<String> {
        match self {
            Self::WebSocket(stream) => loop {
                let message = timeout(SILENCE, stream.next()).await.context("the pod says nothing")?;
                match message.context("the connection is closed")?.context("the connection is broken")? {
                    Message::Text(text) => return Ok(text.to_string()),
                    Message::Close(frame) => bail!("closed: {frame:?}"),
                    _ => {}
                }
            },
            Self::Polling { field, query, packets } => loop {
                if let Some(packet) = packets.pop_front() {
                    return Ok(packet);
                }
                let url = format!("http://{}/socket.io/?{query}", field.any_pod(rng));
                // A poll that is not answered may have taken packets with it: the session ends, and is recovered.
                let answer = field.http.get(url).timeout(PATIENCE).send().await.context("poll")?;
                let status = answer.status();
                let text = answer.text().await.context("read")?;
                if status != 200 {
                    bail!("a poll was refused with {status}: {text}");
                }
                packets.extend(text.split(SEPARATOR).map(str::to_owned));
            },
        }
    }
}
