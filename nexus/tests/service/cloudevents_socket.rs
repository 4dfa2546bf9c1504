//! `/v1/stream` with the subprotocol `cloudevents.json`: plain CloudEvents both ways, and nothing that is none.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{HS256_KEY, token_of};
use crate::support::raw::{Raw, upgrade};
use crate::support::socket::{Next, Opening, Socket, ids, last_position};
use crate::support::{Instance, World, event, large_event, token};

/// A connection of plain `CloudEvents` that follows what the query asks for.
fn plain(scope: &str, query: &str) -> Opening {
    let (subprotocols, query) = (Some("cloudevents.avro, cloudevents.json"), query.to_owned());
    Opening { token: Some(token(scope)), subprotocols, query, ..Opening::default() }
}

async fn open(instance: &Instance, query: &str) -> Socket {
    plain("admin", query).open(instance.nexus.address()).await.expect("the token is good")
}

/// The next messages, which are all that comes.
async fn messages(socket: &mut Socket, count: usize) -> Vec<Value> {
    let mut messages = Vec::with_capacity(count);
    while messages.len() < count {
        match socket.next().await {
            Next::Frame(message) => messages.push(message),
            Next::Closed(code) => panic!("closed with {code} instead of a message"),
        }
    }
    messages
}

/// The message has the form that AsyncAPI tells of it.
async fn assert_described(instance: &Instance, name: &str, message: &Value) {
    let document = instance.client.get("/asyncapi.json").await.body;
    let payload = format!("#/components/messages/cloudEvents.{name}/payload");
    let schema = json!({"$ref": payload, "components": document["components"]});
    let validator = jsonschema::draft7::new(&schema).expect("it is a schema");
    let errors: Vec<String> = validator.iter_errors(message).map(|error| error.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new(), "{message}");
    assert!(!validator.is_valid(&event("another", "a")), "the schema refuses nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_events_come_as_they_are_read_with_their_position() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    one.client.publish(&json!([event("a1", "a"), event("b1", "b"), event("a2", "a")])).await;
    let mut socket = open(&one, "type=health.*&subject=system/a&after=1.0").await;
    let missed = messages(&mut socket, 2).await;
    one.client.publish(&event("a3", "a")).await;
    let live = messages(&mut socket, 1).await;
    let history = one.client.history("subject=system/a").await.body;
    assert_eq!(json!([&missed[..], &live[..]].concat()), history["events"]);
    // With the last position it goes on, at any instance.
    let mut socket = open(&two, &format!("after={}", last_position(&missed))).await;
    assert_eq!(ids(&messages(&mut socket, 1).await), ["a3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_published_and_a_refused_one_is_told_as_an_event() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut socket = open(&instance, "").await;
    socket.send(Message::text(event("one", "a").to_string())).await;
    let published = messages(&mut socket, 1).await;
    assert_eq!((&published[0]["id"], &published[0]["position"]), (&json!("one"), &json!("1.1")));

    let mut wrong = event("wrong", "a");
    wrong["data"]["status"] = json!("so so");
    for (message, id, source, code) in [
        (wrong.to_string(), json!("wrong"), json!("/tests"), "invalid_document"),
        (json!([event("batch", "a")]).to_string(), Value::Null, Value::Null, "invalid_document"),
        ("nonsense".to_owned(), Value::Null, Value::Null, "malformed_frame"),
    ] {
        socket.send(Message::text(message.clone())).await;
        let refused = messages(&mut socket, 1).await.remove(0);
        let kind = ["specversion", "source", "type"].map(|name| refused[name].as_str().unwrap_or_default());
        assert_eq!(kind, ["1.0", "/nexus", "nexus.refused"], "{message}");
        let data = &refused["data"];
        assert_eq!((&data["id"], &data["source"], &data["code"]), (&id, &source, &json!(code)), "{message}");
        assert!(data["message"].as_str().is_some_and(|text| !text.is_empty()), "{refused}");
        assert_described(&instance, "nexus.refused", &refused).await;
    }
    // The connection goes on.
    socket.send(Message::text(event("two", "a").to_string())).await;
    assert_eq!(ids(&messages(&mut socket, 1).await), ["two"]);

    let mut reader = plain("events:read", "type=system.*").open(instance.nexus.address()).await.expect("it may read");
    reader.send(Message::text(event("three", "a").to_string())).await;
    assert_eq!(messages(&mut reader, 1).await[0]["data"]["code"], "scope_missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_kept_is_told_as_an_event_and_ends_the_connection() {
    let world = World::new().await;
    let one = world.nexus().await;
    one.client.publish(&json!([event("one", "a"), event("two", "a"), event("three", "a")])).await;
    sqlx::query("UPDATE head SET epoch = 2").execute(&world.postgres).await.expect("the log is as if restored");
    let two = world.nexus().await;
    let mut socket = open(&two, "after=1.2&type=system.alert").await;
    let gap = json!({
        "specversion": "1.0", "id": "gap_1.2_2.3", "source": "/nexus", "type": "nexus.gap", "subject": "log",
        "datacontenttype": "application/json", "data": {"from": "1.2", "to": "2.3"}, "position": "2.3",
    });
    let told = messages(&mut socket, 1).await;
    assert_eq!(told, [gap]);
    assert_described(&two, "nexus.gap", &told[0]).await;
    assert_eq!(socket.next().await, Next::Closed(4416));
    // Back with the position of what it was told, it misses nothing more.
    two.client.publish(&event("four", "a")).await;
    let mut socket = open(&two, &format!("after={}", last_position(&told))).await;
    assert_eq!(ids(&messages(&mut socket, 1).await), ["four"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_or_asks_for_nonsense_is_refused_before_the_upgrade() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let address = instance.nexus.address();
    let anonymous = |query: &str| Opening { token: None, ..plain("", query) };
    assert_eq!(anonymous("").open(address).await.err(), Some(401));
    assert_eq!(plain("users:read", "").open(address).await.err(), Some(403));
    for (query, status) in [("type=walet.*", 400), ("types=**", 400), ("after=later", 400), ("after=9.9", 409)] {
        assert_eq!(plain("events:read", query).open(address).await.err(), Some(status), "{query}");
    }
    assert_eq!(plain("events:read:own", "room=course/c1").open(address).await.err(), Some(403));
    // As a browser does, which cannot send a header.
    let query = format!("access_token={}&after=1.0", token("events:read"));
    let mut socket = anonymous(&query).open(address).await.expect("the token is good");
    instance.client.publish(&event("one", "a")).await;
    assert_eq!(ids(&messages(&mut socket, 1).await), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_subprotocol_that_is_spoken_is_answered() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let authorization = format!("authorization: Bearer {}\r\n", token("events:read"));
    for (offered, answered) in [
        ("sec-websocket-protocol: cloudevents.avro\r\nsec-websocket-protocol: a, cloudevents.json\r\n", true),
        // Names of subprotocols are exact, and what is answered must have been offered.
        ("sec-websocket-protocol: CloudEvents.JSON, cloudevents.avro\r\n", false),
        ("", false),
    ] {
        let mut raw = Raw::open(instance.nexus.address()).await;
        raw.send(upgrade("/v1/stream", &format!("{offered}{authorization}"))).await;
        let answer = raw.answer().await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        let protocols: Vec<&str> =
            answer.lines().filter_map(|line| line.strip_prefix("sec-websocket-protocol: ")).collect();
        assert_eq!(protocols, if answered { vec!["cloudevents.json"] } else { vec![] }, "{offered}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_connections_end_as_the_others_and_are_told_nothing_that_is_no_event() {
    let world = World::new().await;
    let change = |config: &mut nexus::config::Config| {
        (config.stream.heartbeat_seconds, config.limits.drain_seconds) = (1, 1);
    };
    let instance = world.nexus_with(change).await;
    let of = async |subject: &str, seconds: i64| {
        let token = Some(token_of(HS256_KEY, subject, "events:read", seconds));
        let opening = Opening { token, ..plain("", "") };
        opening.open(instance.nexus.address()).await.expect("the token is good")
    };
    // Longer than a client that answers no ping is kept.
    assert_eq!(of("ann", 3).await.next().await, Next::Closed(4401));
    let mut revoked = of("bob", 60).await;
    let answer = instance.client.post("/v1/revocations", &json!({"subject": "bob"})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(revoked.next().await, Next::Closed(4410));
    let mut drained = of("ann", 60).await;
    instance.nexus.state().draining.cancel();
    assert_eq!(drained.next().await, Next::Closed(1012));
}

/// More than the network between the two holds.
const LARGE_EVENTS: usize = 3_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_that_pauses_streams_on_from_the_log_and_misses_nothing() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let opening = Opening { receive_bytes: Some(8_192), ..plain("admin", "") };
    let mut socket = opening.open(instance.nexus.address()).await.expect("the token is good");
    let published: Vec<String> = (0..LARGE_EVENTS).map(|number| format!("event-{number}")).collect();
    for ids in published.chunks(100) {
        let batch: Vec<Value> = ids.iter().map(|id| large_event(id)).collect();
        instance.client.publish(&json!(batch)).await;
    }
    assert_eq!(ids(&messages(&mut socket, LARGE_EVENTS).await), published);
    instance.client.publish(&event("live", "a")).await;
    assert_eq!(ids(&messages(&mut socket, 1).await), ["live"]);
}
