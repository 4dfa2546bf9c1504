//! Durable consumers: what they may see, how much waits for them, and what retention does to them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::client::{HS256_KEY, token_of};
use crate::support::consumers::{Consumer, ids, put};
use crate::support::{Client, World, event, metric, until, valid_events};

const ANN: &str = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3a";
const BOB: &str = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3b";

fn caller(client: &Client, subject: &str, scope: &str) -> Client {
    client.with_token(Some(token_of(HS256_KEY, subject, scope, 3_600)))
}

fn wallet(id: &str, user: &str) -> Value {
    json!({
        "specversion": "1.0", "id": format!("wallet {id}"), "source": "/tests", "type": "wallet.created",
        "subject": format!("wallet/{id}"), "data": {"wallet_id": id, "user_id": user, "currency": "AZR"},
    })
}

fn reward(wallet: &str) -> Value {
    let money = json!({"amount_minor": 1, "currency": "AZR"});
    json!({
        "specversion": "1.0", "id": format!("reward {wallet}"), "source": "/tests", "type": "mining.reward",
        "subject": format!("wallet/{wallet}"), "data": {"wallet_id": wallet, "money": money, "block_height": 1},
    })
}

async fn publish_many(client: &Client, count: usize) {
    let events: Vec<Value> = (0..count).map(|number| event(&format!("filler-{number}"), "filler")).collect();
    for batch in events.chunks(500) {
        client.publish(&json!(batch)).await;
    }
}

