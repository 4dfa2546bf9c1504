//! More connections than there are places.

use serde_json::{Value, json};

use crate::support::raw::Raw;
use crate::support::socket::Socket;
use crate::support::{Instance, World, event, token};

const LIVE: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
const READY: &str = "GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// An instance with 260 places: two for each client that may be connected, and 256. None is let go for being slow.
async fn instance(world: &World) -> Instance {
    let instance = world.nexus_with(|config| {
        config.stream.connections_max = 2;
        config.limits.head_seconds = 3_600;
    });
    instance.await
}

/// A connection that has been written this.
async fn open(instance: &Instance, bytes: &str) -> Raw {
    let mut raw = Raw::open(instance.nexus.address()).await;
    raw.send(bytes).await;
    raw
}

/// What is still to come of the request of `open_under_way`.
const REST: &str = "}";

/// A connection whose request has begun and is not all there.
async fn open_under_way(instance: &Instance) -> Raw {
    let mut body = event("under-way", "a").to_string();
    assert_eq!(body.pop(), Some('}'));
    let (token, length) = (token("events:write"), body.len() + REST.len());
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
        content-type: application/json\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
    );
    let mut raw = open(instance, &head).await;
    assert_eq!(raw.status().await, 100, "it is asked for the rest, so its request is under way");
    raw.send(&body).await;
    raw
}

/// How many connections ended so before they had brought a whole request.
async fn unread(instance: &Instance, status: u16) -> u32 {
    let metrics = instance.client.get("/metrics").await.text;
    let name = format!(r#"nexus_http_requests_total{{method="other",route="unread",status="{status}"}} "#);
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_flood_of_heads_that_never_end_the_oldest_make_room_and_nobody_else_feels_it() {
    let world = World::new().await;
    let instance = instance(&world).await;
    let mut socket = Socket::open(instance.nexus.address()).await;
    // Older than the flood, and with a request.
    let mut kept = open_under_way(&instance).await;
    // They are accepted in their order.
    let mut slow = Vec::new();
    for _ in 0..600 {
        slow.push(open(&instance, "GET /v1/events HTTP/1.1\r\nx-long: ").await);
    }
    let mut newcomers = Vec::new();
    for request in [LIVE, READY].repeat(10) {
        let mut raw = open(&instance, request).await;
        assert_eq!(raw.status().await, 200, "{request}");
        newcomers.push(raw);
    }
    for raw in &mut slow[..360] {
        assert_eq!(raw.rest().await, "", "the oldest are closed");
    }
    // Some places are held by others that have brought a request.
    for raw in &mut slow[400..] {
        raw.send("x\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(raw.status().await, 401, "the newest are not");
    }
    kept.send(REST).await;
    assert_eq!(kept.status().await, 201);
    assert_eq!(socket.command(json!({"command": "ping"})).await["result"]["position"], "1.1");
    let given_up = unread(&instance, 408).await;
    assert!((360..400).contains(&given_up), "{given_up}");
    assert_eq!(unread(&instance, 503).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_flood_of_connections_kept_alive_those_make_room_that_have_waited_longest() {
    let world = World::new().await;
    let instance = instance(&world).await;
    let mut kept = open_under_way(&instance).await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        let mut raw = open(&instance, LIVE).await;
        assert_eq!(raw.status().await, 200);
        idle.push(raw);
    }
    for raw in &mut idle[..300] {
        assert_eq!(raw.rest().await, "alive\n", "the oldest are closed");
    }
    // Whoever asks again waits anew.
    let again = idle.len() - 200;
    idle[again].send(LIVE).await;
    assert_eq!(idle[again].status().await, 200);
    for _ in 0..200 {
        let mut raw = open(&instance, READY).await;
        assert_eq!(raw.status().await, 200);
        idle.push(raw);
    }
    idle[again].send(LIVE).await;
    assert_eq!(idle[again].status().await, 200);
    kept.send(REST).await;
    assert_eq!(kept.status().await, 201);
    assert_eq!(unread(&instance, 503).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_connections_have_a_request_under_way_a_newcomer_is_refused() {
    let world = World::new().await;
    let instance = instance(&world).await;
    let mut socket = Socket::open(instance.nexus.address()).await;
    let mut holders = Vec::new();
    // The client that has waited for the instance may hold a place, too.
    for _ in 0..255 {
        holders.push(open_under_way(&instance).await);
    }
    let refused = loop {
        let mut raw = open(&instance, LIVE).await;
        let head = raw.answer().await;
        if !head.starts_with("http/1.1 200 ") {
            break (head, raw.rest().await);
        }
        holders.push(open_under_way(&instance).await);
        assert!(holders.len() <= 260, "there are no more places");
    };
    for line in ["http/1.1 503 service unavailable\r\n", "retry-after: 1\r\n", "connection: close\r\n"] {
        assert!(refused.0.contains(line), "{}", refused.0);
    }
    assert!(refused.0.contains("content-type: application/problem+json\r\n"), "{}", refused.0);
    let problem: Value = serde_json::from_str(&refused.1).expect("JSON, and then the end");
    assert_eq!((&problem["status"], &problem["code"]), (&json!(503), &json!("unavailable")));
    for _ in 0..20 {
        assert_eq!(open(&instance, LIVE).await.status().await, 503);
    }
    for raw in &mut holders {
        raw.send(REST).await;
        assert!([200, 201].contains(&raw.status().await), "it keeps its place");
    }
    assert_eq!(socket.command(json!({"command": "ping"})).await["result"]["position"], "1.1");
    assert_eq!(open(&instance, LIVE).await.status().await, 200, "they have been answered, and only wait now");
    assert!(unread(&instance, 503).await >= 21);
}
