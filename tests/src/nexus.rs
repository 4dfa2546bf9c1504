//! A client of Nexus over HTTP, as a service developer would write one from its documentation.
//! Must never retry by itself: whether a call may be repeated is for the test to say.
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use crate::event::Position;
use crate::wait::{Look, wait_for};

/// Longer than any honest answer takes on a loaded machine, short enough to leave a dead pod soon.
const ANSWER: Duration = Duration::from_secs(5);
const REACHABLE: Duration = Duration::from_mins(1);

/// A Nexus address with a token for it.
#[derive(Clone)]
pub struct Nexus {
    /// Where it answers.
    pub address: SocketAddr,
    /// The bearer token, good for every call of a test.
    pub token: String,
    http: reqwest::Client,
}

/// The answer to one published event.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Published {
    /// The event's id.
    pub id: String,
    /// Its place in the log.
    pub position: Position,
    /// Whether it was there before.
    pub duplicate: bool,
}

/// A page of the history.
#[derive(Clone, Debug, Deserialize)]
pub struct History {
    /// The events, oldest first.
    pub events: Vec<Value>,
    /// Where the next page starts, when there is one.
    pub next: Option<Position>,
    /// The newest position of the log.
    pub head: Position,
}

/// A user as read, with what the answer says about its freshness.
#[derive(Clone, Debug)]
pub struct UserRead {
    /// The record.
    pub user: Value,
    /// The position up to which it is known to be current.
    pub as_of: Position,
    /// Which cache it came from: `l1`, `l2` or `miss`.
    pub cache: String,
}

impl UserRead {
    /// The version of the record, which every write raises by one.
    pub fn version(&self) -> Option<i64> {
        self.user["version"].as_i64()
    }
}

impl Nexus {
    /// A client for `address`, once it answers as ready.
    pub async fn connect(address: SocketAddr, token: String) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(ANSWER).build().context("build an HTTP client")?;
        let nexus = Self { address, token, http };
        wait_for(&format!("Nexus at {address} to be ready"), REACHABLE, async || {
            let status = nexus.http.get(nexus.url("/readyz")).send().await?.status();
            Ok(Look::when(status == StatusCode::OK, (), || format!("/readyz answers {status}")))
        })
        .await?;
        Ok(nexus)
    }

    /// The same client for another address, such as that of one replica.
    pub async fn at(&self, address: SocketAddr) -> anyhow::Result<Self> {
        Self::connect(address, self.token.clone()).await
    }

    /// Publishes one event. Repeating it with the same id and source is safe.
    pub async fn publish(&self, event: &Value) -> anyhow::Result<Published> {
        let request = self.request(Method::POST, "/v1/events").json(event);
        body(request.send().await.context("publish an event")?).await
    }

    /// One page of the events that `query` selects.
    pub async fn history(&self, query: &[(&str, &str)]) -> anyhow::Result<History> {
        let url = Url::parse_with_params(&self.url("/v1/events"), query).context("build the address of the history")?;
        let request = self.http.get(url).bearer_auth(&self.token);
        body(request.send().await.context("read the history")?).await
    }

    /// All events that `query` selects, page by page.
    pub async fn whole_history(&self, query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let mut events = Vec::new();
        let mut page = self.history(query).await?;
        loop {
            events.append(&mut page.events);
            let Some(next) = page.next else { return Ok(events) };
            let next = next.to_string();
            let query = query.iter().filter(|(name, _)| *name != "after").copied().chain([("after", next.as_str())]);
            page = self.history(&query.collect::<Vec<_>>()).await?;
        }
    }

    /// Registers a user. Returns the record and the position of the write.
    pub async fn create_user(&self, user: &Value) -> anyhow::Result<(Value, Position)> {
        let request = self.request(Method::POST, "/v1/users").json(user);
        written(request.send().await.context("create a user")?).await
    }

    /// Records a login of a user, which raises the record's version. Returns the position of the write.
    pub async fn record_login(&self, user: &str) -> anyhow::Result<Position> {
        let request = self.request(Method::POST, &format!("/v1/users/{user}/logins"));
        Ok(written(request.send().await.context("record a login")?).await?.1)
    }

    /// Reads a user; with `position`, not older than that.
    pub async fn user(&self, user: &str, position: Option<Position>) -> anyhow::Result<UserRead> {
        let mut request = self.request(Method::GET, &format!("/v1/users/{user}"));
        if let Some(position) = position {
            request = request.header("Nexus-Min-Position", position.to_string());
        }
        let response = request.send().await.context("read a user")?;
        let as_of = header(&response, "Nexus-As-Of").and_then(|token| token.parse());
        let cache = header(&response, "Nexus-Cache");
        let user = body(response).await?;
        Ok(UserRead { user, as_of: as_of?, cache: cache? })
    }

    /// Reads the profile document of a user, which follows the log into Mongo.
    pub async fn profile(&self, user: &str) -> anyhow::Result<Value> {
        let request = self.request(Method::GET, &format!("/v1/users/{user}/profile"));
        body(request.send().await.context("read a profile")?).await
    }

    /// Reads any path.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        body(self.request(Method::GET, path).send().await.with_context(|| format!("read {path}"))?).await
    }

    /// The status of a call without a token.
    pub async fn status_without_token(&self, path: &str) -> anyhow::Result<StatusCode> {
        Ok(self.http.get(self.url(path)).send().await.with_context(|| format!("read {path}"))?.status())
    }

    /// The bound on this caller, as an answer tells it.
    pub async fn rate_limit_policy(&self) -> anyhow::Result<String> {
        let request = self.request(Method::GET, "/v1/events?limit=1");
        header(&request.send().await.context("read the history")?, "RateLimit-Policy")
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path)).bearer_auth(&self.token)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn written(response: Response) -> anyhow::Result<(Value, Position)> {
    let position = header(&response, "Nexus-Position").and_then(|token| token.parse());
    let body = body(response).await?;
    Ok((body, position?))
}

fn header(response: &Response, name: &str) -> anyhow::Result<String> {
    let value = response.headers().get(name).with_context(|| format!("the answer has no header {name}"))?;
    Ok(value.to_str().with_context(|| format!("header {name} is not text"))?.to_owned())
}

/// The body of a good answer; the text of another becomes the error, since it is a problem document that says why.
async fn body<T: serde::de::DeserializeOwned>(response: Response) -> anyhow::Result<T> {
    let status = response.status();
    let text = response.text().await.context("read an answer of Nexus")?;
    if !status.is_success() {
        bail!("Nexus answered {status}: {text}");
    }
    serde_json::from_str(&text).with_context(|| format!("understand the answer {text}"))
}
