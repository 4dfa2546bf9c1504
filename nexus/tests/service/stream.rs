//! `/v1/stream`: what is subscribed arrives once and in order, on any instance, before and
//! after a disconnect.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::socket::{Next, Opening, Socket, ids, last_position};
use crate::support::{Client, World, event, token, until};

async fn publish_numbered(client: &Client, numbers: std::ops::Range<usize>) -> Vec<String> {
    let ids: Vec<String> = numbers.map(|number| format!("event-{number}")).collect();
    for chunk in ids.chunks(100) {
        let batch: Vec<Value> = chunk.iter().map(|id| event(id, "a")).collect();
        assert_eq!(client.post("/v1/events", &json!(batch)).await.status, 201);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_at_one_instance_is_received_at_the_other() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let mut socket = Socket::open(two.nexus.address()).await;
    let start = socket.subscribe(&["health.*"], None).await;
    assert_eq!(start, "1.0");
    one.client.publish(&event("one", "a")).await;
    let history = one.client.history("").await.body;
    let push = socket.push().await;
    assert_eq!(push, json!({"push": "event", "subscription": "s1", "event": history["events"][0]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_resumes_on_the_other_instance_without_loss_and_without_duplicates() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let mut received = Vec::new();
    let mut after = None;
    // A publisher goes on all the time; the client leaves after each 60 events and goes to the other instance.
    let writer = tokio::spawn({
        let client = one.client.clone();
        async move { publish_numbered(&client, 0..600).await }
    });
    for round in 0..10 {
        let instance = if round % 2 == 0 { &one } else { &two };
        let mut socket = Socket::open(instance.nexus.address()).await;
        socket.subscribe(&["**"], after.as_deref().or(Some("1.0"))).await;
        let events = socket.events(60).await;
        after = Some(last_position(&events));
        received.extend(ids(&events).into_iter().map(str::to_owned));
    }
    let published = writer.await.expect("the writer does not fail");
    assert_eq!(received, published);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_subscribed_arrives_and_the_heartbeat_tells_the_position() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.stream.heartbeat_seconds = 1).await;
    let mut socket = Socket::open(instance.nexus.address()).await;
    let command = json!({"command": "subscribe", "types": ["health.check"], "subjects": ["system/b"]});
    assert_eq!(socket.command(command).await["result"], json!({"subscription": "s1", "position": "1.0"}));
    for (id, subject) in [("one", "a"), ("two", "b"), ("three", "a")] {
        instance.client.publish(&event(id, subject)).await;
    }
    assert_eq!(ids(&socket.events(1).await), ["two"]);
    // Nothing more matches; the heartbeat tells that the third was looked at.
    let heartbeat = loop {
        match socket.next().await {
            Next::Frame(frame) if frame["position"] == "1.3" => break frame,
            Next::Frame(frame) => assert_eq!(frame["push"], "heartbeat"),
            Next::Closed(code) => panic!("closed with {code}"),
        }
    };
    assert_eq!(heartbeat, json!({"push": "heartbeat", "position": "1.3"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_subscriptions_of_one_connection_each_have_their_own_place() {
    let world = World::new().await;
    let instance = world.nexus().await;
    publish_numbered(&instance.client, 0..5).await;
    let mut socket = Socket::open(instance.nexus.address()).await;
    socket.subscribe(&["**"], Some("1.3")).await;
    socket.subscribe(&["**"], Some("1.1")).await;
    instance.client.publish(&event("last", "a")).await;
    let mut of = [Vec::new(), Vec::new()];
    while of.iter().map(Vec::len).sum::<usize>() < 8 {
        let push = socket.push().await;
        let index = usize::from(push["subscription"] == "s2");
        of[index].push(push["event"]["position"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(of[0], ["1.4", "1.5", "1.6"]);
    assert_eq!(of[1], ["1.2", "1.3", "1.4", "1.5", "1.6"]);
    let unsubscribed = socket.command(json!({"command": "unsubscribe", "subscription": "s1"})).await;
    assert_eq!(unsubscribed["result"], json!({}));
    instance.client.publish(&event("after", "a")).await;
    let push = socket.push().await;
    assert_eq!((&push["subscription"], &push["event"]["id"]), (&json!("s2"), &json!("after")));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_retention_has_dropped_is_told_as_a_gap() {
    let world = World::new().await;
    let one = world.nexus().await;
    publish_numbered(&one.client, 0..10).await;
    sqlx::query("DELETE FROM log WHERE seq <= 6").execute(&world.postgres).await.expect("the log can be cut");
    // The second instance has never seen what was cut.
    let two = world.nexus().await;
    let mut socket = Socket::open(two.nexus.address()).await;
    socket.subscribe(&["**"], Some("1.2")).await;
    let gap = json!({"push": "gap", "subscription": "s1", "from": "1.2", "to": "1.6"});
    assert_eq!(socket.push().await, gap);
    assert_eq!(ids(&socket.events(4).await), ["event-6", "event-7", "event-8", "event-9"]);
    two.client.publish(&event("live", "a")).await;
    assert_eq!(ids(&socket.events(1).await), ["live"]);
    let counted =
        ["stream_gaps_total 1", "stream_deliveries_total 5", r#"stream_delivery_seconds_count{type="health.check"} 1"#];
    until("what was sent to be counted", async || {
        let text = two.client.get("/metrics").await.text;
        counted.iter().all(|line| text.contains(&format!("nexus_{line}\n"))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_of_a_log_before_its_restoration_is_told_as_a_gap() {
    let world = World::new().await;
    let one = world.nexus().await;
    publish_numbered(&one.client, 0..3).await;
    sqlx::query("UPDATE head SET epoch = 2").execute(&world.postgres).await.expect("the epoch can be raised");
    let two = world.nexus().await;
    let mut socket = Socket::open(two.nexus.address()).await;
    socket.subscribe(&["**"], Some("1.9")).await;
    let gap = json!({"push": "gap", "subscription": "s1", "from": "1.9", "to": "2.3"});
    assert_eq!(socket.push().await, gap);
    two.client.publish(&event("new", "a")).await;
    assert_eq!(last_position(&socket.events(1).await), "2.4");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_has_lost_is_told_as_a_gap_and_its_places_are_not_given_again() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let mut sockets = [Socket::open(one.nexus.address()).await, Socket::open(two.nexus.address()).await];
    for socket in &mut sockets {
        socket.subscribe(&["**"], None).await;
    }
    publish_numbered(&one.client, 0..3).await;
    for socket in &mut sockets {
        assert_eq!(last_position(&socket.events(3).await), "1.3");
    }
    // As when a replica becomes the primary that had only the first of them.
    let mut lost = world.postgres.begin().await.expect("begin");
    for statement in ["DELETE FROM log WHERE seq > 1", "UPDATE head SET seq = 1"] {
        sqlx::query(statement).execute(&mut *lost).await.expect("they are lost");
    }
    lost.commit().await.expect("commit");
    let gap = json!({"push": "gap", "subscription": "s1", "from": "1.3", "to": "2.1"});
    for socket in &mut sockets {
        assert_eq!(socket.push().await, gap);
    }
    assert_eq!(one.client.publish(&event("new", "a")).await, "2.2");
    for socket in &mut sockets {
        assert_eq!(last_position(&socket.events(1).await), "2.2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_instance_tells_when_and_where_to_go_on() {
    let world = World::new().await;
    let (one, two) = (world.nexus_with(|config| config.limits.drain_seconds = 3).await, world.nexus().await);
    let mut socket = Socket::open(one.nexus.address()).await;
    socket.subscribe(&["**"], None).await;
    publish_numbered(&one.client, 0..3).await;
    assert_eq!(ids(&socket.events(3).await), ["event-0", "event-1", "event-2"]);
    one.nexus.state().draining.cancel();
    let drain = socket.push().await;
    assert_eq!((&drain["push"], &drain["position"]), (&json!("drain"), &json!("1.3")));
    assert!(drain["reconnect_after_ms"].as_u64().is_some_and(|delay| delay <= 3_000), "{drain}");
    assert_eq!(socket.closed().await, 1012);
    publish_numbered(&two.client, 3..5).await;
    let mut socket = Socket::open(two.nexus.address()).await;
    socket.subscribe(&["**"], drain["position"].as_str()).await;
    assert_eq!(ids(&socket.events(2).await), ["event-3", "event-4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sends_before_it_is_answered_is_carried_out() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut socket = Opening::default().open(instance.nexus.address()).await.expect("a connection needs no token");
    for command in [
        json!({"id": 1, "command": "connect", "token": token("events:read events:write")}),
        json!({"id": 2, "command": "subscribe", "types": ["health.*"]}),
        json!({"id": 3, "command": "publish", "event": event("at once", "a")}),
    ] {
        socket.send(Message::text(command.to_string())).await;
    }
    let mut frames = Vec::new();
    while frames.len() < 4 {
        match socket.next().await {
            Next::Frame(frame) if frame["push"] == "heartbeat" => {}
            Next::Frame(frame) => frames.push(frame),
            Next::Closed(code) => panic!("closed with {code}"),
        }
    }
    assert_eq!((&frames[0]["id"], &frames[1]["id"]), (&json!(1), &json!(2)));
    // The event and the answer to who published it come as they may.
    let (answered, pushed): (Vec<_>, Vec<_>) = frames[2..].iter().partition(|frame| frame["id"] == 3);
    assert_eq!((&answered[0]["result"]["position"], &pushed[0]["event"]["id"]), (&json!("1.1"), &json!("at once")));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_published_and_read_back_over_the_socket() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut socket = Socket::open(instance.nexus.address()).await;
    let published = socket.command(json!({"command": "publish", "event": event("one", "a")})).await;
    let receipt = json!({"id": "one", "source": "/tests", "position": "1.1", "duplicate": false});
    assert_eq!(published["result"], receipt);
    socket.command(json!({"command": "publish", "event": event("two", "b")})).await;
    let history = socket.command(json!({"command": "history", "subjects": ["system/b"], "after": "1.0"})).await;
    assert_eq!(ids(history["result"]["events"].as_array().expect("events")), ["two"]);
    assert_eq!(history["result"]["head"], "1.2");
    let pong = socket.command(json!({"command": "ping"})).await;
    assert_eq!(pong["result"], json!({"position": "1.2"}));
    let refused = socket.command(json!({"command": "publish", "event": {"id": "x"}})).await;
    assert_eq!(refused["error"]["code"], "invalid_document");
    assert!(refused["error"]["message"].as_str().is_some_and(|message| message.contains("/type")), "{refused}");
}
