//! Socket.IO 4 by polling, request by request, and its way to a WebSocket.

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use nexus::config::Config;
use redis::AsyncTypedCommands as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::polling::Polling;
use crate::support::raw::{Raw, upgrade};
use crate::support::socket_io::{Client, Next};
use crate::support::{World, event, metric, token, until};

fn auth() -> Value {
    json!({"token": token("events:read events:write")})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_polls_connects_commands_and_gets_what_is_published() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let mut client = Polling::open(&two.client).await;
    assert_eq!(client.handshake["upgrades"], json!(["websocket"]));
    let connected = client.connect(auth()).await;
    assert_ne!(connected["sid"], client.handshake["sid"], "the one is public, the other secret");
    let subscribed = client.command("subscribe", json!({"types": ["health.*"]})).await;
    assert_eq!(subscribed["result"]["subscription"], "s1");
    // The first comes to a poll that waits, the others while none does.
    let waiting = client.poll_aside();
    one.client.publish(&event("one", "a")).await;
    let answer = waiting.await.expect("it is answered");
    assert!(
        answer.text.starts_with(r#"42["health.check",{"#) && answer.text.contains(r#""id":"one""#),
        "{}",
        answer.text
    );
    one.client.publish(&event("two", "a")).await;
    one.client.publish(&event("three", "a")).await;
    assert_eq!((&client.event().await[1]["id"], &client.event().await[1]["id"]), (&json!("two"), &json!("three")));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_packets_of_one_push_are_carried_out_in_their_order() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut client = Polling::open(&instance.client).await;
    let publish = json!(["publish", {"event": event("pushed", "a")}]);
    let body = format!("40{}\x1e421[\"subscribe\",{{\"types\":[\"**\"]}}]\x1e422{publish}\x1e3", auth());
    assert_eq!(client.push(&body).await.text, "ok");
    let heads = ["40{", "431[", "432[", "42["];
    for head in heads {
        let packet = client.next().await;
        assert!(packet.starts_with(head), "{packet} instead of {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_before_a_binary_packet_is_carried_out_and_the_refusal_told() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut client = Polling::open(&instance.client).await;
    client.connect(auth()).await;
    let publish = json!(["publish", {"event": event("before", "a")}]);
    let binary = json!(["publish", {"event": {"_placeholder": true, "num": 0}}]);
    let pushed = client.push(&format!("421{publish}\x1e451-{binary}\x1ebAQID\x1e422{publish}")).await;
    assert_eq!((pushed.status, &*pushed.text), (200, "ok"));
    let published = client.next().await;
    assert!(published.starts_with(r#"431[{"result":"#), "{published}");
    let told = client.event().await;
    assert_eq!((&told[0], &told[1]["error"]["code"]), (&json!("error"), &json!("invalid_packet")));
    assert_eq!(client.next().await, "1");
    assert_eq!(client.poll().await.body["code"], 1);
    assert_eq!(world.log().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_moves_to_a_websocket_and_misses_nothing() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut client = Polling::open(&instance.client).await;
    client.connect(auth()).await;
    client.command("subscribe", json!({"types": ["health.*"]})).await;

    let waiting = client.poll_aside();
    let mut socket = Client::upgrade(instance.nexus.address(), client.sid()).await;
    socket.send("2probe").await;
    assert_eq!(socket.next().await, Next::Packet("3probe".to_owned()));
    assert_eq!(waiting.await.expect("it is answered").text, "6", "the client waits for its end");
    // One more, sent before the client saw the answer to its probe, ends at once too, with whatever is due.
    assert_eq!(client.poll().await.text, "6");
    instance.client.publish(&event("probed", "a")).await;
    let answer = until("the event to come by a poll", async || {
        let answer = client.poll().await;
        (answer.text != "6").then_some(answer)
    });
    assert!(answer.await.text.contains(r#""id":"probed""#));
    // This one waits for the WebSocket.
    instance.client.publish(&event("between", "a")).await;
    socket.send("5").await;
    assert_eq!(socket.event().await[1]["id"], "between");
    socket.send("3").await;
    instance.client.publish(&event("after", "a")).await;
    assert_eq!(socket.event().await[1]["id"], "after");

    let late = client.poll().await;
    assert_eq!((late.status, &late.body["code"]), (400, &json!(1)));
    socket.send("42[\"ping\"]").await;
    let pinged = socket.command("ping", json!({})).await;
    assert_eq!(pinged["result"]["position"], "1.3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_is_not_what_it_should_be_leaves_the_client_polling() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut client = Polling::open(&instance.client).await;
    client.connect(auth()).await;
    for wrong in ["5", "2", "40", "nonsense"] {
        let mut socket = Client::upgrade(instance.nexus.address(), client.sid()).await;
        socket.send(wrong).await;
        assert_eq!(socket.closed().await, 1006, "{wrong}");
    }
    // One that leaves after its probe was answered, too.
    let mut socket = Client::upgrade(instance.nexus.address(), client.sid()).await;
    socket.send("2probe").await;
    assert_eq!(socket.next().await, Next::Packet("3probe".to_owned()));
    // A second one is closed, and does not disturb the first.
    let mut second = Client::upgrade(instance.nexus.address(), client.sid()).await;
    assert_eq!(second.closed().await, 1006);
    drop(socket);
    assert_eq!(client.command("ping", json!({})).await["result"]["position"], "1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_against_the_protocol_are_refused_as_clients_expect() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let unknown = instance.client.get("/socket.io/?EIO=4&transport=polling&sid=0123456789abcdef").await;
    assert_eq!((unknown.status, unknown.body), (400, json!({"code": 1, "message": "Session ID unknown"})));

    // Two polls at once: the session is over.
    let client = Polling::open(&instance.client).await;
    let (one, two) = tokio::join!(client.poll(), client.poll());
    let mut ends = [(one.status, one.text), (two.status, two.text)];
    ends.sort();
    assert_eq!(ends[0], (200, "1".to_owned()));
    assert_eq!(ends[1].0, 400);
    assert_eq!(client.poll().await.status, 400);

    for body in ["", "7", "4hello\x1e", "bAQIDBA==", "2"] {
        let client = Polling::open(&instance.client).await;
        let pushed = client.push(body).await;
        until("the session to be over", async || (client.poll().await.status == 400).then_some(())).await;
        // Two of them are packets, if none that the session takes.
        let want = if ["bAQIDBA==", "2"].contains(&body) { 200 } else { 400 };
        assert_eq!(pushed.status, want, "{body:?}");
    }

    // A push that is too large, or has too many packets, is no end.
    let mut client = Polling::open(&instance.client).await;
    assert_eq!(client.push(&"4".repeat(65_537)).await.status, 413);
    assert_eq!(client.push(&vec!["3"; 65].join("\x1e")).await.status, 413);
    assert_eq!(client.push(&vec!["3"; 64].join("\x1e")).await.text, "ok");
    client.connect(auth()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_client_says_so_or_does_not_say_who_it_is() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.stream.authentication_seconds = 1).await;
    let open = || metric(&instance.client, "nexus_stream_connections");
    let mut client = Polling::open(&instance.client).await;
    client.connect(auth()).await;
    assert_eq!(client.push("41\x1e1").await.text, "ok");
    assert_eq!(client.poll().await.body["code"], 1);

    let silent = Polling::open(&instance.client).await;
    assert_eq!(silent.poll().await.text, "1");
    assert_eq!(silent.poll().await.body["code"], 1);
    until("both to be gone", async || (open().await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_polls_is_pinged_and_one_that_does_not_is_given_up() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| {
        config.stream.heartbeat_seconds = 1;
        config.stream.send_seconds = 1;
    });
    let instance = instance.await;
    let mut client = Polling::open(&instance.client).await;
    client.connect(auth()).await;
    assert_eq!(client.next().await, "2");
    assert_eq!(client.push("3").await.text, "ok");
    assert_eq!(client.next().await, "2");
    // From here on it says nothing.
    let open = || metric(&instance.client, "nexus_stream_connections");
    until("it to be given up", async || (open().await == 0).then_some(())).await;
    assert_eq!(client.poll().await.body["code"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_leaves_ends_its_sessions_and_they_go_on_at_another() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let mut client = Polling::open(&one.client).await;
    let pid = client.connect(auth()).await["pid"].clone();
    client.command("subscribe", json!({"types": ["health.*"]})).await;
    one.nexus.state().draining.cancel();
    until("the session to be over", async || (client.poll().await.status == 400).then_some(())).await;
    two.client.publish(&event("meanwhile", "a")).await;
    let mut client = Polling::open(&two.client).await;
    let mut again = auth();
    again["pid"] = pid.clone();
    assert_eq!(client.connect(again).await["pid"], pid, "this is what makes it recovered");
    assert_eq!(client.event().await[1]["id"], "meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_pod_answers_for_the_one_that_holds_the_session() {
    let world = World::new().await;
    let (one, two) = (world.pod().await, world.pod().await);
    let client = Polling::open(&one.client).await;
    let mut elsewhere = client.at(&two.client);
    until("the pod to be found", async || (elsewhere.push("3").await.status == 200).then_some(())).await;
    elsewhere.connect(auth()).await;
    elsewhere.command("subscribe", json!({"types": ["health.*"]})).await;
    two.client.publish(&event("polled", "a")).await;
    assert_eq!(elsewhere.event().await[1]["id"], "polled");
    assert_eq!(metric(&two.client, "nexus_stream_connections").await, 0, "the other one holds it");

    let mut socket = Client::upgrade(two.nexus.address(), client.sid()).await;
    socket.send("2probe").await;
    assert_eq!(socket.next().await, Next::Packet("3probe".to_owned()));
    socket.send("5").await;
    two.client.publish(&event("pushed", "a")).await;
    assert_eq!(socket.event().await[1]["id"], "pushed");

    // A WebSocket that the other one drops holds no place here, whatever its client does.
    let held = Polling::open(&one.client).await;
    let mut first = Client::upgrade(two.nexus.address(), held.sid()).await;
    let second = Client::upgrade(two.nexus.address(), held.sid()).await;
    until("the second one to be let go", async || {
        (metric(&two.client, "nexus_stream_connections").await == 2).then_some(())
    })
    .await;
    first.send("2probe").await;
    assert_eq!(first.next().await, Next::Packet("3probe".to_owned()));
    drop((first, second));

    // What nobody holds is refused by both; a name that no pod has leads nowhere.
    let unknown = "/socket.io/?EIO=4&transport=polling&sid=00000000ffffffff";
    assert_eq!(two.client.get(unknown).await.body["code"], 1);
    // A request that was sent on is not sent on again.
    let client = Polling::open(&one.client).await;
    let marked = two.client.request(reqwest::Method::GET, &client.path()).header("nexus-forwarded", "1");
    assert_eq!(two.client.send(marked).await.body["code"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_drains_lets_the_websockets_that_it_passes_on_go_one_by_one() {
    let world = World::new().await;
    let holder = world.pod().await;
    // The delay of each is random: by an hour it comes at once for nobody, by none for everybody.
    for (drain_seconds, leaves) in [(3_600, false), (0, true)] {
        let middle = world.nexus_with(|config| config.limits.drain_seconds = drain_seconds).await;
        let session = Polling::open(&holder.client).await;
        let mut elsewhere = session.at(&middle.client);
        until("the pod to be found", async || (elsewhere.push("3").await.status == 200).then_some(())).await;
        elsewhere.connect(auth()).await;
        let mut socket = Client::upgrade(middle.nexus.address(), session.sid()).await;
        socket.send("2probe").await;
        assert_eq!(socket.next().await, Next::Packet("3probe".to_owned()));
        socket.send("5").await;
        socket.command("subscribe", json!({"types": ["health.*"]})).await;
        middle.nexus.state().draining.cancel();
        if leaves {
            // Without a close frame: nobody on the way knows where one may stand.
            assert_eq!(socket.closed().await, 1006);
            let passed_on = || metric(&middle.client, "nexus_stream_connections");
            until("the place to be free", async || (passed_on().await == 0).then_some(())).await;
            until("the session to be over", async || (session.poll().await.status == 400).then_some(())).await;
        } else {
            assert_eq!(socket.command("ping", json!({})).await["result"]["position"], "1.0");
        }
    }
}

/// What a pod of the version before answers: it marks a request by the header's presence.
async fn pod_of_before() -> std::net::SocketAddr {
    let answer = get(|headers: HeaderMap| async move {
        let mark = headers.get("nexus-forwarded").and_then(|mark| mark.to_str().ok());
        (StatusCode::OK, format!("4marked {}", mark.unwrap_or("by nothing")))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/socket.io/", answer)).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_the_version_before_are_asked_and_answered() {
    let world = World::new().await;
    let pod = world.pod().await;
    // It says an address and no secret.
    let mut redis = pod.nexus.state().redis.clone();
    let key = format!("{}pod:00c0ffee", world.config.redis_prefix);
    redis.set_ex(key, pod_of_before().await.to_string(), 60).await.expect("Redis is there");
    let path = |sid: &str| format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    assert_eq!(pod.client.get(&path("00c0ffee0123456789abcdef")).await.text, "4marked 1");

    // It sends no secret.
    let client = Polling::open(&pod.client).await;
    let marked = pod.client.request(reqwest::Method::POST, &path(client.sid())).header("nexus-forwarded", "1");
    assert_eq!(pod.client.send(marked.body("3")).await.text, "ok");
    let mut raw = Raw::open(pod.nexus.address()).await;
    let target = format!("/socket.io/?EIO=4&transport=websocket&sid={}", client.sid());
    raw.send(upgrade(&target, "nexus-forwarded: 1\r\n")).await;
    assert_eq!(raw.status().await, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_is_refused_at_every_step() {
    let world = World::new().await;
    let listed = |config: &mut Config| config.allowed_origins = vec!["https://azora.example".to_owned()];
    let instance = world.nexus_with(listed).await;
    for (origin, allowed) in [("https://azora.example", true), ("https://evil.example", false), ("null", false)] {
        let session = Polling::open(&instance.client).await;
        let asked = async |method: reqwest::Method, path: &str| {
            let request = instance.client.request(method, path).header("origin", origin);
            instance.client.send(request.body("3")).await
        };
        let answers = [
            asked(reqwest::Method::GET, "/socket.io/?EIO=4&transport=polling").await,
            asked(reqwest::Method::POST, &session.path()).await,
            asked(reqwest::Method::GET, &session.path()).await,
        ];
        for answer in answers {
            if allowed {
                assert_eq!(answer.status, 200, "{}", answer.text);
            } else {
                assert_eq!(answer.problem(), (403, "origin_refused"), "{origin}");
            }
        }
        let of_session = format!("&sid={}", session.sid());
        for (path, sid) in [("/socket.io/", ""), ("/socket.io", ""), ("/socket.io/", &*of_session)] {
            let mut raw = Raw::open(instance.nexus.address()).await;
            raw.send(upgrade(&format!("{path}?EIO=4&transport=websocket{sid}"), &format!("origin: {origin}\r\n")))
                .await;
            assert_eq!(raw.status().await, if allowed { 101 } else { 403 }, "{origin} {path} {sid}");
        }
    }
}