async fn oldest_beyond(world: &World, seq: i64) {
    until("retention to drop", async || {
        let oldest: i64 = sqlx::query_scalar("SELECT min(seq) FROM log").fetch_one(&world.postgres).await.expect("ask");
        (oldest > seq).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_given_what_it_may_see_and_nothing_else() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let ann = caller(&client, ANN, "consumers:write events:read:own");
    let consumer = Consumer::new(&ann, "mine", json!({"types": ["**"]})).await;
    assert_eq!(consumer.get("").await.body["sees"], "owner");
    for event in [wallet("a", ANN), wallet("b", BOB), reward("a"), reward("b"), event("health", "x")] {
        client.publish(&event).await;
    }
    // What it may not see is not even kept for it.
    until("the consumer to follow the log", async || (consumer.get("").await.body["position"] == "1.5").then_some(()))
        .await;
    assert_eq!(consumer.counts().await, (2, 0));
    let leased = consumer.lease(10).await;
    assert_eq!(ids(&leased), ["wallet a", "reward a"]);
    consumer.give_back(&leased).await;
    // Rights that are gone when the event is due again count.
    sqlx::query("DELETE FROM membership").execute(&world.postgres).await.expect("it is let in no more");
    sqlx::query("UPDATE delivery SET due_at = now()").execute(&world.postgres).await.expect("time passes");
    assert_eq!(ids(&consumer.lease(10).await), ["wallet a"]);
    assert_eq!(consumer.counts().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_with_a_lesser_token_or_from_another_owner() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let service = caller(&client, "service", "consumers:write events:read");
    let consumer = Consumer::new(&service, "all", json!({"types": ["**"], "retry_seconds": []})).await;
    client.publish(&event("one", "a")).await;
    for (scope, wanted) in [
        ("consumers:write events:read:own", (403, "scope_missing")),
        ("consumers:write", (403, "scope_missing")),
        ("events:read", (403, "scope_missing")),
    ] {
        let lesser = consumer.through(&caller(&client, "service", scope));
        assert_eq!(lesser.post("lease", json!({})).await.problem(), wanted, "{scope}");
        assert_eq!(lesser.get("/dead-letters").await.problem(), wanted, "{scope}");
        let made = put(&caller(&client, "service", scope), "new", &json!({"types": ["**"]})).await;
        assert!(made.status == if scope.ends_with(":own") { 201 } else { 403 }, "{scope}: {}", made.text);
    }
    let other = consumer.through(&caller(&client, "other", "consumers:write events:read"));
    for action in ["lease", "redrive"] {
        assert_eq!(other.post(action, json!({})).await.problem(), (404, "not_found"), "{action}");
    }
    assert_eq!(other.get("?owner=service").await.problem(), (403, "scope_missing"));
    assert_eq!(other.delete("").await.problem(), (404, "not_found"));
    // An administrator helps out.
    let page = until("the event to wait", async || {
        let page = client.get("/v1/consumers/all?owner=service").await.body;
        (page["pending"] == 1).then_some(page)
    });
    assert_eq!(page.await["owner"], "service");
    let owners: Vec<Value> = client.get("/v1/consumers").await.body["consumers"]
        .as_array()
        .expect("consumers")
        .iter()
        .map(|consumer| json!([consumer["owner"], consumer["name"]]))
        .collect();
    assert_eq!(owners, [json!(["service", "all"]), json!(["service", "new"])]);
    assert_eq!(ids(&consumer.lease(10).await), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_owner_may_see_less_now_is_given_less_of_what_waits() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let all = caller(&client, ANN, "consumers:write events:read");
    let consumer = Consumer::new(&all, "mine", json!({"types": ["**"]})).await;
    for event in [wallet("a", ANN), wallet("b", BOB)] {
        client.publish(&event).await;
    }
    until("both to wait", async || (consumer.counts().await == (2, 0)).then_some(())).await;
    let own = caller(&client, ANN, "consumers:write events:read:own");
    assert_eq!(put(&own, "mine", &json!({"types": ["**"]})).await.body["sees"], "owner");
    assert_eq!(ids(&consumer.through(&own).lease(10).await), ["wallet a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_given_nothing_once_the_token_is_revoked() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let service = caller(&client, "service", "consumers:write events:read");
    let consumer = Consumer::new(&service, "all", json!({"types": ["**"]})).await;
    let waiting = consumer.through(&service);
    let waiting = tokio::spawn(async move { waiting.post("lease", json!({"wait_seconds": 12})).await });
    until("it to wait", async || (metric(&client, "nexus_stream_connections").await == 1).then_some(())).await;
    assert_eq!(client.post("/v1/revocations", &json!({"subject": "service"})).await.status, 201);
    client.publish(&event("secret", "a")).await;
    assert_eq!(waiting.await.expect("it is answered").problem(), (401, "token_revoked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_outlives_the_log() {
    let world = World::new().await;
    let client = world.nexus_with(|config| config.limits.retention_events_min = 1_000).await.client;
    let consumer = Consumer::new(&client, "away", json!({"types": ["wallet.*"]})).await;
    for number in 0..3 {
        client.publish(&wallet(&number.to_string(), ANN)).await;
    }
    // By itself: nobody leases.
    let waiting = "SELECT count(*) FROM delivery";
    until("all three to be taken from the log", async || {
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&world.postgres).await.expect("ask");
        (waiting == 3).then_some(())
    })
    .await;
    publish_many(&client, 3_500).await;
    oldest_beyond(&world, 2_000).await;
    let leased = consumer.lease(10).await;
    assert_eq!(ids(&leased), ["wallet 0", "wallet 1", "wallet 2"]);
    assert_eq!(leased[2]["event"]["data"]["wallet_id"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_with_too_much_waiting_takes_no_more_and_is_told_what_is_gone() {
    let world = World::new().await;
    let small = |config: &mut nexus::config::Config| {
        config.limits.retention_events_min = 1_000;
        config.consumers.pending_max = 5;
    };
    let client = world.nexus_with(small).await.client;
    let consumer = Consumer::new(&client, "stuck", json!({"types": ["**"]})).await;
    publish_many(&client, 3_500).await;
    oldest_beyond(&world, 2_000).await;
    assert_eq!(consumer.counts().await, (5, 0));
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let leased = consumer.lease(10).await;
        assert!((1..=5).contains(&leased.len()), "{leased:?}");
        consumer.acknowledge(&leased).await;
        seen.extend(leased);
    }
    let told: Vec<Value> = seen.iter().map(|delivery| delivery["event"]["position"].clone()).collect();
    assert_eq!(told[..5], ["1.1", "1.2", "1.3", "1.4", "1.5"]);
    assert_eq!((&seen[5]["gap"], &seen[5]["event"]), (&json!({"from": "1.5", "to": "1.2000"}), &json!(null)));
    assert_eq!(told[6..8], ["1.2001", "1.2002"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_do_not_copy_the_log() {
    let world = World::new().await;
    let small = |config: &mut nexus::config::Config| {
        config.consumers.pending_max = 2;
        config.consumers.dead_letters_max = 3;
    };
    let client = world.nexus_with(small).await.client;
    let consumer = Consumer::new(&client, "poisoned", json!({"types": ["**"], "retry_seconds": []})).await;
    publish_many(&client, 10).await;
    for _ in 0..2 {
        assert_eq!(consumer.give_back(&consumer.lease(10).await).await["dead_letters"], 2);
    }
    assert_eq!((consumer.lease(10).await, consumer.counts().await), (vec![], (0, 4)));
    // Nothing was lost: with room again it goes on.
    assert_eq!(consumer.delete("/dead-letters").await.body["count"], 4);
    assert_eq!(ids(&consumer.lease(10).await), ["filler-4", "filler-5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused() {
    let world = World::new().await;
    let client = world.nexus_with(|config| config.consumers.per_owner_max = 1).await.client;
    let consumer = Consumer::new(&client, "one", json!({"types": ["**"]})).await;
    for (settings, path) in [
        (json!({"types": []}), ""),
        (json!({"types": ["walet.*"]}), ""),
        (json!({"types": ["**"], "subjects": []}), ""),
        (json!({"types": ["**"], "lease_seconds": 0}), "/lease_seconds"),
        (json!({"types": ["**"], "retry_seconds": [-1]}), "/retry_seconds"),
        (json!({"types": ["**"], "retry_seconds": vec![1; 100]}), "/retry_seconds"),
    ] {
        let refused = put(&client, "one", &settings).await;
        assert_eq!((refused.problem(), refused.violations()), ((422, "invalid_document"), vec![path]), "{settings}");
    }
    assert_eq!(put(&client, "one", &json!({"types": ["**"], "x": 1})).await.problem(), (400, "malformed_body"));
    assert_eq!(put(&client, "a%2Fb", &json!({"types": ["**"]})).await.problem(), (400, "invalid_parameter"));
    let ahead = json!({"types": ["**"], "after": "1.5"});
    assert_eq!(put(&client, "one", &ahead).await.problem(), (409, "position_unknown"));
    assert_eq!(put(&client, "two", &json!({"types": ["**"]})).await.problem(), (409, "too_many_consumers"));
    for (action, body, path) in [
        ("lease", json!({"count": 0}), "/count"),
        ("lease", json!({"count": 101}), "/count"),
        ("lease", json!({"wait_seconds": 13}), "/wait_seconds"),
        ("lease", json!({"lease_seconds": 50_000}), "/lease_seconds"),
        ("ack", json!({"leases": []}), "/leases"),
        ("ack", json!({"leases": ["1-0"]}), "/leases/0"),
        ("nack", json!({"leases": ["1-00000000000000000000000000000000"], "delay_seconds": 90_000}), "/delay_seconds"),
        ("extend", json!({"leases": ["1-00000000000000000000000000000000"], "lease_seconds": 0}), "/lease_seconds"),
    ] {
        let refused = consumer.post(action, body.clone()).await;
        assert_eq!((refused.problem(), refused.violations()), ((422, "invalid_document"), vec![path]), "{body}");
    }
    let unknown = consumer.post("ack", json!({"leases": ["1-00000000000000000000000000000000"]})).await;
    assert_eq!(unknown.body, json!({"done": 0, "dead_letters": 0, "lost": ["1-00000000000000000000000000000000"]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_and_what_was_done_is_counted() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let consumer = Consumer::new(&client, "counted", json!({"types": ["**"], "retry_seconds": []})).await;
    client.publish(&json!(valid_events()[..3])).await;
    let leased = consumer.lease(2).await;
    consumer.acknowledge(&leased[..1]).await;
    consumer.give_back(&leased[1..]).await;
    let kind = |name: &str, outcome: &str| format!("nexus_deliveries_total{{kind=\"{name}\",outcome=\"{outcome}\"}}");
    for (outcome, count) in [("leased", 2), ("acknowledged", 1), ("dead", 1)] {
        assert_eq!(metric(&client, &kind("consumer", outcome)).await, count, "{outcome}");
    }
    for name in ["nexus_delivery_pending", "nexus_delivery_dead_letters"] {
        let name = format!("{name}{{kind=\"consumer\"}}");
        until("it to be measured", async || (metric(&client, &name).await == 1).then_some(())).await;
    }
    let gone = client.request(Method::DELETE, "/v1/consumers/counted");
    assert_eq!(client.send(gone).await.status, 204);
}
