//! `GET /v1/stream/sse`: events as they come over plain HTTP, from any instance, without loss.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::support::client::{HS256_KEY, token_of};
use crate::support::event_source::{Block, EventSource};
use crate::support::socket::{Socket, last_position};
use crate::support::{Client, World, event, large_event, metric, token, until};

async fn publish_numbered(client: &Client, numbers: std::ops::Range<usize>) {
    for number in numbers {
        client.publish(&event(&format!("event-{number}"), "a")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_where_it_begins_and_is_resumed_at_the_other_instance() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    publish_numbered(&one.client, 0..2).await;
    let mut stream = EventSource::open(&one.client, "type=health.*", None).await;
    let begin = stream.next().await.expect("a heartbeat opens it");
    assert_eq!(begin, Block { id: Some("1.2".to_owned()), ..Block::default() });
    publish_numbered(&two.client, 2..5).await;
    let (ids, position) = stream.ids(3).await;
    assert_eq!((ids, &*position), (["event-2", "event-3", "event-4"].map(str::to_owned).to_vec(), "1.5"));
    drop(stream);

    publish_numbered(&one.client, 5..7).await;
    // What EventSource says of itself counts before the `after` of the first request.
    let mut stream = EventSource::open(&two.client, "after=1.0", Some(&position)).await;
    assert_eq!(stream.ids(2).await.0, ["event-5", "event-6"]);
    publish_numbered(&one.client, 7..8).await;
    assert_eq!(stream.ids(1).await, (vec!["event-7".to_owned()], "1.8".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for_comes_and_the_heartbeat_moves_the_position() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.stream.heartbeat_seconds = 1).await;
    let client = &instance.client;
    let mut stream = EventSource::open(client, "type=health.check&subject=system/b", None).await;
    client.publish(&event("for-a", "a")).await;
    let skipped = client.publish(&event("for-a-too", "a")).await;
    loop {
        let block = stream.next().await.expect("the stream goes on");
        assert_eq!(block.data, None, "nothing was asked for");
        if block.id.as_deref() == Some(&skipped) {
            break;
        }
    }
    client.publish(&event("for-b", "b")).await;
    assert_eq!(stream.ids(1).await.0, ["for-b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_kept_is_told_as_a_gap() {
    let world = World::new().await;
    let one = world.nexus().await;
    publish_numbered(&one.client, 0..3).await;
    sqlx::query("UPDATE head SET epoch = 2").execute(&world.postgres).await.expect("the log is as if restored");
    let two = world.nexus().await;
    let mut stream = EventSource::open(&two.client, "after=1.2", None).await;
    let gap = stream.event().await;
    assert_eq!((gap.name.as_deref(), gap.id.as_deref()), (Some("gap"), Some("2.3")));
    assert_eq!(gap.data, Some(json!({"from": "1.2", "to": "2.3"})));
    two.client.publish(&event("new", "a")).await;
    assert_eq!(stream.ids(1).await, (vec!["new".to_owned()], "2.4".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_the_instance_drains_or_the_token_expires() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.limits.drain_seconds = 2).await;
    let expiring = instance.client.with_token(Some(token_of(HS256_KEY, "tester", "events:read", 2)));
    let mut stream = EventSource::open(&expiring, "", None).await;
    let closed = stream.event().await;
    assert_eq!(closed.name.as_deref(), Some("close"));
    assert_eq!(closed.data, Some(json!({"code": 4401, "reason": "unauthenticated"})));
    assert_eq!(stream.next().await, None);

    let mut stream = EventSource::open(&instance.client, "", None).await;
    stream.next().await.expect("a heartbeat opens it");
    instance.nexus.state().draining.cancel();
    let retry = stream.next().await.expect("a farewell").retry;
    assert!(retry.is_some_and(|milliseconds| milliseconds <= 2_000), "{retry:?}");
    assert_eq!(stream.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sends_its_token_in_the_query_and_every_refusal_has_its_reason() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.stream.connections_max = 1).await;
    let client = &instance.client;
    let anonymous = client.with_token(None);
    let path = |query: &str| format!("/v1/stream/sse?{query}");
    assert_eq!(anonymous.get(&path("")).await.problem(), (401, "token_missing"));
    let wrong = anonymous.get(&path("access_token=nonsense")).await;
    assert_eq!(wrong.problem(), (401, "token_invalid"));
    let other_scope = client.with_token(Some(token("users:read")));
    assert_eq!(other_scope.get(&path("")).await.problem(), (403, "scope_missing"));
    for query in ["type=walet.*", "after=later", "subjects=a"] {
        assert_eq!(client.get(&path(query)).await.problem(), (400, "invalid_parameter"), "{query}");
    }
    assert_eq!(client.get(&path("after=9.9")).await.problem(), (409, "position_unknown"));
    let request = client.request(reqwest::Method::GET, &path("")).header("origin", "https://elsewhere.example");
    assert_eq!(client.send(request).await.problem(), (403, "origin_refused"));

    let query = format!("access_token={}", token("events:read"));
    let mut stream = EventSource::open(&anonymous, &query, None).await;
    assert_eq!(client.get(&path("")).await.problem(), (429, "overloaded"), "the one place is taken");
    client.publish(&event("one", "a")).await;
    assert_eq!(stream.ids(1).await.0, ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_history_waits_for_what_it_asks_for() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let position = one.client.publish(&event("before", "a")).await;
    let query = format!("type=health.*&subject=system/b&after={position}&wait=12");
    let waiting = tokio::spawn({
        let client = two.client.clone();
        async move { client.history(&query).await.body }
    });
    // Of the wanted subject, but not of a wanted type; of a wanted type, but not of the subject.
    let alert = json!({"severity": "info", "code": "a", "message": "b"});
    let mut other: Value = event("other-type", "b");
    (other["type"], other["data"]) = (json!("system.alert"), alert);
    one.client.publish(&other).await;
    one.client.publish(&event("other-subject", "a")).await;
    one.client.publish(&event("wanted", "b")).await;
    let page = waiting.await.expect("it answers");
    assert_eq!(page["events"][0]["id"], "wanted", "{page}");

    let nothing = one.client.history(&format!("after={}&wait=1", page["head"].as_str().expect("a head"))).await.body;
    assert_eq!(nothing["events"], json!([]));
    for query in ["wait=13", "wait=-1", "wait=soon"] {
        let refused = one.client.get(&format!("/v1/events?{query}")).await;
        assert_eq!(refused.problem(), (400, "invalid_parameter"), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_given_up_and_its_place_is_free_again() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.stream.send_seconds = 1).await;
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.set_recv_buffer_size(4_096).expect("the size can be set");
    let mut stream = socket.connect(instance.nexus.address()).await.expect("the instance listens");
    let token = token("events:read");
    let request = format!("GET /v1/stream/sse HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the request is taken");
    let open = || metric(&instance.client, "nexus_stream_connections");
    until("the stream to open", async || (open().await == 1).then_some(())).await;
    // More than the network between the two and the buffers of HTTP hold.
    for batch in 0..30 {
        let events = (0..100).map(|number| large_event(&format!("{batch}-{number}")));
        instance.client.publish(&json!(events.collect::<Vec<_>>())).await;
    }
    until("the stream to be given up", async || (open().await == 0).then_some(())).await;
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_restored_under_live_clients_is_told_to_each_as_a_gap_and_goes_on() {
    let world = World::new().await;
    let instance = world.nexus().await;
    publish_numbered(&instance.client, 0..3).await;
    let mut stream = EventSource::open(&instance.client, "after=1.2", None).await;
    assert_eq!(stream.ids(1).await.1, "1.3");
    let mut socket = Socket::open(instance.nexus.address()).await;
    socket.subscribe(&["**"], None).await;
    // The backup was taken after the first event.
    let mut transaction = world.postgres.begin().await.expect("begin");
    for statement in ["DELETE FROM log WHERE seq > 1", "UPDATE head SET epoch = 2, seq = 1"] {
        sqlx::query(statement).execute(&mut *transaction).await.expect("the log can be changed");
    }
    transaction.commit().await.expect("commit");
    let gap = stream.event().await;
    assert_eq!((gap.name.as_deref(), gap.data), (Some("gap"), Some(json!({"from": "1.3", "to": "2.1"}))));
    let gap = json!({"push": "gap", "subscription": "s1", "from": "1.3", "to": "2.1"});
    assert_eq!(socket.push().await, gap);
    publish_numbered(&instance.client, 3..5).await;
    assert_eq!(stream.ids(2).await, (["event-3", "event-4"].map(str::to_owned).to_vec(), "2.3".to_owned()));
    assert_eq!(last_position(&socket.events(2).await), "2.3");
}
