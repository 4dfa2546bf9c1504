//! `POST /v1/events`: what is acknowledged is in the log once, at the place that was told.

use serde_json::{Value, json};

use crate::support::{Client, World, event};

#[tokio::test(flavor = "multi_thread")]
async fn a_published_event_is_in_the_history_and_in_the_log() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let answer = client.post("/v1/events", &event("one", "a")).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.body, json!({"id": "one", "source": "/tests", "position": "1.1", "duplicate": false}));
    assert_eq!(answer.header("nexus-position"), Some("1.1"));

    let history = client.history("").await.body;
    let mut wanted = event("one", "a");
    wanted["datacontenttype"] = json!("application/json");
    wanted["time"] = history["events"][0]["time"].clone();
    wanted["position"] = json!("1.1");
    assert_eq!(history, json!({"events": [wanted], "next": null, "head": "1.1"}));

    let stored: Value =
        sqlx::query_scalar("SELECT event FROM log WHERE seq = 1 AND type = 'health.check' AND subject = 'system/a'")
            .fetch_one(&world.postgres)
            .await
            .expect("the event is in the log");
    assert_eq!(stored["id"], "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_again_answers_the_first_place() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    client.publish(&event("one", "a")).await;
    client.publish(&event("two", "a")).await;
    let again = client.post("/v1/events", &event("one", "a")).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.body, json!({"id": "one", "source": "/tests", "position": "1.1", "duplicate": true}));
    let mut other_source = event("one", "a");
    other_source["source"] = json!("/others");
    assert_eq!(client.post("/v1/events", &other_source).await.status, 201);
    assert_eq!(world.log().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_duplicates_exactly_one_is_first() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await.client, world.nexus().await.client);
    let mut publishers = tokio::task::JoinSet::new();
    for round in 0..20 {
        for client in [&one, &two, &one, &two] {
            let client = client.clone();
            publishers.spawn(async move { client.post("/v1/events", &event(&format!("event-{round}"), "a")).await });
        }
    }
    let answers = publishers.join_all().await;
    for round in 0..20 {
        let of_round = answers.iter().filter(|answer| answer.body["id"] == format!("event-{round}"));
        let (mut first, mut places) = (0, Vec::new());
        for answer in of_round {
            assert!([200, 201].contains(&answer.status), "{}", answer.text);
            first += usize::from(answer.body["duplicate"] == false);
            places.push(answer.body["position"].clone());
        }
        places.dedup();
        assert_eq!((first, places.len()), (1, 1), "event-{round}: {places:?}");
    }
    assert_eq!(world.log().await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_published_as_a_whole_and_in_order() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let batch: Vec<Value> = (0..150).map(|number| event(&format!("event-{number}"), "a")).collect();
    let answer = client.post("/v1/events", &json!(batch)).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let results = answer.body["results"].as_array().expect("a batch has results");
    for (number, result) in results.iter().enumerate() {
        let wanted = json!({
            "id": format!("event-{number}"), "source": "/tests", "position": format!("1.{}", number + 1), "duplicate": false,
        });
        assert_eq!(*result, wanted);
    }
    assert_eq!(results.len(), 150);
    assert_eq!(answer.header("nexus-position"), Some("1.150"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_event_keeps_its_whole_batch_out() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let mut wrong = event("two", "a");
    wrong["data"]["status"] = json!("splendid");
    let answer = client.post("/v1/events", &json!([event("one", "a"), wrong])).await;
    assert_eq!(answer.problem(), (422, "invalid_document"));
    assert_eq!(answer.violations(), ["/1/data/status"]);
    client.publish(&event("three", "a")).await;
    assert_eq!(world.log().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_may_repeat_events_of_the_past_and_of_its_own() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    client.publish(&event("old", "a")).await;
    let batch = json!([event("new", "a"), event("old", "a"), event("new", "a")]);
    let answer = client.post("/v1/events", &batch).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let seen: Vec<_> =
        (0..3).map(|index| &answer.body["results"][index]).map(|one| (&one["position"], &one["duplicate"])).collect();
    let wanted =
        [("1.2", false), ("1.1", true), ("1.2", true)].map(|(place, duplicate)| (json!(place), json!(duplicate)));
    assert_eq!(seen, wanted.iter().map(|(place, duplicate)| (place, duplicate)).collect::<Vec<_>>());
    let all_old = client.post("/v1/events", &batch).await;
    assert_eq!((all_old.status, all_old.header("nexus-position")), (200, Some("1.2")));
    let empty = client.post("/v1/events", &json!([])).await;
    assert_eq!((empty.status, empty.body), (200, json!({"results": []})));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_subject_keep_the_order_of_their_writer() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await.client, world.nexus().await.client);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let client = if writer % 2 == 0 { one.clone() } else { two.clone() };
        writers.spawn(write_in_order(client, writer));
    }
    writers.join_all().await;
    let log = world.log().await;
    assert_eq!(log.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    for writer in 0..8 {
        let page = one.history(&format!("subject=system/writer-{writer}&limit=500")).await.body;
        let ids: Vec<_> = page["events"].as_array().expect("events").iter().map(|event| event["id"].as_str()).collect();
        let wanted: Vec<_> = (0..25).map(|number| format!("{writer}-{number}")).collect();
        assert_eq!(ids, wanted.iter().map(|id| Some(id.as_str())).collect::<Vec<_>>());
    }
}

async fn write_in_order(client: Client, writer: usize) {
    for number in 0..25 {
        client.publish(&event(&format!("{writer}-{number}"), &format!("writer-{writer}"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_that_is_not_atomic_the_valid_events_are_published_and_each_other_one_is_told() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    client.publish(&event("there", "a")).await;
    let mut invalid = event("invalid", "a");
    invalid["data"]["status"] = json!("sleepy");
    let mut reserved = event("reserved", "a");
    reserved["type"] = json!("user.login");
    let user = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3b";
    reserved["subject"] = json!(format!("user/{user}"));
    reserved["data"] = json!({"user_id": user, "version": 1, "logged_in_at": "2026-01-02T03:04:05Z"});
    let batch =
        json!([json!("no event"), event("one", "a"), invalid, event("there", "a"), reserved, event("two", "a")]);
    let answer = client.post("/v1/events?atomic=false", &batch).await;
    assert_eq!((answer.status, answer.header("nexus-position")), (207, Some("1.3")), "{}", answer.text);
    let told: Vec<Value> = answer.body["results"]
        .as_array()
        .expect("each is told")
        .iter()
        .map(|one| json!([one["position"], one["duplicate"], one["index"], one["problem"]["code"]]))
        .collect();
    let wanted = json!([
        [null, null, 0, "invalid_document"],
        ["1.2", false, null, null],
        [null, null, 2, "invalid_document"],
        ["1.1", true, null, null],
        [null, null, 4, "type_reserved"],
        ["1.3", false, null, null],
    ]);
    assert_eq!(json!(told), wanted);
    assert_eq!(answer.body["results"][2]["problem"]["violations"][0]["path"], "/data/status");
    assert_eq!(world.log().await.len(), 3);
    // As a whole it is refused, and without a fault it is answered like any other.
    assert_eq!(client.post("/v1/events", &batch).await.problem(), (403, "type_reserved"));
    assert_eq!(client.post("/v1/events?atomic=false", &json!([event("three", "a")])).await.status, 201);
    assert_eq!(client.post("/v1/events?atomic=false", &json!([event("three", "a")])).await.status, 200);
    assert_eq!(client.post("/v1/events?atomic=perhaps", &batch).await.problem(), (400, "invalid_parameter"));
}
