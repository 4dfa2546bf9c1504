//! A client that follows one subject and keeps its place, over any number of connections.

use crate::realtime::client::{Client, number};
use crate::target::Target;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::io;
use std::net::IpAddr;

/// What one client has got, in the order of its subject's events, which are numbered from 0.
pub(super) struct Follower {
    subject: String,
    /// What stands before the number in an event of its series.
    begin: Vec<u8>,
    /// The place of the last event, or of the subscription.
    position: Option<String>,
    /// The number that is to come.
    pub(super) next: u32,
    /// Events that came once more, or late.
    pub(super) twice: u64,
    /// Events that did not come before later ones.
    pub(super) lost: u64,
}

impl Follower {
    pub(super) fn new(subject: &str, series: &str) -> Self {
        let begin = format!("\"id\":\"{series}-").into_bytes();
        Self { subject: subject.to_owned(), begin, position: None, next: 0, twice: 0, lost: 0 }
    }

    /// Opens a connection and asks for what comes after the last place.
    pub(super) async fn connect(&self, target: &Target, source: IpAddr, receive_bytes: Option<u32>) -> Result<Client> {
        let mut client = Client::connect(target, source, receive_bytes).await?;
        let mut subscribe =
            json!({"id": 1, "command": "subscribe", "types": ["mining.reward"], "subjects": [self.subject]});
        if let Some(position) = &self.position {
            subscribe["after"] = json!(position);
        }
        client.send(0x81, subscribe.to_string().as_bytes()).await.context("subscribe")?;
        Ok(client)
    }

    /// Reads until the subscription stands.
    pub(super) async fn begin(&mut self, client: &mut Client) -> Result<()> {
        while self.position.is_none() {
            self.read(client).await.context("read the answer to subscribe")?;
        }
        ensure!(self.next == 0 && self.lost == 0, "an event came before any was published");
        Ok(())
    }

    /// Reads until it has `goal` events, or the connection ends.
    pub(super) async fn read_to(&mut self, goal: u32, client: &mut Client) -> io::Result<()> {
        while self.next < goal {
            self.read(client).await?;
        }
        Ok(())
    }

    /// Reads what there is.
    async fn read(&mut self, client: &mut Client) -> io::Result<()> {
        for (first, payload) in client.read().await? {
            match first {
                0x89 => client.send(0x8a, &payload).await?,
                0x88 => return Err(io::ErrorKind::ConnectionReset.into()),
                _ => match number(&payload, &self.begin) {
                    Some(number) => {
                        self.count(number);
                        self.position = position(&payload);
                    }
                    None if self.position.is_none() => self.position = position(&payload),
                    None => {}
                },
            }
        }
        Ok(())
    }

    fn count(&mut self, number: u32) {
        if number < self.next {
            self.twice += 1;
        } else {
            self.lost += u64::from(number - self.next);
            self.next = number + 1;
        }
    }
}

/// The position that a frame names last.
fn position(payload: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(payload);
    let (_, rest) = text.rsplit_once("\"position\":\"")?;
    Some(rest.split_once('"')?.0.to_owned())
}
