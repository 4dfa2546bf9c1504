//! A client of the WebSocket.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::client::token;

/// No answer of a correct program comes near it, even on a loaded machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// How a connection is opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening {
    pub(crate) token: Option<String>,
    pub(crate) origin: Option<&'static str>,
    /// The subprotocols to choose from; one of them must be answered.
    pub(crate) subprotocols: Option<&'static str>,
    pub(crate) query: String,
    /// Makes the client's side of the network hold little, so that a slow client is felt.
    pub(crate) receive_bytes: Option<u32>,
}

/// An open connection.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    commands: i64,
    /// Pushes that came while an answer was waited for.
    pushes: VecDeque<Value>,
}

/// What came next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Frame(Value),
    Closed(u16),
}

impl Opening {
    /// Opens a connection; or the status of the refusal.
    pub(crate) async fn open(&self, address: SocketAddr) -> Result<Socket, u16> {
        let mut request =
            format!("ws://{address}/v1/stream?{}", self.query).into_client_request().expect("the URL is valid");
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().expect("a token is ASCII");
            request.headers_mut().insert("authorization", value);
        }
        if let Some(origin) = self.origin {
            request.headers_mut().insert("origin", origin.parse().expect("an origin is ASCII"));
        }
        if let Some(subprotocols) = self.subprotocols {
            let value = subprotocols.parse().expect("subprotocols are ASCII");
            request.headers_mut().insert("sec-websocket-protocol", value);
        }
        let socket = TcpSocket::new_v4().expect("a socket can be made");
        if let Some(bytes) = self.receive_bytes {
            socket.set_recv_buffer_size(bytes).expect("the size can be set");
        }
        let stream = socket.connect(address).await.expect("the instance listens");
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((stream, _)) => Ok(Socket { stream, commands: 0, pushes: VecDeque::new() }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("the connection cannot be opened: {error}"),
        }
    }
}

impl Socket {
    /// A connection of a caller who may do everything.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let opening = Opening { token: Some(token("admin")), ..Opening::default() };
        opening.open(address).await.expect("the token is good")
    }

    /// Sends a command and returns its answer.
    pub(crate) async fn command(&mut self, mut command: Value) -> Value {
        self.commands += 1;
        command["id"] = json!(self.commands);
        self.send(Message::text(command.to_string())).await;
        loop {
            match self.receive().await {
                Next::Frame(frame) if frame["id"] == self.commands => return frame,
                Next::Frame(frame) => self.pushes.push_back(frame),
                Next::Closed(code) => panic!("closed with {code} instead of an answer"),
            }
        }
    }

    /// Subscribes and returns the position from which the subscription goes on.
    pub(crate) async fn subscribe(&mut self, types: &[&str], after: Option<&str>) -> String {
        let mut command = json!({ "command": "subscribe", "types": types });
        if let Some(after) = after {
            command["after"] = json!(after);
        }
        let answer = self.command(command).await;
        answer["result"]["position"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.stream.send(message).await.expect("the connection is open");
    }

    /// The next frame that is no answer.
    pub(crate) async fn next(&mut self) -> Next {
        match self.pushes.pop_front() {
            Some(frame) => Next::Frame(frame),
            None => self.receive().await,
        }
    }

    /// The next push, which is no heartbeat.
    pub(crate) async fn push(&mut self) -> Value {
        // Heartbeats alone are no push.
        let push = async {
            loop {
                match self.next().await {
                    Next::Frame(frame) if frame["push"] == "heartbeat" => {}
                    Next::Frame(frame) => return frame,
                    Next::Closed(code) => panic!("closed with {code} instead of a push"),
                }
            }
        };
        tokio::time::timeout(DEADLINE, push).await.expect("a push comes")
    }

    /// The next events, of which there must be this many without anything between them.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            let mut push = self.push().await;
            assert_eq!(push["push"], "event", "{push}");
            events.push(push["event"].take());
        }
        events
    }

    /// Reads to the end and returns the code of the close frame; 1006 when there was none.
    pub(crate) async fn closed(&mut self) -> u16 {
        let closed = async {
            loop {
                if let Next::Closed(code) = self.receive().await {
                    return code;
                }
            }
        };
        tokio::time::timeout(DEADLINE, closed).await.expect("it is closed")
    }

    async fn receive(&mut self) -> Next {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.stream.next()).await.expect("a frame or the end comes");
            match message {
                Some(Ok(Message::Text(text))) => {
                    return Next::Frame(serde_json::from_str(&text).expect("a frame is JSON"));
                }
                Some(Ok(Message::Close(frame))) => return Next::Closed(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Next::Closed(1006),
            }
        }
    }
}

/// Ids of events.
pub(crate) fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["id"].as_str()).collect()
}

/// The position of the last event.
pub(crate) fn last_position(events: &[Value]) -> String {
    let last = events.last().expect("there are events");
    last["position"].as_str().expect("an event has a position").to_owned()
}
