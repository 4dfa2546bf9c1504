//! `/v1/stream`: who is let in, for how long, and what happens to a client that keeps to no bound.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{HS256_KEY, token_of};
use crate::support::socket::{Next, Opening, Socket, ids, last_position};
use crate::support::{World, event, large_event, metric, token, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_command_before_authentication_is_refused() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut socket = Opening::default().open(instance.nexus.address()).await.expect("a connection needs no token");
    for command in [
        json!({"command": "subscribe", "types": ["**"]}),
        json!({"command": "unsubscribe", "subscription": "s1"}),
        json!({"command": "publish", "event": event("one", "a")}),
        json!({"command": "history"}),
        json!({"command": "refresh", "token": token("admin")}),
        json!({"command": "connect"}),
        json!({"command": "ping"}),
    ] {
        let answer = socket.command(command.clone()).await;
        assert_eq!(answer["error"]["code"], "not_authenticated", "{command}");
    }
    let connected = socket.command(json!({"command": "connect", "token": token("events:read")})).await;
    assert_eq!(connected["result"]["subject"], "tester");
    assert_eq!(connected["result"]["heartbeat_seconds"], 25);
    socket.subscribe(&["**"], None).await;
    let publish = socket.command(json!({"command": "publish", "event": event("one", "a")})).await;
    assert_eq!(publish["error"]["code"], "scope_missing");
    assert!(world.log().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_authenticate_in_time_is_closed() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.stream.authentication_seconds = 1).await;
    let mut socket = Opening::default().open(instance.nexus.address()).await.expect("a connection needs no token");
    assert_eq!(socket.closed().await, 4403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_opens_nothing_and_closes_what_is_open() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let forged = token_of("another key, also of more than 32 bytes", "tester", "admin", 60);
    let opening = Opening { token: Some(forged.clone()), ..Opening::default() };
    assert_eq!(opening.open(instance.nexus.address()).await.err(), Some(401));
    let mut socket = Opening::default().open(instance.nexus.address()).await.expect("a connection needs no token");
    let answer = socket.command(json!({"command": "connect", "token": forged})).await;
    assert_eq!(answer["error"]["code"], "token_invalid");
    assert_eq!(socket.closed().await, 4401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_closes_the_connection_unless_it_is_refreshed() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let short = || token_of(HS256_KEY, "tester", "events:read", 2);
    let opening = || Opening { token: Some(short()), ..Opening::default() };
    let mut left = opening().open(instance.nexus.address()).await.expect("the token is good");
    let mut kept = opening().open(instance.nexus.address()).await.expect("the token is good");
    left.subscribe(&["**"], None).await;
    kept.subscribe(&["**"], None).await;
    let other = token_of(HS256_KEY, "somebody else", "events:read", 60);
    let refused = kept.command(json!({"command": "refresh", "token": other})).await;
    assert_eq!(refused["error"]["code"], "other_subject");
    let refreshed = kept.command(json!({"command": "refresh", "token": token("events:read")})).await;
    assert_eq!(refreshed["result"]["subject"], "tester");
    assert_eq!(left.closed().await, 4401);
    instance.client.publish(&event("one", "a")).await;
    assert_eq!(ids(&kept.events(1).await), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_is_refused() {
    let world = World::new().await;
    let allow = |config: &mut nexus::config::Config| config.allowed_origins = vec!["https://azora.example".into()];
    let instance = world.nexus_with(allow).await;
    let opening = |origin| Opening { token: Some(token("admin")), origin: Some(origin), ..Opening::default() };
    for origin in ["https://evil.example", "http://azora.example", "https://azora.example.evil.example", "null"] {
        assert_eq!(opening(origin).open(instance.nexus.address()).await.err(), Some(403), "{origin}");
    }
    let mut socket =
        opening("https://azora.example").open(instance.nexus.address()).await.expect("the origin is listed");
    assert_eq!(socket.command(json!({"command": "ping"})).await["result"]["position"], "1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_are_answered_or_closed_and_do_no_harm() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.limits.frame_bytes_max = 2_048).await;
    let mut socket = Socket::open(instance.nexus.address()).await;
    for text in ["", "null", "[]", "{", r#"{"id":"one","command":"ping"}"#, "\u{0}"] {
        socket.send(Message::text(text)).await;
        let Next::Frame(answer) = socket.next().await else { panic!("closed after {text:?}") };
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!("malformed_frame")), "{text:?}");
    }
    assert_eq!(socket.command(json!({"command": "ping"})).await["result"]["position"], "1.0");
    socket.send(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(socket.closed().await, 1003);

    let mut socket = Socket::open(instance.nexus.address()).await;
    let padding = "x".repeat(2_048);
    socket.send(Message::text(json!({"id": 1, "command": "ping", "padding": padding}).to_string())).await;
    assert_eq!(socket.closed().await, 1009);

    let mut socket = Socket::open(instance.nexus.address()).await;
    socket.send(Message::text("x".repeat(100_000))).await;
    assert_eq!(socket.closed().await, 1009, "refused by its length alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_cannot_be_are_refused_and_their_number_is_bounded() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut socket = Socket::open(instance.nexus.address()).await;
    for (command, code) in [
        (json!({"command": "subscribe", "types": []}), "invalid_parameter"),
        (json!({"command": "subscribe", "types": ["walet.*"]}), "invalid_parameter"),
        (json!({"command": "subscribe", "types": ["**"], "after": "2.0"}), "position_unknown"),
        (json!({"command": "subscribe", "types": ["**"], "after": "1.7"}), "position_unknown"),
        (json!({"command": "subscribe", "types": ["**"], "after": "7"}), "malformed_frame"),
        (json!({"command": "unsubscribe", "subscription": "s9"}), "subscription_unknown"),
    ] {
        assert_eq!(socket.command(command.clone()).await["error"]["code"], code, "{command}");
    }
    for _ in 0..32 {
        socket.subscribe(&["**"], None).await;
    }
    let refused = socket.command(json!({"command": "subscribe", "types": ["**"]})).await;
    assert_eq!(refused["error"]["code"], "too_many_subscriptions");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_bound_of_an_instance_are_refused() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.stream.connections_max = 1).await;
    let mut first = Socket::open(instance.nexus.address()).await;
    assert_eq!(first.command(json!({"command": "ping"})).await["result"]["position"], "1.0");
    let opening = Opening { token: Some(token("admin")), ..Opening::default() };
    assert_eq!(opening.open(instance.nexus.address()).await.err(), Some(429));
}

/// More than the network between the two holds.
const LARGE_EVENTS: usize = 3_000;

async fn publish_large(instance: &crate::support::Instance) -> Vec<String> {
    let ids: Vec<String> = (0..LARGE_EVENTS).map(|number| format!("event-{number}")).collect();
    for chunk in ids.chunks(100) {
        let batch: Vec<Value> = chunk.iter().map(|id| large_event(id)).collect();
        assert_eq!(instance.client.post("/v1/events", &json!(batch)).await.status, 201);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pauses_streams_on_from_the_log_and_misses_nothing() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let opening = Opening { token: Some(token("admin")), receive_bytes: Some(8_192), ..Opening::default() };
    let mut socket = opening.open(instance.nexus.address()).await.expect("the token is good");
    socket.subscribe(&["**"], None).await;
    // The client reads nothing meanwhile, and more is published than the instance keeps in memory.
    let published = publish_large(&instance).await;
    let received = socket.events(LARGE_EVENTS).await;
    assert_eq!(ids(&received), published);
    instance.client.publish(&event("live", "a")).await;
    assert_eq!(ids(&socket.events(1).await), ["live"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_keep_up_is_given_the_latest_of_each_subject_of_which_only_that_counts() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let opening = Opening { token: Some(token("admin")), receive_bytes: Some(8_192), ..Opening::default() };
    let mut socket = opening.open(instance.nexus.address()).await.expect("the token is good");
    socket.subscribe(&["**"], None).await;
    let mut published = Vec::new();
    for batch in 0..LARGE_EVENTS / 100 {
        for number in 0..50 {
            published.push(large_event(&format!("large-{batch}-{number}")));
            published.push(event(&format!("small-{batch}-{number}"), ["a", "b"][number % 2]));
        }
        instance.client.publish(&json!(published[batch * 100..])).await;
    }
    let all: Vec<String> = ids(&published).into_iter().map(str::to_owned).collect();
    let mut given = Vec::new();
    while given.last() != all.last() {
        given.extend(ids(&socket.events(1).await).into_iter().map(str::to_owned));
    }
    let places = given.iter().map(|id| all.iter().position(|one| one == id).expect("it was published"));
    assert!(places.is_sorted_by(|one, next| one < next), "in order, and once");
    let large = |ids: &[String]| ids.iter().filter(|id| id.starts_with("large")).cloned().collect::<Vec<_>>();
    assert_eq!(large(&given), large(&all), "of the others it misses none");
    assert!(given.contains(&all[all.len() - 3]), "the last of the other subject");
    let missed = all.len() - given.len();
    assert!(missed > 0, "it kept up");
    // Each time that it is given something it is given the latest of then, and not only at the end.
    let between = given.split(|id| id.starts_with("small")).map(<[String]>::len).max();
    assert!(between < Some(100), "{between:?} others without one of which only the latest counts");
    let counted = metric(&instance.client, "nexus_stream_conflated_total").await;
    assert_eq!(usize::try_from(counted).expect("a count"), missed);
    // Who asks for the past is given all of it.
    let mut socket = Socket::open(instance.nexus.address()).await;
    socket.subscribe(&["**"], Some("1.0")).await;
    assert_eq!(ids(&socket.events(all.len()).await), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_closed_and_resumes_without_loss() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.stream.send_seconds = 1).await;
    let opening = Opening { token: Some(token("admin")), receive_bytes: Some(8_192), ..Opening::default() };
    let mut socket = opening.open(instance.nexus.address()).await.expect("the token is good");
    socket.subscribe(&["**"], None).await;
    let published = publish_large(&instance).await;
    until("the slow client to be closed", async || {
        let metrics = instance.client.get("/metrics").await.text;
        metrics.contains(r#"nexus_stream_closes_total{reason="peer_slow"} 1"#).then_some(())
    })
    .await;
    let mut received = Vec::new();
    while let Next::Frame(mut push) = socket.next().await {
        if push["push"] == "event" {
            received.push(push["event"].take());
        }
    }
    assert!(received.len() < LARGE_EVENTS, "the network held everything, so the client was not slow");
    let mut socket = Socket::open(instance.nexus.address()).await;
    let after = if received.is_empty() { "1.0".to_owned() } else { last_position(&received) };
    socket.subscribe(&["**"], Some(&after)).await;
    received.extend(socket.events(LARGE_EVENTS - received.len()).await);
    assert_eq!(ids(&received), published);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_closed_and_one_that_answers_pings_is_not() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.stream.heartbeat_seconds = 1).await;
    // A client answers pings while it reads; this one does not read.
    let silent = Socket::open(instance.nexus.address()).await;
    let mut alive = Socket::open(instance.nexus.address()).await;
    alive.subscribe(&["**"], None).await;
    let closed = tokio::spawn(async move {
        let mut heartbeats = 0;
        while heartbeats < 4 {
            match alive.next().await {
                Next::Frame(frame) if frame["push"] == "heartbeat" => heartbeats += 1,
                other => return Err(other),
            }
        }
        Ok(alive)
    });
    until("the silent client to be closed", async || {
        let metrics = instance.client.get("/metrics").await.text;
        metrics.contains(r#"nexus_stream_closes_total{reason="peer_silent"} 1"#).then_some(())
    })
    .await;
    let mut silent = silent;
    assert_eq!(silent.closed().await, 4408);
    let mut alive = closed.await.expect("no panic").expect("the client that answers stays");
    assert_eq!(alive.command(json!({"command": "ping"})).await["result"]["position"], "1.0");
}

/// Commands that are sent in one go.
const COMMANDS: i64 = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_a_client_that_reads_nothing_wait_and_cost_no_more_than_their_own_bytes() {
    let world = World::new().await;
    // On a loaded machine it takes nothing for longer than a client may.
    let patient = |config: &mut nexus::config::Config| {
        (config.stream.send_seconds, config.stream.heartbeat_seconds) = (300, 300);
    };
    let instance = world.nexus_with(patient).await;
    let large: Vec<Value> = (0..25).map(|number| large_event(&format!("large-{number}"))).collect();
    instance.client.publish(&json!(large)).await;
    let opening = Opening { token: Some(token("events:read")), receive_bytes: Some(4_096), ..Opening::default() };
    let mut socket = opening.open(instance.nexus.address()).await.expect("the connection is opened");
    for id in 1..=COMMANDS {
        socket.send(Message::text(json!({"id": id, "command": "history"}).to_string())).await;
    }
    let waiting = || metric(&instance.client, "nexus_stream_waiting_bytes");
    // Nothing is read until no more answers are made, which would be 100 MB.
    let (mut most, mut looks) = (0, 0);
    until("answers to wait, and no more to be made", async || {
        let bytes = waiting().await;
        looks = if bytes > 0 && bytes == most { looks + 1 } else { 0 };
        most = bytes;
        (looks == 25).then_some(())
    })
    .await;
    assert!(most < 1_000_000, "{most} bytes waited");
    for id in 1..=COMMANDS {
        let Next::Frame(answer) = socket.next().await else { panic!("closed before answer {id}") };
        assert_eq!((&answer["id"], answer["result"]["events"].as_array().map(Vec::len)), (&json!(id), Some(25)));
    }
    until("nothing to wait", async || (waiting().await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pings_hears_how_far_it_has_come_all_the_same() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.stream.heartbeat_seconds = 1).await;
    let mut socket = Socket::open(instance.nexus.address()).await;
    socket.command(json!({"command": "subscribe", "types": ["health.*"], "subjects": ["system/b"]})).await;
    let position = instance.client.publish(&event("for-a", "a")).await;
    let heartbeat = json!({"push": "heartbeat", "position": position});
    let mut pings = tokio::time::interval(std::time::Duration::from_millis(100));
    // A minute of them.
    for _ in 0..600 {
        socket.send(Message::Ping("p".into())).await;
        tokio::select! {
            next = socket.next() => {
                assert!(matches!(next, Next::Frame(_)), "{next:?}");
                if next == Next::Frame(heartbeat.clone()) {
                    return;
                }
            }
            _ = pings.tick() => {}
        }
    }
    panic!("no heartbeat came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_version_is_refused_with_the_right_one() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let request = instance.client.request(reqwest::Method::GET, "/v1/stream");
    let request =
        request.header("connection", "Upgrade").header("upgrade", "websocket").header("sec-websocket-version", "8");
    let refused = instance.client.send(request).await;
    assert_eq!((refused.status, refused.header("sec-websocket-version")), (400, Some("13")));
}
