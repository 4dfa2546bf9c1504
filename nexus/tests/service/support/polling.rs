//! A client of Engine.IO that polls, packet by packet.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{Answer, Client};

/// Stands between two packets.
const SEPARATOR: char = '\x1e';

/// A session that is polled.
pub(crate) struct Polling {
    client: Client,
    pub(crate) handshake: Value,
    packets: VecDeque<String>,
    commands: u64,
}

impl Polling {
    /// Opens a session.
    pub(crate) async fn open(client: &Client) -> Self {
        let client = client.with_token(None);
        let answer = client.get("/socket.io/?EIO=4&transport=polling&t=1").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=UTF-8")));
        let handshake = serde_json::from_str(answer.text.strip_prefix('0').expect("it opens")).expect("JSON");
        Self { client, handshake, packets: VecDeque::new(), commands: 0 }
    }

    pub(crate) fn sid(&self) -> &str {
        self.handshake["sid"].as_str().expect("a session has an id")
    }

    pub(crate) fn path(&self) -> String {
        format!("/socket.io/?EIO=4&transport=polling&sid={}", self.sid())
    }

    /// The same session, asked for at another instance.
    pub(crate) fn at(&self, client: &Client) -> Self {
        let (client, handshake) = (client.with_token(None), self.handshake.clone());
        Self { client, handshake, packets: VecDeque::new(), commands: 0 }
    }

    /// Sends a poll and returns its answer.
    pub(crate) async fn poll(&self) -> Answer {
        self.client.get(&self.path()).await
    }

    /// A poll that goes on by itself.
    pub(crate) fn poll_aside(&self) -> tokio::task::JoinHandle<Answer> {
        let (client, path) = (self.client.clone(), self.path());
        tokio::spawn(async move { client.get(&path).await })
    }

    /// Sends packets and returns the answer.
    pub(crate) async fn push(&self, body: &str) -> Answer {
        let request = self.client.request(reqwest::Method::POST, &self.path());
        self.client.send(request.header("content-type", "text/plain;charset=UTF-8").body(body.to_owned())).await
    }

    /// Connects to the main namespace, and expects to be let in.
    pub(crate) async fn connect(&mut self, auth: Value) -> Value {
        assert_eq!(self.push(&format!("40{auth}")).await.text, "ok");
        self.json("40").await
    }

    /// Sends a command and waits for its answer, past events.
    pub(crate) async fn command(&mut self, name: &str, argument: Value) -> Value {
        self.commands += 1;
        let pushed = self.push(&format!("42{}{}", self.commands, json!([name, argument]))).await;
        assert_eq!(pushed.text, "ok");
        let head = format!("43{}", self.commands);
        loop {
            let packet = self.next().await;
            if let Some(answer) = packet.strip_prefix(&head) {
                return serde_json::from_str::<Value>(answer).expect("JSON")[0].take();
            }
        }
    }

    /// The next event: its name, its argument and its offset.
    pub(crate) async fn event(&mut self) -> Value {
        self.json("42").await
    }

    async fn json(&mut self, head: &str) -> Value {
        // A ping may come at any time.
        let packet = loop {
            let packet = self.next().await;
            if packet != "2" {
                break packet;
            }
        };
        let json = packet.strip_prefix(head).unwrap_or_else(|| panic!("not a {head}: {packet}"));
        serde_json::from_str(json).expect("JSON")
    }

    /// The next packet that says something.
    pub(crate) async fn next(&mut self) -> String {
        loop {
            match self.packets.pop_front() {
                Some(packet) if packet == "6" => {}
                Some(packet) => return packet,
                None => {
                    let answer = self.poll().await;
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    self.packets.extend(answer.text.split(SEPARATOR).map(str::to_owned));
                }
            }
        }
    }
}
