//! Webhooks: where they may deliver, whose they are, and what they see.

use serde_json::{Value, json};

use crate::support::client::{HS256_KEY, token_of};
use crate::support::receiver::{Receiver, Reply, Webhook, allow_loopback, make};
use crate::support::{Client, World, event, until};

const ANN: &str = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3a";
const BOB: &str = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3b";

fn caller(client: &Client, subject: &str, scope: &str) -> Client {
    client.with_token(Some(token_of(HS256_KEY, subject, scope, 3_600)))
}

/// A world in which nothing is allowed but to do without TLS.
async fn strict(world: &World) -> crate::support::Instance {
    world.nexus_with(|config| config.webhooks.allow_http = true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_delivered_to_this_machine_whatever_name_leads_there() {
    let world = World::new().await;
    let receiver = Receiver::accepting().await;
    let port = receiver.port;
    // Made when it was allowed, and known by address.
    let allowed = world.nexus_with(allow_loopback).await;
    let old = Webhook::new(&allowed.client, &receiver.url(), json!({"retry_seconds": []})).await;
    allowed.nexus.stop(std::time::Duration::ZERO).await;

    let client = strict(&world).await.client;
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://10.0.0.1/".to_owned(),
    ] {
        let refused = make(&client, &url, json!({})).await;
        assert_eq!((refused.problem(), refused.violations()), ((422, "invalid_document"), vec!["/url"]), "{url}");
    }
    let named = Webhook::new(&client, &format!("http://localhost:{port}/"), json!({"retry_seconds": []})).await;
    client.publish(&event("secret", "a")).await;
    let old = Webhook { client: client.clone(), ..old };
    for webhook in [&named, &old] {
        let shown = webhook
            .until("it to be given up", |shown| shown["dead_letters"] == 1 && shown["last_error"].is_string())
            .await;
        let error = shown["last_error"].as_str().expect("a reason");
        assert!(error.contains("the address is not public"), "{error}");
        let tested = webhook.post("test", json!({})).await.body;
        assert_eq!((&tested["delivered"], &tested["status"]), (&json!(false), &json!(null)));
    }
    assert_eq!(receiver.got().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_from_before_tls_was_asked_for_gets_nothing_without_it() {
    let world = World::new().await;
    let receiver = Receiver::accepting().await;
    let before = world.nexus_with(allow_loopback).await;
    let webhook = Webhook::new(&before.client, &receiver.url(), json!({"retry_seconds": []})).await;
    before.nexus.stop(std::time::Duration::ZERO).await;
    let change = |config: &mut nexus::config::Config| {
        allow_loopback(config);
        config.webhooks.allow_http = false;
    };
    let client = world.nexus_with(change).await.client;
    client.publish(&event("plain", "a")).await;
    let webhook = Webhook { client, ..webhook };
    webhook.until("it to be given up", |shown| shown["dead_letters"] == 1).await;
    assert_eq!(receiver.got().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let world = World::new().await;
    let client = world.nexus_with(allow_loopback).await.client;
    let target = Receiver::accepting().await;
    let url = target.url();
    let receiver = Receiver::start(move |_, _| Reply::With(307, "location", url.clone())).await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({"retry_seconds": []})).await;
    client.publish(&event("one", "a")).await;
    let shown =
        webhook.until("it to be given up", |shown| shown["dead_letters"] == 1 && shown["last_error"].is_string()).await;
    assert_eq!((&shown["last_error"], target.got().len()), (&json!("the receiver answered 307"), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_settings_that_cannot_be_are_refused() {
    let world = World::new().await;
    let client = world.nexus_with(|config| config.webhooks.per_owner_max = 1).await.client;
    let good = "https://receiver.example/events";
    let long = format!("{good}/{}", "x".repeat(2_048));
    for (url, settings, path) in [
        ("http://receiver.example/", json!({}), "/url"),
        ("ftp://receiver.example/", json!({}), "/url"),
        ("receiver.example", json!({}), "/url"),
        ("https://user:password@receiver.example/", json!({}), "/url"),
        (&long, json!({}), "/url"),
        (good, json!({"types": ["walet.*"]}), ""),
        (good, json!({"subjects": []}), ""),
        (good, json!({"retry_seconds": [-1]}), "/retry_seconds"),
        (good, json!({"description": "x".repeat(2_049)}), "/description"),
        (good, json!({"secret": "whsec_"}), "/secret"),
    ] {
        let refused = make(&client, url, settings.clone()).await;
        let told = (refused.problem(), refused.violations());
        assert_eq!(told, ((422, "invalid_document"), vec![path]), "{url} {settings}");
    }
    let webhook = Webhook::new(&client, good, json!({})).await;
    assert_eq!(make(&client, good, json!({})).await.problem(), (409, "too_many_consumers"));
    let refused = webhook.change(json!({"url": "https://10.0.0.1/"})).await;
    assert_eq!(refused.violations(), ["/url"]);
    assert_eq!(webhook.change(json!({"owner": "x"})).await.problem(), (400, "malformed_body"));
    assert_eq!(client.get("/v1/webhooks/none").await.problem(), (400, "invalid_parameter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_what_its_owner_may_see_and_is_nobody_elses() {
    let world = World::new().await;
    let client = world.nexus_with(allow_loopback).await.client;
    let receiver = Receiver::accepting().await;
    let ann = caller(&client, ANN, "webhooks:write events:read:own");
    let webhook = Webhook::new(&ann, &receiver.url(), json!({})).await;
    assert_eq!(webhook.get("").await.body["sees"], "owner");
    let wallet = |id: &str, user: &str| -> Value {
        json!({
            "specversion": "1.0", "id": id, "source": "/tests", "type": "wallet.created",
            "subject": format!("wallet/{id}"), "data": {"wallet_id": id, "user_id": user, "currency": "AZR"},
        })
    };
    client.publish(&json!([event("health", "a"), wallet("b", BOB), wallet("a", ANN)])).await;
    receiver.until(1).await;
    webhook.until("the log to be looked through", |shown| shown["pending"] == 0 && shown["position"] == "1.3").await;
    assert_eq!(receiver.ids(), ["a"]);

    for (subject, scope, wanted) in
        [("bob", "webhooks:write events:read", (404, "not_found")), (ANN, "events:read", (403, "scope_missing"))]
    {
        let other =
            Webhook { client: caller(&client, subject, scope), path: webhook.path.clone(), secret: json!(null) };
        assert_eq!(other.get("").await.problem(), wanted);
        assert_eq!(other.change(json!({"enabled": false})).await.problem(), wanted);
        assert_eq!(other.delete("").await.problem(), wanted);
        for action in ["rotate-secret", "redrive", "test"] {
            assert_eq!(other.post(action, json!({})).await.problem(), wanted, "{action}");
        }
    }
    let blind = caller(&client, "blind", "webhooks:write");
    assert_eq!(make(&blind, &receiver.url(), json!({})).await.problem(), (403, "scope_missing"));
    let listed = caller(&client, "bob", "webhooks:write").get("/v1/webhooks").await.body;
    assert_eq!(listed, json!({"webhooks": []}));
    assert_eq!(client.get("/v1/webhooks").await.body["webhooks"][0]["owner"], ANN);
    // An administrator helps, and gives no rights.
    let helped = Webhook { client: client.clone(), path: webhook.path.clone(), secret: json!(null) };
    assert_eq!(helped.change(json!({"description": "looked at"})).await.body["sees"], "owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_ends_with_the_token_that_it_was_made_with() {
    let world = World::new().await;
    let client = world.nexus_with(allow_loopback).await.client;
    let receiver = Receiver::accepting().await;
    let token = |iat: i64| {
        let claims = nexus::auth::Claims {
            sub: "service".to_owned(),
            exp: 4_102_444_800,
            scope: "webhooks:write events:read".to_owned(),
            iat: u64::try_from(jiff::Timestamp::now().as_second() + iat).ok(),
            ..nexus::auth::Claims::default()
        };
        nexus::auth::sign(&nexus::config::Secret::from(HS256_KEY), &claims).expect("the key is long enough")
    };
    let webhook = Webhook::new(&client.with_token(Some(token(-5))), &receiver.url(), json!({})).await;
    client.publish(&event("seen", "a")).await;
    receiver.until(1).await;
    assert_eq!(client.post("/v1/revocations", &json!({"subject": "service"})).await.status, 201);
    client.publish(&event("hidden", "a")).await;
    let seen = Webhook { client: client.clone(), ..webhook };
    let shown = seen.until("it to be disabled", |shown| shown["enabled"] == false).await;
    assert_eq!((&shown["disabled"]["reason"], receiver.got().len()), (&json!("revoked"), 1));
    // With a new token its owner goes on.
    let again = Webhook { client: client.with_token(Some(token(30))), ..seen };
    assert_eq!(again.change(json!({"enabled": true})).await.body["enabled"], true);
    receiver.until(2).await;
    assert_eq!(receiver.ids(), ["seen", "hidden"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_dropped_meanwhile_is_told_as_a_gap() {
    let world = World::new().await;
    let change = |config: &mut nexus::config::Config| {
        allow_loopback(config);
        config.limits.retention_events_min = 1_000;
    };
    let client = world.nexus_with(change).await.client;
    let receiver = Receiver::accepting().await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({"subjects": ["system/last"]})).await;
    webhook.change(json!({"enabled": false})).await;
    let events: Vec<Value> = (0..3_500).map(|number| event(&format!("filler-{number}"), "filler")).collect();
    for batch in events.chunks(500) {
        client.publish(&json!(batch)).await;
    }
    until("retention to drop", async || {
        let oldest: i64 = sqlx::query_scalar("SELECT min(seq) FROM log").fetch_one(&world.postgres).await.expect("ask");
        (oldest > 2_000).then_some(())
    })
    .await;
    client.publish(&event("last", "last")).await;
    webhook.change(json!({"enabled": true})).await;
    let got = receiver.until(2).await;
    let gap = got.iter().map(crate::support::receiver::Got::event).find(|event| event["type"] == "nexus.gap");
    assert_eq!(gap.expect("it is told")["data"], json!({"from": "1.0", "to": "1.2000"}));
    assert!(receiver.ids().contains(&"last".to_owned()));
}
