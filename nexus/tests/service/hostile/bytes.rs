//! Hostile bytes: too slow, too many, packed, nested, or meant for somebody else.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::raw::{Raw, frame, head, upgrade};
use crate::support::{Instance, World, event, socket_io, token};

/// The instance still serves, on a connection of its own.
async fn serves(instance: &Instance) {
    let mut raw = Raw::open(instance.nexus.address()).await;
    let authorization = format!("authorization: Bearer {}\r\n", token("events:read"));
    raw.send(format!("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n{authorization}\r\n")).await;
    assert_eq!(raw.status().await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_byte_by_byte_is_let_go() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| {
        config.limits.head_seconds = 1;
        config.stream.authentication_seconds = 1;
    });
    let instance = instance.await;
    let address = instance.nexus.address();
    let authorization = format!("authorization: Bearer {}\r\n", token("admin"));
    let lead = [
        // A head that never ends, at its beginning and in a header.
        "G".to_owned(),
        format!("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n{authorization}x-long: "),
        // A body that never ends.
        format!(
            "POST /v1/events HTTP/1.1\r\nhost: localhost\r\n{authorization}content-type: application/json\r\n\
            content-length: 100000\r\n\r\n[ "
        ),
        // A WebSocket on which nobody says who it is.
        upgrade("/v1/stream", ""),
        upgrade("/socket.io/?EIO=4&transport=websocket", ""),
    ];
    let slow = lead.map(|lead| async move {
        let mut raw = Raw::open(address).await;
        raw.send(&lead).await;
        if lead.contains("upgrade") {
            raw.send(head(0x81, 1_000)).await;
        }
        raw.drip(b' ').await;
        raw.unread()
    });
    let [begin, within, body, socket, socket_io] = slow;
    let (begin, within, body, socket, socket_io, ()) =
        tokio::join!(begin, within, body, socket, socket_io, serves(&instance));
    for head in [begin, within] {
        assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head}");
    }
    assert!(body.starts_with("HTTP/1.1 400") && body.contains("the body did not arrive in time"), "{body}");
    for socket in [socket, socket_io] {
        assert!(socket.starts_with("HTTP/1.1 101") && socket.contains("authentication_late"), "{socket}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_too_large_is_refused_before_it_comes() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.limits.frame_bytes_max = 2_048).await;
    let address = instance.nexus.address();
    let large: [(Vec<u8>, u16); 6] = [
        (head(0x81, 1 << 40), 1009),
        (head(0x81, u64::MAX), 1009),
        (head(0x01, 2_049), 1009),
        // In fragments, of which each is small.
        ([frame(0x01, &[b' '; 2_000]), head(0x80, 49)].concat(), 1009),
        (head(0x82, 1 << 40), 1003),
        (head(0x89, 126), 1002),
    ];
    for path in ["/v1/stream", "/socket.io/?EIO=4&transport=websocket"] {
        for (bytes, code) in &large {
            let mut raw = Raw::open(address).await;
            raw.send([upgrade(path, "").as_bytes(), bytes].concat()).await;
            assert_eq!(raw.status().await, 101);
            let closed = loop {
                match raw.text().await {
                    // The handshake of Socket.IO.
                    Ok(packet) => assert!(packet.starts_with('0'), "{packet}"),
                    Err(code) => break code,
                }
            };
            assert_eq!(closed, *code, "{path} {bytes:?}");
        }
    }

    let post = format!("POST /v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n", token("admin"));
    for length in ["1048577", "10000000000000"] {
        let mut raw = Raw::open(address).await;
        let begun = Instant::now();
        raw.send(format!("{post}content-type: application/json\r\ncontent-length: {length}\r\n\r\n")).await;
        assert_eq!(raw.status().await, 413, "{length}");
        assert!(begun.elapsed() < Duration::from_secs(8), "it has waited for the body");
    }
    // Chunks that never end.
    let mut raw = Raw::open(address).await;
    raw.send(format!("{post}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")).await;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x1_0000));
    for _ in 0..17 {
        raw.send(&chunk).await;
    }
    assert_eq!(raw.status().await, 413);

    for head in [format!("x-long: {}\r\n", "x".repeat(300_000)), "x: y\r\n".repeat(200)] {
        let mut raw = Raw::open(address).await;
        raw.send(format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{head}\r\n")).await;
        assert_eq!(raw.status().await, 431);
    }
    serves(&instance).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_while_a_body_comes_hears_why_and_goes_on() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let admin = format!("authorization: Bearer {}\r\n", token("admin"));
    let json = format!("{admin}content-type: application/json\r\n");
    let body = " ".repeat(2 * 1024 * 1024);
    for (path, headers, status) in [
        ("/v1/events", &json, 413),
        ("/v1/events", &"content-type: application/json\r\n".to_owned(), 401),
        ("/v1/events", &format!("{json}content-encoding: gzip\r\n"), 415),
        ("/v1/nothing", &json, 404),
    ] {
        let mut raw = Raw::open(instance.nexus.address()).await;
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        raw.send(head).await;
        let answer = raw.answer().await;
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "before the body: {answer}");
        assert!(raw.send(&body).await, "{path} {status}: the rest is taken");
        let problem = raw.chunks().await;
        assert!(problem.contains(&format!(r#""status":{status}"#)), "{problem}");
        raw.send(format!("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n{admin}\r\n")).await;
        assert_eq!(raw.status().await, 200, "after {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_that_was_refused_is_taken_up_to_a_bound() {
    const CHUNK_BYTES: usize = 64 * 1024;
    // Those that Nexus takes, and what the network holds of both sides.
    const TAKEN_MAX: usize = (8 + 24) * 1024 * 1024;
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut raw = Raw::open(instance.nexus.address()).await;
    raw.send("POST /v1/events HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n").await;
    assert_eq!(raw.status().await, 401);
    let chunk = format!("{CHUNK_BYTES:x}\r\n{}\r\n", "0".repeat(CHUNK_BYTES));
    let mut taken = 0;
    while raw.send(&chunk).await {
        taken += CHUNK_BYTES;
        assert!(taken <= TAKEN_MAX, "more than {TAKEN_MAX} bytes were taken");
    }
    serves(&instance).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_unpacked() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let address = instance.nexus.address();
    for coding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP"] {
        let request = instance.client.request(reqwest::Method::POST, "/v1/events").json(&event("packed", "a"));
        let refused = instance.client.send(request.header("content-encoding", coding)).await;
        assert_eq!(refused.problem(), (415, "media_type_unsupported"), "{coding}");
    }
    for path in ["/v1/stream", "/socket.io/?EIO=4&transport=websocket"] {
        let mut raw = Raw::open(address).await;
        let offer = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n";
        raw.send([upgrade(path, offer).into_bytes(), frame(0xc1, b"\x4a\x4c\x04\x00")].concat()).await;
        let answer = raw.answer().await;
        assert!(answer.starts_with("http/1.1 101") && !answer.contains("sec-websocket-extensions"), "{answer}");
        let closed = loop {
            match raw.text().await {
                Ok(packet) => assert!(packet.starts_with('0'), "{packet}"),
                Err(code) => break code,
            }
        };
        assert_eq!(closed, 1002, "a packed frame was never agreed on");
    }
    assert_eq!(world.log().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_nested_without_end_is_refused_and_does_no_harm() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.limits.frame_bytes_max = 1024 * 1024).await;
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let request = instance.client.request(reqwest::Method::POST, "/v1/events");
    let request = request.header("content-type", "application/json").body(deep.clone());
    assert_eq!(instance.client.send(request).await.problem(), (400, "malformed_body"));

    let mut raw = Raw::open(instance.nexus.address()).await;
    let connect = json!({"id": 1, "command": "connect", "token": token("admin")}).to_string();
    let publish = format!(r#"{{"id":2,"command":"publish","event":{deep}}}"#);
    let frames = [frame(0x81, connect.as_bytes()), frame(0x81, publish.as_bytes())].concat();
    raw.send([upgrade("/v1/stream", "").into_bytes(), frames].concat()).await;
    assert_eq!(raw.status().await, 101);
    raw.text().await.expect("it is connected");
    let refused: Value = serde_json::from_str(&raw.text().await.expect("it is answered")).expect("JSON");
    assert_eq!(refused["error"]["code"], "malformed_frame");

    let mut client = socket_io::Client::open(instance.nexus.address()).await;
    client.connect(json!({"token": token("admin")})).await;
    client.send(&format!(r#"421["publish",{{"event":{deep}}}]"#)).await;
    let socket_io::Next::Packet(refused) = client.next().await else { panic!("closed") };
    assert!(refused.starts_with("431[") && refused.contains("malformed_command"), "{refused}");
    serves(&instance).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_what_it_says_and_a_header_changes_neither_path_nor_caller() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let address = instance.nexus.address();
    let authorization = format!("authorization: Bearer {}\r\n", token("events:read"));
    for (target, status) in [
        ("/v1/events", 200),
        // By the path alone, whatever host it names.
        ("http://elsewhere.example/v1/events", 200),
        ("/v1/events/", 404),
        ("//v1/events", 404),
        ("/v1//events", 404),
        ("/V1/events", 404),
        ("/v1/./events", 404),
        ("/livez/../v1/events", 404),
        ("/v1/%2e%2e/v1/events", 404),
        ("/v1%2fevents", 404),
        ("/v1/events;a=b", 404),
        ("/v1/events%00", 404),
        ("/v1/events?type=**&type=wallet.*", 400),
        ("/v1/events?subject=%00", 200),
        ("/v1/events?user=%00", 400),
        ("/v1/events?limit=-1", 400),
        ("/v1/events?limit=18446744073709551616", 400),
        ("/v1/events?after=1.9223372036854775807", 409),
        ("/v1/events?after=2147483647.9223372036854775807", 409),
        ("/v1/events?since=-009999-01-03T00:00:00Z", 200),
        ("/v1/events?until=9999-12-30T22:00:00Z", 200),
        ("/v1/events?until=10000-01-01T00:00:00Z", 400),
        ("/v1/users/..%2f..%2fhealth", 400),
        ("/v1/users/%27%20OR%201=1", 400),
    ] {
        let mut raw = Raw::open(address).await;
        raw.send(format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{authorization}\r\n")).await;
        assert_eq!(raw.status().await, status, "{target}");
    }
    let twice = authorization.repeat(2);
    for (headers, status) in [
        (&*twice, 401),
        // Who a proxy says it is, what it says was asked for, and another method.
        ("x-forwarded-user: admin\r\nx-original-url: /metrics\r\nx-http-method-override: DELETE\r\n", 401),
        ("authorization: Basic YWRtaW46YWRtaW4=\r\n", 401),
        ("cookie: token=admin\r\n", 401),
        ("nexus-forwarded: 1\r\n", 401),
        ("content-length: 1\r\ncontent-length: 2\r\n", 400),
        ("content-length: -1\r\n", 400),
        ("transfer-encoding: gzip\r\n", 400),
        ("transfer-encoding : chunked\r\n", 400),
        ("x: y\r\n z\r\n", 400),
        ("x\0: y\r\n", 400),
    ] {
        let mut raw = Raw::open(address).await;
        raw.send(format!("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n")).await;
        assert_eq!(raw.status().await, status, "{headers:?}");
    }
    let mut raw = Raw::open(address).await;
    raw.send(format!("POST /v1/stream HTTP/1.1\r\n{}", &upgrade("/", "")["GET / HTTP/1.1\r\n".len()..])).await;
    assert_eq!(raw.status().await, 405);
    serves(&instance).await;
}
