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

async fn revocations(world: &World) -> Vec<String> {
    let rows = sqlx::query_scalar("SELECT coalesce(subject, token_id) FROM revocation ORDER BY id");
    rows.fetch_all(&world.postgres).await.expect("ask")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_forgotten_when_no_token_that_it_concerns_can_count() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    for (name, expires) in [("ended", json!(later)), ("lasting", json!(later)), ("unknown", json!(null))] {
        let answer = one.client.post("/v1/revocations", &json!({"subject": name, "expires": expires})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert_eq!(answer.body["expires"], expires);
    }
    let past = json!({"subject": "ann", "expires": "2020-01-01T00:00:00Z"});
    assert_eq!(one.client.post("/v1/revocations", &past).await.violations(), ["/expires"]);
    let status = async |instance: &crate::support::Instance, subject: &str| {
        let token = token(subject, "1", Some(now() - 5));
        instance.client.with_token(Some(token)).get("/v1/events").await.status
    };
    for subject in ["ended", "lasting", "unknown"] {
        until("the other pod to know", async || (status(&two, subject).await == 401).then_some(())).await;
    }

    // One that comes while another goes is noticed, though their number stays the same.
    let mut both = world.postgres.begin().await.expect("begin");
    sqlx::query("DELETE FROM revocation WHERE subject = 'lasting'").execute(&mut *both).await.expect("removed");
    sqlx::query("INSERT INTO revocation (subject) VALUES ('late')").execute(&mut *both).await.expect("inserted");
    both.commit().await.expect("commit");
    for instance in [&one, &two] {
        for (subject, wanted) in [("late", 401), ("lasting", 200)] {
            until("the pod to know", async || (status(instance, subject).await == wanted).then_some(())).await;
        }
    }

    // Half a minute after the end a token might still count somewhere; after two minutes none does.
    let end = async |interval: &str| {
        let end = "UPDATE revocation SET ends_at = now() - $1::text::interval WHERE subject = 'ended'";
        sqlx::query(end).bind(interval.to_owned()).execute(&world.postgres).await.expect("time can be turned");
    };
    end("30 seconds").await;
    assert_eq!(one.client.post("/v1/revocations", &json!({"subject": "looked again"})).await.status, 201);
    for instance in [&one, &two] {
        until("the pod to look", async || (status(instance, "looked again").await == 401).then_some(())).await;
    }
    assert_eq!(revocations(&world).await, ["ended", "unknown", "late", "looked again"]);
    end("2 minutes").await;
    until("what has ended to be removed", async || (revocations(&world).await.len() == 3).then_some(())).await;
    assert_eq!(revocations(&world).await, ["unknown", "late", "looked again"]);
    for instance in [&one, &two] {
        for (subject, wanted) in [("late", 401), ("unknown", 401), ("ended", 200)] {
            until("the pod to know", async || (status(instance, subject).await == wanted).then_some(())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_life_of_tokens_is_bounded_every_revocation_has_an_end() {
    let world = World::new().await;
    let bounded = world.nexus_with(|config| config.auth.token_seconds_max = Some(3_600));
    let unbounded = world.nexus().await;
    let status = async |client: &crate::support::Client, token: String| {
        client.with_token(Some(token)).get("/v1/events").await.status
    };
    let client = bounded.await.client;
    let issued = now();
    for (iat, wanted) in [(Some(issued), 200), (Some(issued - 10), 401), (None, 401)] {
        assert_eq!(status(&client, token("ann", "1", iat)).await, wanted, "{iat:?}");
        assert_eq!(status(&unbounded.client, token("ann", "1", iat)).await, 200, "{iat:?}");
    }
    let insert =
        "INSERT INTO revocation (subject, revoked_at) VALUES ('new', now()), ('old', now() - interval '2 hours')";
    sqlx::query(insert).execute(&world.postgres).await.expect("inserted");
    until("the old one to be removed", async || (revocations(&world).await == ["new"]).then_some(())).await;
    until("the new one to count", async || {
        (status(&client, token("new", "1", Some(issued))).await == 401).then_some(())
    })
    .await;
}
