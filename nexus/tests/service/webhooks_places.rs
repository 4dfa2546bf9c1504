//! Webhooks: receivers that do not answer, or only with failures, take nothing from those that do.

use serde_json::{Value, json};

use crate::support::receiver::{Receiver, Reply, Webhook, allow_loopback};
use crate::support::{Client, World, event, until};

/// Longer than a test waits: what a silent receiver has been given, it holds.
const FOR_EVER_SECONDS: u64 = 600;

/// Events of these ids, each about the subject that its id begins with.
async fn publish(client: &Client, ids: &[&str]) {
    let events: Vec<Value> = ids.iter().map(|id| event(id, &id[..1])).collect();
    client.publish(&json!(events)).await;
}

async fn silent() -> Receiver {
    Receiver::start(|_, _| Reply::Never).await
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_twenty_silent_receivers_one_that_answers_is_delivered_to() {
    let world = World::new().await;
    let change = |config: &mut nexus::config::Config| {
        allow_loopback(config);
        config.webhooks.attempt_seconds = FOR_EVER_SECONDS;
    };
    let client = world.nexus_with(change).await.client;
    let (silent, receiver) = (silent().await, Receiver::accepting().await);
    for _ in 0..20 {
        Webhook::new(&client, &silent.url(), json!({})).await;
    }
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
    publish(&client, &ids).await;
    silent.until(20).await;
    Webhook::new(&client, &receiver.url(), json!({})).await;
    publish(&client, &ids.map(|subject| subject.repeat(2)).each_ref().map(String::as_str)).await;
    receiver.until(8).await;
    let mut got = receiver.ids();
    got.sort();
    assert_eq!(got, ["aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_delivered_for_want_of_a_place_is_kept_from_retention() {
    let world = World::new().await;
    let change = |config: &mut nexus::config::Config| {
        allow_loopback(config);
        (config.webhooks.attempts_max, config.webhooks.attempt_seconds) = (1, FOR_EVER_SECONDS);
        config.limits.retention_events_min = 1_000;
    };
    let client = world.nexus_with(change).await.client;
    let (silent, receiver) = (silent().await, Receiver::accepting().await);
    Webhook::new(&client, &silent.url(), json!({"subjects": ["system/s"]})).await;
    publish(&client, &["s"]).await;
    silent.until(1).await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({"subjects": ["system/a", "system/b"]})).await;
    publish(&client, &["a", "b"]).await;
    webhook.until("both to wait", |shown| shown["pending"] == 2).await;
    let seq = |shown: &Value| shown["position"].as_str()?.strip_prefix("1.")?.parse().ok();
    let fillers: Vec<Value> = (0..3_500).map(|number| event(&format!("filler-{number}"), "filler")).collect();
    for (number, batch) in (1..).zip(fillers.chunks(500)) {
        client.publish(&json!(batch)).await;
        // A loaded machine is not to write faster than it can follow.
        webhook.until("it to be looked through", |shown| seq(shown) > Some(number * 500 - 300)).await;
    }
    until("retention to drop", async || {
        let oldest: i64 = sqlx::query_scalar("SELECT min(seq) FROM log").fetch_one(&world.postgres).await.expect("ask");
        (oldest > 2_000).then_some(())
    })
    .await;
    let shown = webhook.get("").await.body;
    assert_eq!(shown["pending"], 2, "no gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_is_asked_once_at_a_time_until_it_answers() {
    let world = World::new().await;
    let change = |config: &mut nexus::config::Config| {
        allow_loopback(config);
        config.webhooks.attempt_seconds = 1;
    };
    let client = world.nexus_with(change).await.client;
    let receiver = Receiver::start(|_, before| match before {
        0 => Reply::Status(500),
        1..4 => Reply::Never,
        _ => Reply::Status(200),
    })
    .await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({"retry_seconds": [600]})).await;
    publish(&client, &["a"]).await;
    webhook.until("it to fail", |shown| shown["last_error"].is_string()).await;
    publish(&client, &["b", "c", "d", "e", "f", "g", "h", "i"]).await;
    receiver.until(4).await;
    assert_eq!(receiver.most_at_once(), 1);
    let shown = webhook.until("the others to arrive", |shown| shown["pending"] == 4).await;
    assert_eq!((&shown["failing_since"], &shown["last_error"]), (&json!(null), &json!(null)));
    assert_eq!(receiver.got().len(), 9);
}
