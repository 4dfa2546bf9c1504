//! The Nexus under load, and the events that are sent to it.

use crate::http::Connections;
use anyhow::{Context as _, Result, ensure};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use uuid::Uuid;

/// Wallets that the events are about: enough that subjects differ, few enough that each has a history.
const WALLETS: u64 = 1_000;

/// A running Nexus and the token to use it with.
#[derive(Clone)]
pub(crate) struct Target {
    connections: Arc<Connections>,
    address: SocketAddr,
    api: Api,
    token: String,
    /// The events' `source`. Makes the ids of this run its own, so that nothing counts as a duplicate.
    source: Arc<str>,
}

/// How a server is asked to publish.
#[derive(Clone, Copy)]
pub(crate) enum Api {
    /// As Nexus is: by `CloudEvents`.
    CloudEvents,
    /// As Centrifugo is: each event is broadcast to the channels that its type and its subject name.
    Centrifugo,
}

/// An event to publish. Its members hold nothing that JSON would escape, so that writing it costs next to nothing: the
/// server has the cores.
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) source: Arc<str>,
    pub(crate) r#type: &'static str,
    pub(crate) subject: String,
    /// The payload as JSON.
    pub(crate) data: String,
}

impl Event {
    fn write(&self, into: &mut String) {
        let Self { id, source, r#type, subject, data } = self;
        write!(
            into,
            r#"{{"specversion":"1.0","id":"{id}","source":"{source}","type":"{type}","subject":"{subject}","data":{data}}}"#
        )
        .expect("a string takes any text");
    }
}

impl Target {
    pub(crate) fn new(url: &str, token: String) -> Result<Self> {
        let authority =
            url.trim_end_matches('/').strip_prefix("http://").context("the URL has another scheme than http")?;
        let address = authority.parse().context("the URL names no address and port")?;
        Ok(Self {
            connections: Arc::new(Connections::new(address)),
            address,
            api: Api::CloudEvents,
            token,
            source: format!("/bench/{}", Uuid::new_v4()).into(),
        })
    }

    /// The same, asked in another way.
    pub(crate) fn by(&self, api: Api) -> Self {
        Self { api, ..self.clone() }
    }

    /// The same run, at another Nexus.
    pub(crate) fn at(&self, url: &str) -> Result<Self> {
        Ok(Self { source: Arc::clone(&self.source), ..Self::new(url, self.token.clone())? })
    }

    /// The same, asked by another caller.
    pub(crate) fn as_caller(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Where its WebSocket is.
    pub(crate) fn stream_url(&self) -> String {
        format!("ws://{}/v1/stream", self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says who we are.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The header that says who we are.
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// The event `number` of the measurement `series`: a mining reward, as small as real ones are.
    pub(crate) fn event(&self, series: &str, number: u64) -> Event {
        let wallet = number % WALLETS;
        Event {
            id: format!("{series}-{number}"),
            source: Arc::clone(&self.source),
            r#type: "mining.reward",
            subject: format!("wallet/bench-{wallet}"),
            data: format!(
                r#"{{"wallet_id":"bench-{wallet}","money":{{"amount_minor":125,"currency":"AZR"}},"block_height":{number}}}"#
            ),
        }
    }

    /// Whether an event is of this run and the measurement `series`; then its number.
    pub(crate) fn number(&self, series: &str, source: &str, id: &str) -> Option<u32> {
        let number = id.strip_prefix(series)?.strip_prefix('-')?;
        if *source == *self.source { number.parse().ok() } else { None }
    }

    /// Publishes an event and waits until it is durable.
    pub(crate) async fn publish(&self, event: &Event) -> Result<()> {
        let Api::CloudEvents = self.api else { return self.publish_batch(std::slice::from_ref(event)).await };
        let mut body = String::new();
        event.write(&mut body);
        self.post("/v1/events", "application/cloudevents+json", &body, 201).await
    }

    /// Publishes events in one request and waits until they are durable.
    pub(crate) async fn publish_batch(&self, events: &[Event]) -> Result<()> {
        let mut body = String::from(match self.api {
            Api::CloudEvents => "[",
            Api::Centrifugo => r#"{"commands":["#,
        });
        for (number, event) in events.iter().enumerate() {
            if number > 0 {
                body.push(',');
            }
            match self.api {
                Api::CloudEvents => event.write(&mut body),
                Api::Centrifugo => {
                    let Event { r#type, subject, .. } = event;
                    write!(body, r#"{{"broadcast":{{"channels":["{type}","{subject}"],"data":"#)
                        .expect("a string takes any text");
                    event.write(&mut body);
                    body.push_str("}}");
                }
            }
        }
        match self.api {
            Api::CloudEvents => {
                body.push(']');
                self.post("/v1/events", "application/cloudevents-batch+json", &body, 201).await
            }
            Api::Centrifugo => {
                body.push_str("]}");
                self.post("/api/batch", "application/json", &body, 200).await
            }
        }
    }

    /// Ends every token of the subject.
    pub(crate) async fn revoke(&self, subject: &str) -> Result<()> {
        let body = format!(r#"{{"subject":"{subject}"}}"#);
        self.post("/v1/revocations", "application/json", &body, 201).await
    }

    async fn post(&self, path: &str, content_type: &str, body: &str, expected: u16) -> Result<()> {
        let Self { address, token, .. } = self;
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let answer = self.connections.ask(request.as_bytes()).await.context("send a request")?;
        // Centrifugo tells of a refusal in the body.
        let is_done = answer.status == expected && !answer.body.contains("\"error\"");
        ensure!(is_done, "{path} was answered with {}: {}", answer.status, answer.body);
        Ok(())
    }
}
