//! Hostile clients, each with the answer that it gets: what they present, what they ask for, and what they send.

mod bytes;
mod flood;
mod unfinished;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::client::{HS256_KEY, token_of};
use crate::support::event_source::EventSource;
use crate::support::polling::Polling;
use crate::support::raw::{Raw, frame, upgrade};
use crate::support::socket::{Opening, Socket};
use crate::support::{Instance, World, event, socket_io, token, until};

const ANN: &str = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3a";
const BOB: &str = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3b";

/// Text as a part of a token.
fn encoded(text: &Value) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text.to_string())
}

/// Tokens that nobody may come in with, and why.
fn worthless_tokens() -> Vec<(String, &'static str)> {
    let good = token("admin");
    let parts: Vec<&str> = good.split('.').collect();
    let claims = json!({"sub": "tester", "exp": 4_102_444_800_i64, "scope": "admin"});
    let key = |secret: &str| EncodingKey::from_secret(secret.as_bytes());
    let raised = encoded(&claims);
    let reader = token("events:read:own");
    let reader: Vec<&str> = reader.split('.').collect();
    let mut tokens = vec![
        (token_of(HS256_KEY, "tester", "admin", -60), "token_expired"),
        (token_of("another key, also of more than 32 bytes", "tester", "admin", 60), "token_invalid"),
        // The signature of another token, and no signature.
        (format!("{}.{raised}.{}", reader[0], reader[2]), "token_invalid"),
        (format!("{}.{}.", parts[0], parts[1]), "token_invalid"),
        (format!("{}.{}", parts[0], parts[1]), "token_invalid"),
        (encode(&Header::new(Algorithm::HS384), &claims, &key(HS256_KEY)).expect("sign"), "token_invalid"),
        ("x".repeat(12_000), "token_invalid"),
    ];
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        let header = encoded(&json!({"alg": algorithm, "typ": "JWT"}));
        tokens.push((format!("{header}.{raised}."), "token_invalid"));
        tokens.push((format!("{header}.{raised}.{}", parts[2]), "token_invalid"));
    }
    // Signed as it should be, with a subject that no room can be named after.
    for subject in ["a\0b", "tester\u{1f}user/1", "a\nb"] {
        tokens.push((token_of(HS256_KEY, subject, "admin", 60), "token_invalid"));
    }
    // A key that comes along, or is named by a path.
    for more in [json!({"jwk": {"kty": "oct", "k": "AAAA"}}), json!({"kid": "/dev/null"}), json!({"crit": ["exp"]})] {
        let mut header = json!({"alg": "HS256"});
        header.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let message = format!("{}.{raised}", encoded(&header));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key("\0"), Algorithm::HS256).expect("sign");
        tokens.push((format!("{message}.{signature}"), "token_invalid"));
    }
    tokens
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worthless_token_opens_no_door_of_any_protocol() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let address = instance.nexus.address();
    for (token, code) in worthless_tokens() {
        let shown = &token[..token.len().min(200)];
        let client = instance.client.with_token(Some(token.clone()));
        let written = client.post("/v1/events", &event("forged", "a")).await;
        assert_eq!(written.problem(), (401, code), "{shown}");
        for path in ["/v1/events", "/v1/events?wait=1", "/v1/stream/sse", "/v1/users/1", "/v1/log-filter"] {
            assert_eq!(client.get(path).await.problem(), (401, code), "{path} {shown}");
        }
        let query = format!("/v1/stream/sse?access_token={token}");
        assert_eq!(client.with_token(None).get(&query).await.problem(), (401, code), "{shown}");
        for path in ["/v1/stream", "/socket.io/?EIO=4&transport=websocket"] {
            let mut raw = Raw::open(address).await;
            raw.send(upgrade(path, &format!("authorization: Bearer {token}\r\n"))).await;
            assert_eq!(raw.status().await, 401, "{path} {shown}");
        }

        let mut socket = Opening::default().open(address).await.expect("a connection needs no token");
        let connected = socket.command(json!({"command": "connect", "token": token})).await;
        assert_eq!(connected["error"]["code"], code, "{shown}");
        assert_eq!(socket.closed().await, 4401, "{shown}");

        let connect = format!("40{}", json!({"token": token}));
        let refused = |packet: &str| {
            let told: Value = serde_json::from_str(packet.strip_prefix("44").expect("a connect error")).expect("JSON");
            assert_eq!(told["data"]["code"], code, "{shown}");
        };
        let mut client = socket_io::Client::open(address).await;
        client.send(&connect).await;
        let socket_io::Next::Packet(packet) = client.next().await else { panic!("closed") };
        refused(&packet);
        client.send(r#"421["publish",{}]"#).await;
        assert_eq!(client.closed().await, 4400, "it is not connected");

        let mut polling = Polling::open(&instance.client).await;
        assert_eq!(polling.push(&connect).await.text, "ok");
        refused(&polling.next().await);
    }
    assert_eq!(world.log().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_an_end_in_sight_is_a_token_like_any_other() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let address = instance.nexus.address();
    for exp in [u64::MAX, i64::MAX.unsigned_abs()] {
        let claims = json!({"sub": "tester", "exp": exp, "scope": "admin"});
        let key = EncodingKey::from_secret(HS256_KEY.as_bytes());
        let token = encode(&Header::default(), &claims, &key).expect("sign");
        let opening = Opening { token: Some(token.clone()), ..Opening::default() };
        let mut socket = opening.open(address).await.expect("the token is good");
        assert_eq!(socket.command(json!({"command": "ping"})).await["result"]["position"], "1.0");
        let mut client = socket_io::Client::open(address).await;
        client.connect(json!({"token": token})).await;
        let client = instance.client.with_token(Some(token));
        EventSource::open(&client, "", None).await.next().await.expect("the stream begins");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_ends_what_it_has_opened_by_socket_io() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let auth = || json!({"token": token_of(HS256_KEY, "tester", "events:read", 2)});
    let mut client = socket_io::Client::open(instance.nexus.address()).await;
    client.connect(auth()).await;
    let mut polling = Polling::open(&instance.client).await;
    polling.connect(auth()).await;
    assert_eq!(client.closed().await, 4401);
    assert_eq!(polling.next().await, "1");
    assert_eq!(polling.poll().await.body["code"], 1);
}

/// Bob's wallet, what happens to it, and an event of Ann's at the end.
fn of_bob_and_ann() -> Vec<Value> {
    let of = |id: &str, event_type: &str, subject: &str, data: Value| {
        let mut event = event(id, "a");
        (event["type"], event["subject"], event["data"]) = (json!(event_type), json!(subject), data);
        event
    };
    let wallet = |wallet: &str, person: &str| json!({"wallet_id": wallet, "user_id": person, "currency": "AZR"});
    let money = json!({"amount_minor": 1, "currency": "AZR"});
    let reward = json!({"wallet_id": "b", "money": money, "block_height": 1});
    vec![
        of("bob's wallet", "wallet.created", "wallet/b", wallet("b", BOB)),
        of("bob's reward", "mining.reward", "wallet/b", reward),
        of("ann's wallet", "wallet.created", "wallet/a", wallet("a", ANN)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn another_persons_topics_stay_closed_by_every_door() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let address = instance.nexus.address();
    let token = token_of(HS256_KEY, ANN, "events:read:own", 3_600);
    let ann = instance.client.with_token(Some(token.clone()));
    let subjects = json!(["wallet/b", "wallet/a", format!("user/{BOB}")]);
    let about = |command: &str| json!({"command": command, "types": ["**"], "subjects": subjects});
    let opening = Opening { token: Some(token.clone()), ..Opening::default() };
    let mut socket = opening.open(address).await.expect("the token is good");
    socket.command(about("subscribe")).await;
    let mut wants = about("subscribe");
    wants.as_object_mut().expect("an object").remove("command");
    let mut client = socket_io::Client::open(address).await;
    client.connect(json!({"token": token})).await;
    client.command("subscribe", wants.clone()).await;
    let mut polling = Polling::open(&instance.client).await;
    polling.connect(json!({"token": token})).await;
    polling.command("subscribe", wants).await;
    let mut of_bob = EventSource::open(&ann, "subject=wallet/b", None).await;
    let mut stream = EventSource::open(&ann, "type=**", None).await;

    let mut newest = String::new();
    for event in of_bob_and_ann() {
        newest = instance.client.publish(&event).await;
    }
    assert_eq!(socket.events(1).await[0]["id"], "ann's wallet");
    assert_eq!(client.event().await[1]["id"], "ann's wallet");
    assert_eq!(polling.event().await[1]["id"], "ann's wallet");
    assert_eq!(stream.ids(1).await.0, ["ann's wallet"]);
    for query in ["subject=wallet/b", "subject=wallet/b&wait=1", "type=mining.*"] {
        assert_eq!(ann.history(query).await.body["events"], json!([]), "{query}");
    }
    let history = socket.command(about("history")).await;
    let seen: Vec<&Value> =
        history["result"]["events"].as_array().expect("events").iter().map(|one| &one["id"]).collect();
    assert_eq!(seen, ["ann's wallet"]);
    let asked = format!("/v1/events?user={BOB}");
    assert_eq!(ann.get(&asked).await.problem(), (403, "scope_missing"));
    // A stream of Bob's subject alone has brought nothing up to here.
    instance.nexus.state().draining.cancel();
    while let Some(block) = of_bob.next().await {
        assert_eq!(block.data, None, "after {newest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sends_with_its_request_to_connect_is_carried_out() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let address = instance.nexus.address();
    let (token, publish) = (token("admin"), |id: &str| json!({"event": event(id, "a")}));

    // The request, the token and commands come in one piece, before anything is answered.
    let mut piece = upgrade("/v1/stream", "").into_bytes();
    for command in [
        json!({"id": 1, "command": "connect", "token": token}),
        json!({"id": 2, "command": "subscribe", "types": ["**"]}),
        json!({"id": 3, "command": "publish", "event": event("early", "a")}),
    ] {
        piece.extend(frame(0x81, command.to_string().as_bytes()));
    }
    let mut raw = Raw::open(address).await;
    raw.send(piece).await;
    assert_eq!(raw.status().await, 101);
    let mut ids = Vec::new();
    let mut pushed = None;
    while ids.len() < 3 || pushed.is_none() {
        let told: Value = serde_json::from_str(&raw.text().await.expect("it goes on")).expect("JSON");
        match told["id"].as_i64() {
            Some(id) => ids.push((id, told["error"].is_null())),
            None => pushed = pushed.or_else(|| told["event"]["id"].as_str().map(str::to_owned)),
        }
    }
    assert_eq!((ids, pushed.as_deref()), (vec![(1, true), (2, true), (3, true)], Some("early")));

    let mut piece = upgrade("/socket.io/?EIO=4&transport=websocket", "").into_bytes();
    for packet in [
        format!("40{}", json!({"token": token})),
        format!("421{}", json!(["subscribe", {"types": ["**"]}])),
        format!("422{}", json!(["publish", publish("early too")])),
    ] {
        piece.extend(frame(0x81, packet.as_bytes()));
    }
    let mut raw = Raw::open(address).await;
    raw.send(piece).await;
    assert_eq!(raw.status().await, 101);
    let mut packets = Vec::new();
    for _ in 0..5 {
        packets.push(raw.text().await.expect("it goes on"));
    }
    for head in ["0{", "40{", "431[", "432[", r#"42["health.check""#] {
        assert!(packets.iter().any(|packet| packet.starts_with(head)), "no {head} in {packets:?}");
    }
    assert_eq!(world.log().await.len(), 2);
}

async fn fill(instance: &Instance) -> (Socket, EventSource) {
    let socket = Socket::open(instance.nexus.address()).await;
    (socket, EventSource::open(&instance.client, "", None).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_is_refused_at_every_door_and_those_that_are_open_feel_nothing() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.stream.connections_max = 2).await;
    let (mut socket, stream) = fill(&instance).await;
    for _ in 0..20 {
        let opening = Opening { token: Some(token("admin")), ..Opening::default() };
        assert_eq!(opening.open(instance.nexus.address()).await.err(), Some(429));
        for path in ["/v1/stream/sse", "/v1/events?wait=12", "/socket.io/?EIO=4&transport=polling"] {
            assert_eq!(instance.client.get(path).await.problem(), (429, "overloaded"), "{path}");
        }
        let mut raw = Raw::open(instance.nexus.address()).await;
        raw.send(upgrade("/socket.io/?EIO=4&transport=websocket", "")).await;
        assert_eq!(raw.status().await, 429);
    }
    assert_eq!(socket.command(json!({"command": "ping"})).await["result"]["position"], "1.0");
    drop(stream);
    // There is room again, and what is asked for without a connection was never refused.
    until("a place to be free", async || {
        (instance.client.get("/socket.io/?EIO=4&transport=polling").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(instance.client.get("/v1/events").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_subscriptions_is_refused_and_leaves_nothing_behind() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let auth = json!({"token": token("events:read")});
    let mut client = socket_io::Client::open(instance.nexus.address()).await;
    client.connect(auth.clone()).await;
    let mut polling = Polling::open(&instance.client).await;
    polling.connect(auth).await;
    let too_large = [
        json!({"types": vec!["**"; 17]}),
        json!({"types": ["**"], "subjects": vec!["a"; 129]}),
        json!({"types": ["*".repeat(129)]}),
        json!({"types": [vec!["**"; 60].join(".")]}),
    ];
    for wanted in &too_large[..3] {
        assert_eq!(client.command("subscribe", wanted.clone()).await["error"]["code"], "invalid_parameter", "{wanted}");
    }
    // What is allowed though it looks like work is no work.
    for _ in 0..32 {
        let subscribed = client.command("subscribe", too_large[3].clone()).await;
        assert!(subscribed["error"].is_null() || subscribed["error"]["code"] == "invalid_parameter", "{subscribed}");
        polling.command("subscribe", json!({"types": ["**"]})).await;
    }
    let refused = polling.command("subscribe", json!({"types": ["**"]})).await;
    assert_eq!(refused["error"]["code"], "too_many_subscriptions");
    for round in 0..200 {
        let name = client.command("subscribe", json!({"types": ["**"]})).await["result"]["subscription"].clone();
        let gone = client.command("unsubscribe", json!({"subscription": name})).await;
        assert_eq!(gone["result"], json!({}), "{round}");
    }
    client.command("subscribe", json!({"types": ["health.check"]})).await;
    instance.client.publish(&event("one", "a")).await;
    assert_eq!(client.event().await[1]["id"], "one");
    assert_eq!(polling.event().await[1]["id"], "one");
}
