//! Webhooks: every event arrives signed, in the order of its subject, however often a receiver or a pod fails.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::receiver::{Receiver, Reply, Webhook, allow_loopback};
use crate::support::{Client, World, event, metric, until};

/// Events of these ids, each about the subject that its id begins with.
async fn publish(client: &Client, ids: &[&str]) {
    let events: Vec<Value> = ids.iter().map(|id| event(id, &id[..1])).collect();
    client.publish(&json!(events)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_once_signed_as_the_standard_says() {
    let world = World::new().await;
    let client = world.nexus_with(allow_loopback).await.client;
    let receiver = Receiver::accepting().await;
    publish(&client, &["before"]).await;
    let webhook =
        Webhook::new(&client, &receiver.url(), json!({"types": ["health.*"], "subjects": ["system/a"]})).await;
    publish(&client, &["b1", "a1", "a2"]).await;
    let got = receiver.until(2).await;
    assert_eq!(receiver.ids(), ["a1", "a2"]);
    assert_eq!(got[0].event(), client.history("subject=system/a&limit=1").await.body["events"][0]);
    assert_eq!(got[0].header("content-type"), "application/cloudevents+json");
    let key: uuid::Uuid =
        sqlx::query_scalar("SELECT key FROM log WHERE seq = 3").fetch_one(&world.postgres).await.expect("ask");
    assert_eq!(got[0].header("webhook-id"), format!("evt_{}", key.simple()));
    let age = jiff::Timestamp::now().as_second() - got[0].header("webhook-timestamp").parse::<i64>().expect("seconds");
    assert!((0..60).contains(&age), "{age}");
    for got in &got {
        assert_eq!(got.signatures_of(&webhook.secret), 1);
    }
    let shown = webhook.until("it to be settled", |shown| shown["pending"] == 0).await;
    assert_eq!((&shown["secret"], &shown["enabled"], &shown["dead_letters"]), (&json!(null), &json!(true), &json!(0)));
    assert!(!client.get("/v1/webhooks").await.text.contains("whsec_"));
    assert_eq!(webhook.delete("").await.status, 204);
    assert_eq!(webhook.get("").await.problem(), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_tried_again_under_the_same_id_and_holds_up_its_subject_only() {
    let world = World::new().await;
    let client = world.nexus_with(allow_loopback).await.client;
    let receiver = Receiver::start(|got, before| match got.id().as_str() {
        "a1" if before < 4 => Reply::Status(500),
        _ => Reply::Status(200),
    })
    .await;
    // Five attempts at most: what came between them does not count.
    let webhook = Webhook::new(&client, &receiver.url(), json!({"retry_seconds": [0, 0, 0, 0]})).await;
    publish(&client, &["a1", "a2", "b1", "b2"]).await;
    until("the last to arrive", async || receiver.ids().contains(&"a2".to_owned()).then_some(())).await;
    let of =
        |subject: char| -> Vec<String> { receiver.ids().into_iter().filter(|id| id.starts_with(subject)).collect() };
    assert_eq!(of('b'), ["b1", "b2"]);
    let a = of('a');
    assert!(a.len() >= 3 && a[..a.len() - 1].iter().all(|id| id == "a1") && a[a.len() - 1] == "a2", "{a:?}");
    let mut names: Vec<String> = receiver.got().iter().map(|got| got.header("webhook-id").to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 4, "an event has one id at every attempt");
    let done =
        |shown: &Value| shown["pending"] == 0 && shown["failing_since"].is_null() && shown["last_error"].is_null();
    webhook.until("the failure to be forgotten", done).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_is_that_of_the_schedule_or_longer_when_the_receiver_says_so() {
    let world = World::new().await;
    let client = world
        .nexus_with(|config| {
            allow_loopback(config);
            config.webhooks.retry_seconds = vec![100];
        })
        .await
        .client;
    let receiver = Receiver::start(|got, _| match got.id().as_str() {
        "a1" => Reply::Status(503),
        "b1" => Reply::With(503, "retry-after", "5000".to_owned()),
        _ => Reply::With(429, "retry-after", "1".to_owned()),
    })
    .await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({})).await;
    publish(&client, &["a1", "b1", "c1"]).await;
    receiver.until(3).await;
    let look = "SELECT extract(epoch FROM due_at - now())::float8 FROM delivery
        WHERE lease IS NULL AND last_error IS NOT NULL ORDER BY seq";
    let waits = until("all to be settled", async || {
        let waits: Vec<f64> = sqlx::query_scalar(look).fetch_all(&world.postgres).await.expect("ask");
        (waits.len() == 3).then_some(waits)
    })
    .await;
    for (wait, wanted) in waits.iter().zip([60.0..=120.0, 4_900.0..=5_000.0, 60.0..=120.0]) {
        assert!(wanted.contains(wait), "{waits:?}");
    }
    let shown = webhook.until("the failure to be noted", |shown| shown["failing_since"].is_string()).await;
    assert_eq!((&shown["pending"], &shown["dead_letters"]), (&json!(3), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_listed_and_arrives_when_it_is_redriven() {
    let world = World::new().await;
    let client = world.nexus_with(allow_loopback).await.client;
    let receiver = Receiver::start(|_, before| Reply::Status(if before < 2 { 500 } else { 200 })).await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({"retry_seconds": [0]})).await;
    publish(&client, &["a1"]).await;
    webhook.until("it to be given up", |shown| shown["dead_letters"] == 1).await;
    let letter = webhook.get("/dead-letters").await.body["dead_letters"][0].clone();
    assert_eq!(
        json!([letter["event"]["id"], letter["position"], letter["attempts"], letter["last_error"]]),
        json!(["a1", "1.1", 2, "the receiver answered 500"])
    );
    assert_eq!(webhook.post("redrive", json!({})).await.body, json!({"count": 1}));
    let got = receiver.until(3).await;
    assert_eq!(got[2].header("webhook-id"), got[0].header("webhook-id"));
    let settled = |shown: &Value| shown["pending"] == 0 && shown["failing_since"].is_null();
    let shown = webhook.until("it to be settled", settled).await;
    assert_eq!(shown["dead_letters"], 0);
    for (outcome, count) in [("failed", 1), ("dead", 1), ("redriven", 1), ("delivered", 1)] {
        let name = format!("nexus_deliveries_total{{kind=\"webhook\",outcome=\"{outcome}\"}}");
        assert_eq!(metric(&client, &name).await, count, "{outcome}");
    }
    assert_eq!(webhook.delete("/dead-letters").await.body, json!({"count": 0}));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_both_secrets_sign_until_the_overlap_is_over() {
    let world = World::new().await;
    let client = world.nexus_with(allow_loopback).await.client;
    let receiver = Receiver::accepting().await;
    let own = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let webhook = Webhook::new(&client, &receiver.url(), json!({"secret": own})).await;
    assert_eq!(webhook.secret, own);
    let rotated = webhook.post("rotate-secret", json!({})).await.body;
    assert_eq!(webhook.get("").await.body["previous_secret_until"], rotated["previous_secret_until"]);
    publish(&client, &["a1"]).await;
    let got = receiver.until(1).await;
    assert_eq!((got[0].signatures_of(&webhook.secret), got[0].signatures_of(&rotated["secret"])), (1, 1));

    sqlx::query("UPDATE webhook SET previous_until = now()").execute(&world.postgres).await.expect("time passes");
    publish(&client, &["a2"]).await;
    let got = receiver.until(2).await;
    assert_eq!((got[1].signatures_of(&webhook.secret), got[1].signatures_of(&rotated["secret"])), (0, 1));
    assert_eq!(webhook.get("").await.body["previous_secret_until"], json!(null));
    let refused = webhook.post("rotate-secret", json!({"secret": "whsec_c2hvcnQ="})).await;
    assert_eq!((refused.problem(), refused.violations()), ((422, "invalid_document"), vec!["/secret"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_gets_nothing_until_the_webhook_is_enabled_again() {
    let world = World::new().await;
    let client = world.nexus_with(allow_loopback).await.client;
    let receiver = Receiver::start(|_, before| Reply::Status(if before == 0 { 410 } else { 200 })).await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({"retry_seconds": [9_000, 9_000]})).await;
    publish(&client, &["a1"]).await;
    let shown = webhook.until("it to be disabled", |shown| shown["enabled"] == false).await;
    assert_eq!(shown["disabled"]["reason"], "gone");
    publish(&client, &["a2", "b1"]).await;
    assert_eq!(webhook.post("test", json!({})).await.body["delivered"], true, "a test says how the receiver is now");
    let answer = webhook.change(json!({"enabled": true})).await;
    assert_eq!((answer.status, &answer.body["enabled"], &answer.body["disabled"]), (200, &json!(true), &json!(null)));
    receiver.until(5).await;
    let ids: Vec<String> = receiver.ids().into_iter().filter(|id| !id.starts_with("test_")).collect();
    assert_eq!(ids.iter().filter(|id| id.starts_with('a')).collect::<Vec<_>>(), ["a1", "a1", "a2"]);
    assert!(ids.contains(&"b1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_for_which_everything_fails_for_too_long_is_disabled_and_loses_nothing() {
    let world = World::new().await;
    let change = |config: &mut nexus::config::Config| {
        allow_loopback(config);
        config.webhooks.disable_seconds = 0;
    };
    let client = world.nexus_with(change).await.client;
    let receiver = Receiver::start(|_, before| Reply::Status(if before == 0 { 500 } else { 200 })).await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({})).await;
    publish(&client, &["a1"]).await;
    let shown = webhook.until("it to be disabled", |shown| shown["enabled"] == false).await;
    assert_eq!(
        json!([shown["disabled"]["reason"], shown["last_error"], shown["pending"]]),
        json!(["failing", "the receiver answered 500", 1])
    );
    publish(&client, &["a2"]).await;
    webhook.change(json!({"enabled": true})).await;
    receiver.until(3).await;
    assert_eq!(receiver.ids(), ["a1", "a1", "a2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_stops_and_changes_a_webhook() {
    let world = World::new().await;
    let client = world.nexus_with(allow_loopback).await.client;
    let (one, two) = (Receiver::accepting().await, Receiver::accepting().await);
    let webhook = Webhook::new(&client, &one.url(), json!({"subjects": ["system/a"], "retry_seconds": [7]})).await;
    let stopped = webhook.change(json!({"enabled": false})).await.body;
    assert_eq!(stopped["disabled"]["reason"], "owner");
    publish(&client, &["a1", "b1"]).await;
    let changed = json!({"url": two.url(), "subjects": null, "retry_seconds": null, "types": ["health.check"]});
    let changed = webhook.change(changed).await.body;
    assert_eq!(
        json!([changed["subjects"], changed["types"], changed["retry_seconds"][0], changed["enabled"]]),
        json!([null, ["health.check"], 5, false])
    );
    webhook.change(json!({"enabled": true, "description": "the second"})).await;
    two.until(2).await;
    // They are of two subjects, so either may come first.
    let mut ids = two.ids();
    ids.sort();
    assert_eq!((ids, one.got().len()), (vec!["a1".to_owned(), "b1".to_owned()], 0));
    assert_eq!(webhook.get("").await.body["description"], "the second");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_deliver_each_event_once_in_order_and_not_too_many_at_once() {
    let world = World::new().await;
    let change = |config: &mut nexus::config::Config| {
        allow_loopback(config);
        config.webhooks.attempts_per_webhook_max = 3;
    };
    let (one, two) = (world.nexus_with(change).await, world.nexus_with(change).await);
    let receiver = Receiver::accepting().await;
    Webhook::new(&one.client, &receiver.url(), json!({})).await;
    for round in 0..20 {
        let ids: Vec<String> = "abcde".chars().map(|subject| format!("{subject}-{round}")).collect();
        publish(&two.client, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    receiver.until(100).await;
    let ids = receiver.ids();
    assert_eq!(ids.len(), 100);
    for subject in "abcde".chars() {
        let of_subject: Vec<&String> = ids.iter().filter(|id| id.starts_with(subject)).collect();
        let wanted: Vec<String> = (0..20).map(|round| format!("{subject}-{round}")).collect();
        assert_eq!(of_subject, wanted.iter().collect::<Vec<_>>());
    }
    assert!((1..=3).contains(&receiver.most_at_once()), "{}", receiver.most_at_once());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_answer_is_asked_by_all_pods_together_no_more_often_at_once() {
    let world = World::new().await;
    let change = |config: &mut nexus::config::Config| {
        allow_loopback(config);
        (config.webhooks.attempts_per_webhook_max, config.webhooks.attempt_seconds) = (3, 1);
    };
    let (one, _two) = (world.nexus_with(change).await, world.nexus_with(change).await);
    let receiver = Receiver::start(|_, _| Reply::Never).await;
    Webhook::new(&one.client, &receiver.url(), json!({"retry_seconds": [600]})).await;
    publish(&one.client, &["a", "b", "c", "d", "e", "f", "g", "h"]).await;
    receiver.until(8).await;
    assert_eq!(receiver.most_at_once(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_pod_had_begun_another_pod_delivers() {
    let world = World::new().await;
    let one = world.nexus_with(allow_loopback).await;
    let receiver = Receiver::start(|_, before| if before == 0 { Reply::Never } else { Reply::Status(200) }).await;
    // There would be no other attempt if the one that was cut off counted.
    let webhook = Webhook::new(&one.client, &receiver.url(), json!({"retry_seconds": []})).await;
    publish(&one.client, &["a1"]).await;
    receiver.until(1).await;
    let two = world.nexus_with(allow_loopback).await;
    one.nexus.stop(Duration::ZERO).await;
    let got = receiver.until(2).await;
    assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    let webhook = Webhook { client: two.client, ..webhook };
    webhook.until("it to be settled", |shown| shown["pending"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_left_behind_is_delivered_when_its_lease_ends() {
    let world = World::new().await;
    let receiver = Receiver::accepting().await;
    let one = world.nexus_with(allow_loopback).await;
    let webhook = Webhook::new(&one.client, &receiver.url(), json!({"retry_seconds": [0]})).await;
    webhook.change(json!({"enabled": false})).await;
    publish(&one.client, &["a1"]).await;
    // As a pod leaves it whose node has vanished.
    let left =
        "INSERT INTO delivery (consumer_id, seq, epoch, key, subject, event, attempts, lease, leased_until, due_at)
        SELECT consumer_id, 1, 1, key, subject, event::text, 1, gen_random_uuid(), now() + interval '1 second',
            now() + interval '1 second' FROM webhook CROSS JOIN log";
    sqlx::query(left).execute(&world.postgres).await.expect("it is left");
    let moved = "UPDATE consumer SET position = 1";
    sqlx::query(moved).execute(&world.postgres).await.expect("it is left");
    let enabled = "UPDATE webhook SET disabled_at = NULL, disabled_reason = NULL";
    sqlx::query(enabled).execute(&world.postgres).await.expect("it is enabled");
    receiver.until(1).await;
    webhook.until("it to be settled", |shown| shown["pending"] == 0).await;
    assert_eq!(receiver.ids(), ["a1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_answer_that_never_ends_no_more_is_read_than_one_needs_to_know() {
    let world = World::new().await;
    let change = |config: &mut nexus::config::Config| {
        allow_loopback(config);
        // Longer than this test waits.
        config.webhooks.attempt_seconds = 600;
    };
    let client = world.nexus_with(change).await.client;
    let receiver = Receiver::start(|_, _| Reply::Endless).await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({})).await;
    publish(&client, &["a1", "a2"]).await;
    // The second of a subject goes out when the first is settled.
    receiver.until(2).await;
    webhook.until("both to be settled", |shown| shown["pending"] == 0).await;
    assert_eq!(receiver.ids(), ["a1", "a2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_ends_costs_no_more_than_an_attempt() {
    let world = World::new().await;
    let change = |config: &mut nexus::config::Config| {
        allow_loopback(config);
        config.webhooks.attempt_seconds = 1;
    };
    let client = world.nexus_with(change).await.client;
    let receiver = Receiver::start(|got, _| match got.id().as_str() {
        "a1" => Reply::Endless,
        _ => Reply::Never,
    })
    .await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({"retry_seconds": []})).await;
    publish(&client, &["a1", "b1"]).await;
    let shown =
        webhook.until("both to be settled", |shown| shown["pending"] == 0 && shown["last_error"].is_string()).await;
    assert_eq!(shown["last_error"], "no answer within 1 s");
    assert_eq!(webhook.get("/dead-letters").await.body["dead_letters"][0]["event"]["id"], "b1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_in_which_nothing_waited_is_no_time_of_failing() {
    let world = World::new().await;
    let client = world.nexus_with(allow_loopback).await.client;
    let receiver = Receiver::start(|_, _| Reply::Status(503)).await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({"retry_seconds": [0]})).await;
    publish(&client, &["a1"]).await;
    webhook.until("it to be given up", |shown| shown["dead_letters"] == 1).await;
    let weeks = "UPDATE webhook SET failing_since = failing_since - interval '3 weeks'";
    sqlx::query(weeks).execute(&world.postgres).await.expect("time passes");
    publish(&client, &["b1"]).await;
    receiver.until(4).await;
    assert_eq!(receiver.ids(), ["a1", "a1", "b1", "b1"]);
    let shown = webhook.until("it to be given up", |shown| shown["dead_letters"] == 2).await;
    assert_eq!((&shown["enabled"], &shown["last_error"]), (&json!(true), &json!("the receiver answered 503")));
    webhook.until("the span to end", |shown| shown["failing_since"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_something_waits_all_the_time_is_time_of_failing() {
    let world = World::new().await;
    let client = world.nexus_with(allow_loopback).await.client;
    let receiver = Receiver::start(|_, _| Reply::Status(503)).await;
    let webhook = Webhook::new(&client, &receiver.url(), json!({"retry_seconds": [600]})).await;
    publish(&client, &["a1"]).await;
    webhook.until("it to fail", |shown| shown["failing_since"].is_string()).await;
    let days = "UPDATE webhook SET failing_since = failing_since - interval '6 days'";
    sqlx::query(days).execute(&world.postgres).await.expect("time passes");
    publish(&client, &["b1"]).await;
    let shown = webhook.until("it to be disabled", |shown| shown["enabled"] == false).await;
    assert_eq!((&shown["disabled"]["reason"], &shown["pending"]), (&json!("failing"), &json!(2)));
}
