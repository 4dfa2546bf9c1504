//! Socket.IO 4 over WebSocket, packet by packet: what the unmodified client sends and expects.

use serde_json::{Value, json};

use crate::support::client::{HS256_KEY, token_of};
use crate::support::people::{ANN, token_of_person};
use crate::support::socket_io::{Client, Next};
use crate::support::{Proxy, World, event, token, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_connects_subscribes_and_receives_events_named_after_their_types() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let mut client = Client::open(two.nexus.address()).await;
    assert_eq!(client.handshake["upgrades"], json!([]));
    assert_eq!((&client.handshake["pingInterval"], &client.handshake["maxPayload"]), (&json!(25_000), &json!(65_536)));
    let connected = client.connect(json!({"token": token("events:read events:write")})).await;
    assert_ne!(connected["sid"], client.handshake["sid"], "the one is public, the other secret");
    let subscribed = client.command("subscribe", json!({"types": ["health.*"]})).await;
    assert_eq!(subscribed["result"], json!({"subscription": "s1", "position": "1.0"}));
    one.client.publish(&event("one", "a")).await;
    let history = one.client.history("").await.body;
    assert_eq!(client.event().await, json!(["health.check", history["events"][0], "1:1.1"]));
    let published = client.command("publish", json!({"event": event("two", "b")})).await;
    assert_eq!(published["result"]["position"], "1.2");
    assert_eq!(client.event().await[1]["id"], "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sends_before_it_is_let_in_is_carried_out_once_it_is() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut client = Client::open(instance.nexus.address()).await;
    client.send(&format!("40{}", json!({"token": token("events:read events:write")}))).await;
    client.send(&format!("421{}", json!(["subscribe", {"types": ["health.*"]}]))).await;
    client.send(&format!("422{}", json!(["publish", {"event": event("at once", "a")}]))).await;
    let mut heads = Vec::new();
    while heads.len() < 4 {
        match client.next().await {
            Next::Packet(packet) if packet == "2" => {}
            Next::Packet(packet) => heads.push(packet[..3.min(packet.len())].to_owned()),
            Next::Closed(code) => panic!("closed with {code}"),
        }
    }
    assert_eq!(heads[..2], ["40{", "431"]);
    // The event and the answer to who published it come as they may.
    heads[2..].sort();
    assert_eq!(heads[2..], ["42[", "432"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_two_subscriptions_gets_an_event_of_both_once() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut client = Client::open(instance.nexus.address()).await;
    client.connect(json!({"token": token("events:read")})).await;
    client.command("subscribe", json!({"types": ["health.*"]})).await;
    client.command("subscribe", json!({"types": ["**"], "subjects": ["system/a"]})).await;
    instance.client.publish(&event("both", "a")).await;
    instance.client.publish(&event("first", "b")).await;
    assert_eq!((&client.event().await[1]["id"], &client.event().await[1]["id"]), (&json!("both"), &json!("first")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_away_is_known_again_on_the_other_instance_and_misses_nothing() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    one.client.publish(&event("old", "a")).await;
    let auth = json!({"token": token("events:read")});
    let mut client = Client::open(one.nexus.address()).await;
    let pid = client.connect(auth.clone()).await["pid"].clone();
    client.command("subscribe", json!({"types": ["**"], "subjects": ["system/a"]})).await;
    drop(client);

    // It has got no event yet, and so has no offset.
    one.client.publish(&event("first", "a")).await;
    let again = |offset: Option<Value>| {
        let mut auth = json!({"token": token("events:read"), "pid": pid});
        if let Some(offset) = offset {
            auth["offset"] = offset;
        }
        auth
    };
    let mut client = Client::open(two.nexus.address()).await;
    assert_eq!(client.connect(again(None)).await["pid"], pid, "this is what makes it recovered");
    let first = client.event().await;
    assert_eq!((&first[1]["id"], &first[2]), (&json!("first"), &json!("1:1.2")));
    // One that replays the past stands behind the other: the offset names both.
    client.command("subscribe", json!({"types": ["**"], "subjects": ["system/b"], "after": "1.0"})).await;
    drop(client);
    one.client.publish(&event("second-a", "a")).await;
    one.client.publish(&event("second-b", "b")).await;

    let mut client = Client::open(one.nexus.address()).await;
    assert_eq!(client.connect(again(Some(first[2].clone()))).await["pid"], pid);
    let (a, b) = (client.event().await, client.event().await);
    assert_eq!((&a[1]["id"], &b[1]["id"]), (&json!("second-a"), &json!("second-b")));
    assert_eq!(b[2], "2:1.4");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_could_not_be_kept_is_not_taken_for_the_one_it_was_before() {
    let world = World::new().await;
    let (redis, redis_url) = Proxy::before(world.config.redis_url.expose()).await;
    let one = world
        .nexus_with(|config| {
            config.redis_url = redis_url.as_str().into();
            config.stream.heartbeat_seconds = 1;
        })
        .await;
    let two = world.nexus().await;
    let mut client = Client::open(one.nexus.address()).await;
    let pid = client.connect(json!({"token": token("events:read")})).await["pid"].clone();
    let of = |subject: &str| json!({"types": ["**"], "subjects": [format!("system/{subject}")]});
    client.command("subscribe", of("a")).await;
    let again = |offset: &Value| json!({"token": token("events:read"), "pid": pid, "offset": offset});

    // Redis has the first one, and never hears of what comes after it.
    redis.cut();
    for command in [("subscribe", of("b")), ("unsubscribe", json!({"subscription": "s1"}))] {
        client.send(&format!("42{}", json!([command.0, command.1]))).await;
        let told = client.event().await;
        assert_eq!(told[0], "not_kept", "{told}");
        let mut other = Client::open(two.nexus.address()).await;
        assert_ne!(other.connect(again(&told[2])).await["pid"], pid, "after {}", command.0);
    }
    // At a heartbeat it is kept after all.
    redis.mend();
    one.client.publish(&event("newest", "b")).await;
    let newest = client.event().await;
    assert_eq!(newest[1]["id"], "newest");
    until("the client to be kept", async || {
        let mut other = Client::open(two.nexus.address()).await;
        let again = other.connect(again(&newest[2])).await;
        (again["pid"] == pid).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_redis_that_ends_alarms_nobody() {
    let world = World::new().await;
    let (redis, redis_url) = Proxy::before(world.config.redis_url.expose()).await;
    let one = world.nexus_with(|config| config.redis_url = redis_url.as_str().into()).await;
    let mut client = Client::open(one.nexus.address()).await;
    client.connect(json!({"token": token("events:read")})).await;
    for round in 0..5 {
        let name = format!("round-{round}");
        redis.cut();
        redis.mend();
        let subscribe = json!({"types": ["**"], "subjects": [format!("system/{name}")], "after": "1.0"});
        client.send(&format!("42{}", json!(["subscribe", subscribe]))).await;
        one.client.publish(&event(&name, &name)).await;
        let told = client.event().await;
        assert_eq!(told[1]["id"], name, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_without_a_right_to_its_room_is_not_taken_for_the_one_it_was() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let of_all = token_of(HS256_KEY, ANN, "events:read", 60);
    let mut client = Client::open(instance.nexus.address()).await;
    let pid = client.connect(json!({"token": of_all})).await["pid"].clone();
    client.command("join", json!({"room": "course/c1"})).await;
    let there = async || instance.client.get("/v1/presence?room=course/c1").await.body["list"].clone();
    assert_eq!(there().await, json!([ANN]));
    // The same person by a token that does not open the room: in place, and when it comes back.
    let refreshed = client.command("refresh", json!({"token": token_of_person(ANN)})).await;
    assert_eq!(refreshed["result"]["subject"], ANN);
    until("the room to be left", async || (there().await == json!([])).then_some(())).await;
    let mut client = Client::open(instance.nexus.address()).await;
    assert_ne!(client.connect(json!({"token": token_of_person(ANN), "pid": pid})).await["pid"], pid);
    let mut client = Client::open(instance.nexus.address()).await;
    assert_eq!(client.connect(json!({"token": of_all, "pid": pid})).await["pid"], pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_it_leaves_is_let_go() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut client = Client::open(instance.nexus.address()).await;
    client.send("1").await;
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_are_no_command_are_counted_as_well() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.throttle.connection_commands_per_second = 2).await;
    let mut client = Client::open(instance.nexus.address()).await;
    let mut codes = Vec::new();
    for _ in 0..20 {
        // Connects and disconnects, each with a look at the token.
        client.send(&format!("40{}", json!({"token": token("events:read")}))).await;
        match client.next().await {
            Next::Packet(packet) if packet.starts_with("40") => client.send("41").await,
            Next::Packet(packet) => codes.push(packet),
            Next::Closed(code) => panic!("closed with {code}"),
        }
    }
    assert!(codes.len() >= 10 && codes.iter().all(|packet| packet.contains("rate_limited")), "{codes:?}");

    let mut client = Client::open(instance.nexus.address()).await;
    client.connect(json!({"token": token("events:read")})).await;
    let first = client.command("subscribe", json!([])).await;
    assert_eq!(first["error"]["code"], "malformed_command");
    until("the next ones to be too many", async || {
        let answer = client.command("subscribe", json!([])).await;
        (answer["error"]["code"] == "rate_limited").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_same_person_is_known_again() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut client = Client::open(instance.nexus.address()).await;
    let pid = client.connect(json!({"token": token("events:read")})).await["pid"].clone();
    client.command("subscribe", json!({"types": ["**"]})).await;
    let other = token_of(HS256_KEY, "somebody-else", "events:read", 60);
    for auth in [
        json!({"token": other, "pid": pid}),
        json!({"token": token("users:read"), "pid": pid}),
        json!({"token": token("events:read"), "pid": "0"}),
        json!({"token": token("events:read"), "pid": pid, "offset": "nonsense"}),
    ] {
        let mut stranger = Client::open(instance.nexus.address()).await;
        assert_ne!(stranger.connect(auth).await["pid"], pid);
        let unsubscribed = stranger.command("unsubscribe", json!({"subscription": "s1"})).await;
        assert_eq!(unsubscribed["error"]["code"], "subscription_unknown", "it has none of the other's");
    }
    // Who leaves of its own will is forgotten.
    client.send("41").await;
    until("the client to be forgotten", async || {
        let mut stranger = Client::open(instance.nexus.address()).await;
        let again = stranger.connect(json!({"token": token("events:read"), "pid": pid})).await;
        (again["pid"] != pid).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_fails_leaves_nothing_behind() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let address = instance.nexus.address();
    instance.client.publish(&event("old", "a")).await;
    let mut client = Client::open(address).await;
    let pid = client.connect(json!({"token": token("events:read")})).await["pid"].clone();
    client.command("subscribe", json!({"types": ["**"]})).await;
    client.command("subscribe", json!({"types": ["health.*"]})).await;
    drop(client);
    instance.client.publish(&event("missed", "a")).await;

    // The place of the first is known, that of the second is not.
    let mut client = Client::open(address).await;
    let auth = json!({"token": token("events:read"), "pid": pid, "offset": "2:1.1;s2=9.9"});
    let fresh = client.connect(auth).await["pid"].clone();
    assert_ne!(fresh, pid);
    client.command("subscribe", json!({"types": ["**"]})).await;
    drop(client);
    instance.client.publish(&event("next", "a")).await;

    let mut client = Client::open(address).await;
    assert_eq!(client.connect(json!({"token": token("events:read"), "pid": fresh})).await["pid"], fresh);
    assert_eq!(client.event().await[1]["id"], "next", "it was subscribed after the one before");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_and_what_is_no_packet_ends_the_connection() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let address = instance.nexus.address();
    let mut client = Client::open(address).await;
    client.send("40").await;
    assert_eq!(
        client.next().await,
        Next::Packet(r#"44{"message":"connect with `auth: { token }`","data":{"code":"token_missing"}}"#.into())
    );
    client.send("40/admin,").await;
    assert_eq!(client.next().await, Next::Packet(r#"44/admin,{"message":"Invalid namespace"}"#.into()));
    client.connect(json!({"token": token("events:read")})).await;
    let refused = client.command("subscribe", json!({"types": ["walet.*"]})).await;
    assert_eq!(refused["error"]["code"], "invalid_parameter");
    assert_eq!(client.command("dance", json!({})).await["error"]["code"], "malformed_command");
    assert_eq!(client.command("publish", json!({"event": event("one", "a")})).await["error"]["code"], "scope_missing");
    client.send(r#"42["unsubscribe",{"subscription":"s9"}]"#).await;
    let told = client.event().await;
    assert_eq!((&told[0], &told[1]["error"]["code"]), (&json!("error"), &json!("subscription_unknown")));

    for (packet, code) in [
        (r#"451-["file",{"_placeholder":true,"num":0}]"#, 4400),
        (r#"42["connect"]"#, 4400),
        ("2", 4400),
        ("9", 4400),
        ("", 4400),
        ("40", 4400),
    ] {
        let mut client = Client::open(address).await;
        client.connect(json!({"token": token("events:read")})).await;
        client.send(packet).await;
        assert_eq!(client.closed().await, code, "{packet}");
    }
    let mut early = Client::open(address).await;
    early.send(r#"42["ping"]"#).await;
    assert_eq!(early.closed().await, 4400, "nothing before it has connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_connection_is_answered_as_the_protocol_says() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    for (path, code, message) in [
        ("/socket.io/?EIO=3&transport=polling", 5, "Unsupported protocol version"),
        ("/socket.io/?EIO=4&transport=polling&sid=a", 1, "Session ID unknown"),
        ("/socket.io/?EIO=4&transport=websocket", 3, "Bad request"),
        ("/socket.io?EIO=4", 0, "Transport unknown"),
    ] {
        let answer = client.get(path).await;
        assert_eq!((answer.status, answer.body), (400, json!({"code": code, "message": message})), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_asks_for_signs_of_life_and_lets_clients_go_when_it_drains() {
    let world = World::new().await;
    let instance = world
        .nexus_with(|config| {
            config.stream.heartbeat_seconds = 1;
            config.limits.drain_seconds = 1;
        })
        .await;
    let mut silent = Client::open(instance.nexus.address()).await;
    silent.connect(json!({"token": token("events:read")})).await;
    assert_eq!(silent.next().await, Next::Packet("2".to_owned()));
    assert_eq!(silent.closed().await, 4408);

    let mut client = Client::open(instance.nexus.address()).await;
    client.connect(json!({"token": token("events:read")})).await;
    for _ in 0..3 {
        assert_eq!(client.next().await, Next::Packet("2".to_owned()));
        client.send("3").await;
    }
    instance.nexus.state().draining.cancel();
    assert_eq!(client.closed().await, 1012);
}
