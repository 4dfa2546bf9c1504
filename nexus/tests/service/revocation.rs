//! Tokens that are ended before their time: no request, no connection and no replay counts them any more, on any pod.

use nexus::auth::{Claims, sign};
use nexus::config::Secret;
use serde_json::json;

use crate::support::client::HS256_KEY;
use crate::support::event_source::EventSource;
use crate::support::polling::Polling;
use crate::support::socket::Opening;
use crate::support::{World, event, socket_io, until};

fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).expect("it is after 1970")
}

/// A token that may read and write events.
fn token(subject: &str, id: &str, iat: Option<u64>) -> String {
    let claims = Claims {
        sub: subject.to_owned(),
        exp: now() + 3_600,
        scope: "events:read events:write".to_owned(),
        jti: Some(id.to_owned()),
        iat,
        ..Claims::default()
    };
    sign(&Secret::from(HS256_KEY), &claims).expect("the key is long enough")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_every_connection_and_opens_none_on_any_pod() {
    let world = World::new().await;
    // Nothing else wakes a connection of the second pod.
    let quiet = world.nexus_with(|config| config.stream.heartbeat_seconds = 3_600);
    let (one, two) = (world.nexus().await, quiet.await);
    let revoked = token("ann", "1", Some(now()));
    let ann = two.client.with_token(Some(revoked.clone()));
    let opening = Opening { token: Some(revoked.clone()), ..Opening::default() };
    let mut socket = opening.open(two.nexus.address()).await.expect("the token is good");
    socket.subscribe(&["**"], None).await;
    let mut stream = EventSource::open(&ann, "", None).await;
    let mut socket_io = socket_io::Client::open(two.nexus.address()).await;
    socket_io.connect(json!({"token": revoked})).await;
    let mut polling = Polling::open(&two.client).await;
    polling.connect(json!({"token": revoked})).await;
    let bob = token("bob", "2", Some(now()));
    let opening = Opening { token: Some(bob), ..Opening::default() };
    let mut other = opening.open(two.nexus.address()).await.expect("the token is good");
    other.subscribe(&["**"], None).await;

    let answer = one.client.post("/v1/revocations", &json!({"token_id": "1"})).await;
    assert_eq!((answer.status, &answer.body["token_id"], &answer.body["subject"]), (201, &json!("1"), &json!(null)));
    assert_eq!(socket.closed().await, 4410);
    let end = stream.event().await;
    assert_eq!((end.name.as_deref(), end.data), (Some("close"), Some(json!({"code": 4410, "reason": "revoked"}))));
    assert_eq!(socket_io.closed().await, 4410);
    until("the polled session to be over", async || (polling.poll().await.status == 400).then_some(())).await;

    for instance in [&one, &two] {
        let ann = instance.client.with_token(Some(revoked.clone()));
        assert_eq!(ann.get("/v1/events").await.problem(), (401, "token_revoked"));
    }
    let mut again = socket_io::Client::open(two.nexus.address()).await;
    again.send(&format!("40{}", json!({"token": revoked}))).await;
    let refused = json!({"message": "The token was revoked", "data": {"code": "token_revoked"}});
    assert_eq!(again.next().await, socket_io::Next::Packet(format!("44{refused}")));
    // Others feel nothing.
    one.client.publish(&event("for-others", "a")).await;
    assert_eq!(other.events(1).await[0]["id"], "for-others");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_begins_again_with_tokens_that_are_issued_later() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let status = async |token: String| instance.client.with_token(Some(token)).get("/v1/events").await.status;
    let before = token("ann", "1", Some(now() - 10));
    let undated = token("ann", "2", None);
    assert_eq!((status(before.clone()).await, status(undated.clone()).await), (200, 200));
    let answer = instance.client.post("/v1/revocations", &json!({"subject": "ann"})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!((status(before).await, status(undated).await), (401, 401));
    assert_eq!(status(token("ann", "3", Some(now() + 20))).await, 200);
    assert_eq!(status(token("bob", "4", Some(now() - 10))).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_events_is_given_none_once_the_token_is_revoked() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let ann = two.client.with_token(Some(token("ann", "1", Some(now()))));
    let waiting = tokio::spawn(async move { ann.get("/v1/events?wait=12").await });
    until("it to wait", async || {
        (crate::support::metric(&two.client, "nexus_stream_connections").await == 1).then_some(())
    })
    .await;
    assert_eq!(one.client.post("/v1/revocations", &json!({"subject": "ann"})).await.status, 201);
    let refused = two.client.with_token(Some(token("ann", "1", Some(now() - 5))));
    until("the other pod to know", async || (refused.get("/v1/events").await.status == 401).then_some(())).await;
    one.client.publish(&event("secret", "a")).await;
    let answer = waiting.await.expect("it is answered");
    assert_eq!(answer.problem(), (401, "token_revoked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_administrator_revokes_and_says_what() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let service = client.with_token(Some(token("service", "1", None)));
    assert_eq!(service.post("/v1/revocations", &json!({"subject": "ann"})).await.problem(), (403, "scope_missing"));
    for (document, path) in [
        (json!({}), ""),
        (json!({"subject": "a", "token_id": "b"}), ""),
        (json!({"subject": ""}), "/subject"),
        (json!({"token_id": "a\nb"}), "/token_id"),
        (json!({"subject": "a".repeat(257)}), "/subject"),
    ] {
        let answer = client.post("/v1/revocations", &document).await;
        assert_eq!((answer.problem(), answer.violations()), ((422, "invalid_document"), vec![path]), "{document}");
    }
}
