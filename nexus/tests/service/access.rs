//! Who may do what: tokens, scopes, published keys, origins; and that every refusal is a problem document.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Json;
use axum::routing::get;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use nexus::config::Config;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::client::{HS256_KEY, token_of};
use crate::support::socket::Opening;
use crate::support::{Answer, Client, World, event, token};

async fn read(client: &Client, token: Option<String>) -> Answer {
    client.with_token(token).get("/v1/events").await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_asks_for_its_scope() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    for (scope, may_read, may_write) in [
        ("events:read", 200, 403),
        ("events:write", 403, 201),
        ("events:read events:write", 200, 201),
        ("users:read users:write", 403, 403),
        ("admin", 200, 201),
        ("", 403, 403),
        ("events:readonly", 403, 403),
    ] {
        let client = client.with_token(Some(token(scope)));
        let written = client.post("/v1/events", &event(&format!("by {scope}"), "a")).await;
        assert_eq!(
            (read(&client, client.token.clone()).await.status, written.status),
            (may_read, may_write),
            "{scope}"
        );
    }
    let service = client.with_token(Some(token("events:write")));
    let mut alert = event("alert", "a");
    alert["type"] = json!("system.alert");
    alert["data"] = json!({"severity": "info", "code": "test", "message": "a test"});
    assert_eq!(service.post("/v1/events", &alert).await.problem(), (403, "scope_missing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_prove_nothing_are_refused() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let good = token("admin");
    let body = good.split('.').nth(1).expect("a token has three parts");
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.");
    let other_algorithm = {
        let claims = json!({"sub": "tester", "exp": 4_102_444_800_i64, "scope": "admin"});
        encode(&Header::new(Algorithm::HS512), &claims, &EncodingKey::from_secret(HS256_KEY.as_bytes())).expect("sign")
    };
    let without = |claims: Value| {
        encode(&Header::default(), &claims, &EncodingKey::from_secret(HS256_KEY.as_bytes())).expect("sign")
    };
    let mut forged = good.clone();
    forged.replace_range(good.rfind('.').expect("a token has three parts") + 1.., &"A".repeat(43));
    for (token, wanted) in [
        (None, "token_missing"),
        (Some(String::new()), "token_missing"),
        (Some("not a token".to_owned()), "token_invalid"),
        (Some(unsigned), "token_invalid"),
        (Some(other_algorithm), "token_invalid"),
        (Some(forged), "token_invalid"),
        (Some(token_of("another key, also of more than 32 bytes", "tester", "admin", 60)), "token_invalid"),
        (Some(token_of(HS256_KEY, "tester", "admin", -60)), "token_expired"),
        (Some(token_of(HS256_KEY, "", "admin", 60)), "token_invalid"),
        (Some(without(json!({"sub": "tester", "scope": "admin"}))), "token_invalid"),
        (Some(without(json!({"exp": 4_102_444_800_i64, "scope": "admin"}))), "token_invalid"),
        (
            Some(without(json!({"sub": "t", "exp": 4_102_444_800_i64, "nbf": 4_102_444_700_i64, "scope": "admin"}))),
            "token_invalid",
        ),
    ] {
        let answer = read(&client, token.clone()).await;
        assert_eq!(answer.problem(), (401, wanted), "{token:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_and_audience_are_checked_when_set() {
    let world = World::new().await;
    let client = world
        .nexus_with(|config| {
            config.auth.issuer = Some("issuer".to_owned());
            config.auth.audience = Some("nexus".to_owned());
        })
        .await
        .client;
    let signed = |issuer: Value, audience: Value| {
        let claims = json!({"sub": "t", "exp": 4_102_444_800_i64, "scope": "admin", "iss": issuer, "aud": audience});
        Some(encode(&Header::default(), &claims, &EncodingKey::from_secret(HS256_KEY.as_bytes())).expect("sign"))
    };
    assert_eq!(read(&client, signed(json!("issuer"), json!("nexus"))).await.status, 200);
    assert_eq!(read(&client, signed(json!("issuer"), json!(["other", "nexus"]))).await.status, 200);
    assert_eq!(read(&client, signed(json!("someone"), json!("nexus"))).await.status, 401);
    assert_eq!(read(&client, signed(json!("issuer"), json!("other"))).await.status, 401);
    assert_eq!(read(&client, client.token.clone()).await.status, 401, "both are required");
}

/// An issuer that publishes keys, and counts how often it is asked.
struct Issuer {
    keys: watch::Sender<Vec<Jwk>>,
    asked: Arc<AtomicUsize>,
    url: String,
}

impl Issuer {
    async fn start() -> Self {
        let (keys, published) = watch::channel(Vec::new());
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let answer = get(move || async move {
            counter.fetch_add(1, Ordering::SeqCst);
            Json(JwkSet { keys: published.borrow().clone() })
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}/keys", listener.local_addr().expect("a listener has an address"));
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/keys", answer)).await });
        Self { keys, asked, url }
    }

    /// Its keys are the ones that count.
    fn verifies(&self, config: &mut Config) {
        config.auth.hs256_key = None;
        config.auth.jwks_url = Some(self.url.clone());
    }

    /// A new key, published under this id.
    fn rotate(&self, id: &str) -> EncodingKey {
        // PKCS #8 of an Ed25519 key is this header and 32 random bytes (RFC 8410).
        let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        der.extend(rand::random::<[u8; 32]>());
        let key = EncodingKey::from_ed_der(&der);
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).expect("the key has a public half");
        jwk.common.key_id = Some(id.to_owned());
        self.keys.send_replace(vec![jwk]);
        key
    }
}

fn signed(key: &EncodingKey, id: &str) -> String {
    let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::EdDSA) };
    let claims = json!({"sub": "t", "exp": 4_102_444_800_i64, "scope": "admin"});
    encode(&header, &claims, key).expect("sign")
}

#[tokio::test(flavor = "multi_thread")]
async fn published_keys_are_taken_and_fetched_no_more_than_needed() {
    let world = World::new().await;
    let issuer = Issuer::start().await;
    let key = issuer.rotate("first");
    let client = world.nexus_with(|config| issuer.verifies(config)).await.client;
    assert_eq!(read(&client, Some(signed(&key, "first"))).await.status, 200);
    assert_eq!(read(&client, Some(signed(&key, "first"))).await.status, 200);
    for unknown in ["a", "b", "c"] {
        // The issuer may have published it in this moment: that is not known until it is asked again.
        let answer = read(&client, Some(signed(&key, unknown))).await;
        assert_eq!((answer.problem(), answer.header("retry-after")), ((503, "issuer_unavailable"), Some("1")));
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "unknown ids cannot make Nexus ask again and again");
    // The public half as a shared secret: the old trick, and an HS256 token has no place here at all.
    assert_eq!(read(&client, Some(token("admin"))).await.problem(), (401, "token_invalid"));
    let other = issuer.rotate("first");
    assert_eq!(read(&client, Some(signed(&other, "first"))).await.status, 401, "the old key is kept for a while");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_token_of_a_new_key_closes_no_connection() {
    let world = World::new().await;
    let issuer = Issuer::start().await;
    let instance = world.nexus_with(|config| issuer.verifies(config)).await;
    let opening = Opening { token: Some(signed(&issuer.rotate("first"), "first")), ..Opening::default() };
    let mut socket = opening.open(instance.nexus.address()).await.expect("the token is good");
    // The set was fetched a moment ago, and is not fetched again yet.
    let refresh = json!({"command": "refresh", "token": signed(&issuer.rotate("second"), "second")});
    assert_eq!(socket.command(refresh).await["error"]["code"], "issuer_unavailable");
    assert_eq!(socket.command(json!({"command": "ping"})).await["result"]["position"], "1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_fetch_has_not_brought_is_no_key() {
    let world = World::new().await;
    let issuer = Issuer::start().await;
    let client = world.nexus_with(|config| issuer.verifies(config)).await.client;
    let key = issuer.rotate("first");
    assert_eq!(read(&client, Some(signed(&key, "other"))).await.problem(), (401, "token_invalid"));
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_is_told_as_such() {
    let world = World::new().await;
    let client = world
        .nexus_with(|config| {
            config.auth.hs256_key = None;
            config.auth.jwks_url = Some("http://127.0.0.1:9/keys".to_owned());
        })
        .await
        .client;
    let answer = read(&client, Some(token("admin"))).await;
    assert_eq!(answer.problem(), (503, "issuer_unavailable"));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_answered_with_a_problem() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    assert_eq!(client.get("/v2/anything").await.problem(), (404, "not_found"));
    let method = client.send(client.request(Method::DELETE, "/v1/events")).await;
    assert_eq!(method.problem(), (405, "method_not_allowed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_operation_is_served() {
    let world = World::new().await;
    let client = world.nexus().await.client.with_token(None);
    let document = client.get("/openapi.json").await.body;
    let paths = document["paths"].as_object().expect("paths");
    for (path, operations) in paths {
        for method in operations.as_object().expect("operations").keys() {
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).expect("a method");
            let answer = client.send(client.request(method.clone(), &path.replace("{id}", "1"))).await;
            assert!(![404, 405].contains(&answer.status), "{method} {path}: {}", answer.text);
        }
    }
    for path in ["/v1/events", "/v1/event-types", "/livez", "/readyz", "/health", "/metrics", "/openapi.json"] {
        assert!(paths.contains_key(path), "{path} is documented");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_listed_origins_may_call_from_a_browser() {
    let world = World::new().await;
    let client =
        world.nexus_with(|config| config.allowed_origins = vec!["https://app.example".to_owned()]).await.client;
    let preflight = |origin: &'static str| {
        let request = client.request(Method::OPTIONS, "/v1/events").header("origin", origin);
        request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization")
    };
    let listed = client.send(preflight("https://app.example")).await;
    assert_eq!(listed.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(listed.header("access-control-allow-headers").is_some_and(|names| names.contains("authorization")));
    let other = client.send(preflight("https://evil.example")).await;
    assert_eq!(other.header("access-control-allow-origin"), None);
}
