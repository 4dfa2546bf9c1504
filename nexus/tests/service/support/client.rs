//! A caller of the API.

use std::net::SocketAddr;

use nexus::auth::{Claims, sign};
use nexus::config::Secret;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// The shared key of every instance under test.
pub(crate) const HS256_KEY: &str = "a key for tests, of more than 32 bytes";

/// A caller with a token.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    pub(crate) token: Option<String>,
}

/// What was answered; the body is null when it is not JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Status and stable code of a problem document.
    pub(crate) fn problem(&self) -> (u16, &str) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text);
        assert_eq!(self.body["status"], self.status);
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }

    /// Paths of the violations.
    pub(crate) fn violations(&self) -> Vec<&str> {
        let violations = self.body["violations"].as_array().map(Vec::as_slice).unwrap_or_default();
        violations.iter().filter_map(|violation| violation["path"].as_str()).collect()
    }
}

/// A token that is valid for an hour.
pub(crate) fn token(scope: &str) -> String {
    token_of(HS256_KEY, "tester", scope, 3_600)
}

/// A token by key, subject, scope and validity in seconds.
pub(crate) fn token_of(key: &str, subject: &str, scope: &str, ttl_seconds: i64) -> String {
    let exp = u64::try_from(jiff::Timestamp::now().as_second() + ttl_seconds).expect("the end lies after 1970");
    let claims = Claims { sub: subject.to_owned(), exp, scope: scope.to_owned(), ..Claims::default() };
    sign(&Secret::from(key), &claims).expect("the key is long enough")
}

impl Client {
    pub(crate) fn new(address: SocketAddr, scope: &str) -> Self {
        Self { http: reqwest::Client::new(), base: format!("http://{address}"), token: Some(token(scope)) }
    }

    /// The same caller with another token, or without one.
    pub(crate) fn with_token(&self, token: Option<String>) -> Self {
        Self { token, ..self.clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Publishes and expects it to be accepted; answers the position.
    pub(crate) async fn publish(&self, event: &Value) -> String {
        let answer = self.post("/v1/events", event).await;
        assert!(answer.status == 201 || answer.status == 200, "{}", answer.text);
        answer.header("nexus-position").expect("a write has a position").to_owned()
    }

    /// Sequence numbers on a page of history.
    pub(crate) async fn history(&self, query: &str) -> Answer {
        let answer = self.get(&format!("/v1/events?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("the instance answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("the answer arrives whole");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, body, text }
    }
}
