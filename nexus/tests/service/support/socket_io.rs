//! A client of Socket.IO over WebSocket that shows the packets.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// No answer of a correct program comes near it, even on a loaded machine.
const DEADLINE: Duration = Duration::from_mins(1);

pub(crate) struct Client {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) handshake: Value,
    commands: u64,
}

/// What came next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Packet(String),
    Closed(u16),
}

impl Client {
    /// Opens a connection and reads the handshake.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let (stream, _) = connect_async(url).await.expect("the instance answers");
        let mut client = Self { stream, handshake: Value::Null, commands: 0 };
        client.handshake = client.json("0").await;
        client
    }

    /// Opens a WebSocket for a session that is polled.
    pub(crate) async fn upgrade(address: SocketAddr, sid: &str) -> Self {
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket&sid={sid}");
        let (stream, _) = connect_async(url).await.expect("the instance answers");
        Self { stream, handshake: Value::Null, commands: 0 }
    }

    /// Connects to the main namespace, and expects to be let in.
    pub(crate) async fn connect(&mut self, auth: Value) -> Value {
        self.send(&format!("40{auth}")).await;
        self.json("40").await
    }

    /// Sends a command and waits for its answer, past events.
    pub(crate) async fn command(&mut self, name: &str, argument: Value) -> Value {
        self.commands += 1;
        self.send(&format!("42{}{}", self.commands, json!([name, argument]))).await;
        let head = format!("43{}", self.commands);
        loop {
            match self.next().await {
                Next::Packet(packet) if packet.starts_with(&head) => {
                    let mut answer: Value = serde_json::from_str(&packet[head.len()..]).expect("JSON");
                    return answer[0].take();
                }
                Next::Packet(_) => {}
                Next::Closed(code) => panic!("closed with {code} instead of an answer"),
            }
        }
    }

    /// The next event: its name, its argument and its offset.
    pub(crate) async fn event(&mut self) -> Value {
        self.json("42").await
    }

    pub(crate) async fn send(&mut self, packet: &str) {
        self.stream.send(Message::text(packet)).await.expect("the connection is open");
    }

    /// The next packet, which begins like this, as JSON.
    async fn json(&mut self, head: &str) -> Value {
        match self.after_pings().await {
            Next::Packet(packet) => {
                let json = packet.strip_prefix(head).unwrap_or_else(|| panic!("not a {head}: {packet}"));
                serde_json::from_str(json).expect("JSON")
            }
            Next::Closed(code) => panic!("closed with {code} instead of a {head}"),
        }
    }

    /// A ping may come at any time.
    async fn after_pings(&mut self) -> Next {
        loop {
            let next = self.next().await;
            if next != Next::Packet("2".to_owned()) {
                return next;
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Next {
        loop {
            match timeout(DEADLINE, self.stream.next()).await.expect("a frame or the end comes") {
                Some(Ok(Message::Text(text))) => return Next::Packet(text.to_string()),
                Some(Ok(Message::Close(frame))) => return Next::Closed(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Next::Closed(1006),
            }
        }
    }

    /// Reads to the end and returns the code of the close frame; 1006 when there was none.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            if let Next::Closed(code) = self.next().await {
                return code;
            }
        }
    }
}
