//! Every type: a valid event is taken, a wrong one refused with the path of each field. Bodies within their bounds.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{World, event, valid_events};

#[tokio::test(flavor = "multi_thread")]
async fn every_type_takes_its_event_and_names_what_is_missing() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    for valid in valid_events() {
        assert_eq!(client.post("/v1/events", &valid).await.status, 201, "{valid}");
        let fields: Vec<String> = valid["data"].as_object().expect("data").keys().cloned().collect();
        for field in fields {
            let mut wrong = valid.clone();
            wrong["data"].as_object_mut().expect("data").remove(&field);
            let answer = client.post("/v1/events", &wrong).await;
            assert_eq!(answer.problem(), (422, "invalid_document"), "{wrong}");
            assert_eq!(answer.violations(), [format!("/data/{field}")]);
        }
        let mut wrong = valid.clone();
        wrong["data"]["surprise"] = json!(1);
        wrong["subject"] = json!("elsewhere/1");
        let answer = client.post("/v1/events", &wrong).await;
        assert_eq!(answer.violations(), ["/subject", "/data/surprise"]);
    }
    assert_eq!(world.log().await.len(), valid_events().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_lists_what_is_taken() {
    let world = World::new().await;
    let client = world.nexus().await.client.with_token(None);
    let answer = client.get("/v1/event-types").await;
    let types = answer.body["types"].as_array().expect("types");
    assert_eq!(types.len(), 16);
    let wallet = types.iter().find(|one| one["type"] == "wallet.created").expect("wallet.created");
    assert_eq!(
        (&wallet["version"], &wallet["domain"], &wallet["subject"], &wallet["publisher"]),
        (&json!(1), &json!("finance"), &json!("wallet/{id}"), &json!("service"))
    );
    assert_eq!(wallet["schema"]["required"], json!(["wallet_id", "user_id", "currency"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_nexus_emits_itself_are_reserved() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let mut reserved = event("one", "a");
    reserved["type"] = json!("user.registered");
    reserved["subject"] = json!("user/1");
    reserved["data"] = json!({
        "user_id": "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3b", "version": 1, "registered_at": "2026-01-02T03:04:05Z",
    });
    assert_eq!(client.post("/v1/events", &reserved).await.problem(), (403, "type_reserved"));
    reserved["type"] = json!("user.promoted");
    let unknown = client.post("/v1/events", &reserved).await;
    assert_eq!((unknown.problem(), unknown.violations()), ((422, "invalid_document"), vec!["/type"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_read_are_refused() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let post = |media_type: &'static str, body: String| {
        client.request(Method::POST, "/v1/events").header("content-type", media_type).body(body)
    };
    let one = event("one", "a").to_string();
    for (media_type, body, wanted) in [
        ("application/json", "{".to_owned(), (400, "malformed_body")),
        ("application/cloudevents-batch+json", one.clone(), (400, "malformed_body")),
        ("application/cloudevents+json", format!("[{one}]"), (422, "invalid_document")),
        ("application/json", "7".to_owned(), (422, "invalid_document")),
        ("text/plain", one.clone(), (415, "media_type_unsupported")),
        ("application/json", " ".repeat(1024 * 1024 + 1), (413, "body_too_large")),
    ] {
        assert_eq!(client.send(post(media_type, body)).await.problem(), wanted, "{media_type}");
    }
    let answer = client.send(post("Application/CloudEvents+JSON; charset=utf-8", one)).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_batches_have_bounds() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let mut large = valid_events().remove(12);
    assert_eq!(large["type"], "system.alert");
    large["data"]["message"] = json!("x".repeat(501));
    assert_eq!(client.post("/v1/events", &large).await.violations(), ["/data/message"]);
    let many: Vec<Value> = (0..1_001).map(|number| event(&format!("{number}"), "a")).collect();
    assert_eq!(client.post("/v1/events", &json!(many)).await.problem(), (422, "invalid_document"));
    assert_eq!(world.log().await, []);
}
