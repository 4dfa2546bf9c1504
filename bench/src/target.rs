//! The Nexus under load, and the events that are sent to it.

use anyhow::{Context as _, Result, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use std::net::SocketAddr;
use uuid::Uuid;

/// Wallets that the events are about: enough that subjects differ, few enough that each has a history.
const WALLETS: u64 = 1_000;

/// A running Nexus and the token to use it with.
#[derive(Clone)]
pub(crate) struct Target {
    client: Client,
    url: String,
    token: String,
    /// Makes the event ids of this run its own, so that nothing counts as a duplicate.
    run: Uuid,
}

impl Target {
    pub(crate) fn new(url: &str, token: String) -> Result<Self> {
        let client = Client::builder().build().context("make an HTTP client")?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), token, run: Uuid::new_v4() })
    }

    /// The same run, at another Nexus.
    pub(crate) fn at(&self, url: &str) -> Result<Self> {
        Ok(Self { run: self.run, ..Self::new(url, self.token.clone())? })
    }

    /// Where its WebSocket is.
    pub(crate) fn stream_url(&self) -> String {
        format!("{}/v1/stream", self.url.replacen("http", "ws", 1))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        let authority = self.url.split_once("://").context("the URL has no scheme")?.1;
        authority.parse().context("the URL names no address and port")
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
    pub(crate) fn event(&self, series: &str, number: u64) -> Value {
        let wallet = format!("bench-{}", number % WALLETS);
        json!({
            "specversion": "1.0",
            "id": format!("{series}-{number}"),
            "source": format!("/bench/{}", self.run),
            "type": "mining.reward",
            "subject": format!("wallet/{wallet}"),
            "data": {
                "wallet_id": wallet,
                "money": { "amount_minor": 125, "currency": "AZR" },
                "block_height": number,
            },
        })
    }

    /// Whether an event is of this run and the measurement `series`; then its number.
    pub(crate) fn number(&self, series: &str, source: &str, id: &str) -> Option<u32> {
        let ours = source.strip_prefix("/bench/")? == self.run.to_string();
        let number = id.strip_prefix(series)?.strip_prefix('-')?;
        if ours { number.parse().ok() } else { None }
    }

    /// Publishes one event, or an array of them, and waits until they are durable.
    pub(crate) async fn publish(&self, body: &Value) -> Result<()> {
        let content_type =
            if body.is_array() { "application/cloudevents-batch+json" } else { "application/cloudevents+json" };
        let request = self.client.post(format!("{}/v1/events", self.url)).bearer_auth(&self.token);
        let request = request.header("content-type", content_type).body(body.to_string());
        let response = request.send().await.context("send events")?;
        let status = response.status();
        // Read to its end, or the connection is not used again.
        let answer = response.text().await.context("read the answer to a publish")?;
        ensure!(status.as_u16() == 201, "a publish was answered with {status}: {answer}");
        Ok(())
    }
}
