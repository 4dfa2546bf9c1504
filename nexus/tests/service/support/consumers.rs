//! A durable consumer of one test.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use super::DEADLINE;
use super::client::{Answer, Client};

/// A consumer, as a caller at one pod knows it.
pub(crate) struct Consumer {
    client: Client,
    name: &'static str,
}

impl Consumer {
    /// A new one with these settings.
    pub(crate) async fn new(client: &Client, name: &'static str, settings: Value) -> Self {
        let answer = put(client, name, &settings).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        Self { client: client.clone(), name }
    }

    /// The same through another caller, such as one at another pod.
    pub(crate) fn through(&self, client: &Client) -> Self {
        Self { client: client.clone(), name: self.name }
    }

    pub(crate) async fn post(&self, action: &str, body: Value) -> Answer {
        self.client.post(&format!("/v1/consumers/{}/{action}", self.name), &body).await
    }

    pub(crate) async fn get(&self, rest: &str) -> Answer {
        self.client.get(&format!("/v1/consumers/{}{rest}", self.name)).await
    }

    pub(crate) async fn delete(&self, rest: &str) -> Answer {
        let request = self.client.request(Method::DELETE, &format!("/v1/consumers/{}{rest}", self.name));
        self.client.send(request).await
    }

    /// What is due now; at most `count`.
    pub(crate) async fn lease(&self, count: usize) -> Vec<Value> {
        self.lease_with(json!({"count": count})).await
    }

    pub(crate) async fn lease_with(&self, asked: Value) -> Vec<Value> {
        // The database of a loaded machine may not answer in time: one is told to ask again, as every client is.
        let begun = Instant::now();
        let mut answer = self.post("lease", asked.clone()).await;
        while answer.status == 503 && begun.elapsed() < DEADLINE {
            answer = self.post("lease", asked.clone()).await;
        }
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body["deliveries"].as_array().expect("deliveries").clone()
    }

    /// Acknowledges; what was answered.
    pub(crate) async fn acknowledge(&self, deliveries: &[Value]) -> Value {
        self.settle("ack", json!({"leases": leases(deliveries)})).await
    }

    /// Gives back; what was answered.
    pub(crate) async fn give_back(&self, deliveries: &[Value]) -> Value {
        self.settle("nack", json!({"leases": leases(deliveries), "reason": "a test"})).await
    }

    pub(crate) async fn settle(&self, action: &str, body: Value) -> Value {
        let answer = self.post(action, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body
    }

    /// How many wait and how many were given up.
    pub(crate) async fn counts(&self) -> (i64, i64) {
        let body = self.get("").await.body;
        (body["pending"].as_i64().expect("a number"), body["dead_letters"].as_i64().expect("a number"))
    }
}

pub(crate) async fn put(client: &Client, name: &str, settings: &Value) -> Answer {
    client.send(client.request(Method::PUT, &format!("/v1/consumers/{name}")).json(settings)).await
}

pub(crate) fn leases(deliveries: &[Value]) -> Vec<&Value> {
    deliveries.iter().map(|delivery| &delivery["lease"]).collect()
}

/// Ids of the events.
pub(crate) fn ids(deliveries: &[Value]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery["event"]["id"].as_str().unwrap_or("a gap")).collect()
}
