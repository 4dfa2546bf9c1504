//! How often a caller may ask: over all pods, with the standing told, and the same on sockets.

use std::time::{Duration, Instant};

use nexus::config::Config;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::people::{ANN, BOB, as_person, open};
use crate::support::polling::Polling;
use crate::support::socket::Socket;
use crate::support::{Answer, Client, Proxy, World, free_port, token, until};

/// What a person may ask for at once, and then each second.
const BURST: u32 = 10;
const PER_SECOND: u32 = 5;

fn slowly(config: &mut Config) {
    config.throttle.person_requests_per_second = PER_SECOND;
}

async fn ask(client: &Client) -> Answer {
    client.get("/v1/events?limit=1").await
}

/// So much can have come back since then, at most.
fn back(since: Instant, per_second: u32) -> f64 {
    (since.elapsed().as_secs_f64() * f64::from(per_second)).ceil()
}

/// What is left, as the answer tells it.
fn left(answer: &Answer) -> Option<f64> {
    answer.header("ratelimit")?.split(';').find_map(|part| part.strip_prefix("r=")?.parse().ok())
}

/// Asks until it is refused, in turns; the refusal.
async fn until_refused(clients: &[&Client]) -> Answer {
    let begun = Instant::now();
    let mut passed = 0_u32;
    loop {
        let answer = ask(clients[passed as usize % clients.len()]).await;
        if answer.status != 200 {
            // What comes back while it is asked passes too.
            let most = f64::from(BURST) + back(begun, PER_SECOND);
            assert!((f64::from(BURST)..=most).contains(&f64::from(passed)), "{passed} passed, at most {most}");
            return answer;
        }
        passed += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_asks_so_often_over_all_pods_and_is_told_when_to_come_back() {
    let world = World::new().await;
    let (one, two) = (world.nexus_with(slowly).await, world.nexus_with(slowly).await);
    let (here, there) = (as_person(&one.client, ANN), as_person(&two.client, ANN));
    let begun = Instant::now();
    let first = ask(&here).await;
    assert_eq!(first.header("ratelimit-policy"), Some("\"person\";q=10;w=2"));
    assert_eq!(first.header("ratelimit"), Some("\"person\";r=9;t=2"));
    let second = left(&ask(&there).await).expect("it is told");
    assert!((8.0..=8.0 + back(begun, PER_SECOND)).contains(&second), "{second}");
    // Another person has a bucket of his own, which is full.
    let refused = until_refused(&[&as_person(&one.client, BOB), &as_person(&two.client, BOB)]).await;
    assert_eq!(refused.problem(), (429, "rate_limited"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("ratelimit"), Some("\"person\";r=0;t=1"));
    let metrics = [one.client.get("/metrics").await.text, two.client.get("/metrics").await.text].concat();
    assert!(metrics.contains("nexus_throttled_total{policy=\"person\"} 1"), "{metrics}");

    // A service is not bounded unless that is asked for.
    for _ in 0..3 * BURST {
        let answer = ask(&one.client).await;
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
    }
    until("the bucket to fill again", async || (ask(&as_person(&one.client, BOB)).await.status == 200).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_told_in_an_error_frame_and_goes_on() {
    let world = World::new().await;
    let instance = world.nexus_with(slowly).await;
    let mut socket = open(&instance.client, ANN).await;
    socket.subscribe(&["**"], None).await;
    let client = as_person(&instance.client, ANN);
    // Fewer times than a bucket of its own would let pass: on a busy machine one place may come back in between.
    let mut asked = 0;
    let refused = until("a command to be refused, and what is asked then over HTTP", async || {
        let answer = socket.command(json!({"command": "ping"})).await;
        let refused = answer.get("error")?.clone();
        asked += 1;
        assert!(asked < BURST, "the bucket is the same");
        (ask(&client).await.status == 429).then_some(refused)
    })
    .await;
    assert_eq!(refused["code"], "rate_limited");
    let wait = refused["retry_after_ms"].as_u64().expect("a number");
    assert!((1..=201).contains(&wait), "{wait}");
    until("a command to pass", async || socket.command(json!({"command": "ping"})).await.get("result").cloned()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_bounded_whoever_has_it() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.throttle.connection_commands_per_second = 2).await;
    let mut socket = Socket::open(instance.nexus.address()).await;
    let begun = Instant::now();
    let mut passed = 0.0;
    let refused = until("a command to be refused", async || {
        let answer = socket.command(json!({"command": "ping"})).await;
        passed += 1.0;
        answer.get("error").cloned()
    });
    assert_eq!(refused.await["code"], "rate_limited");
    assert!((5.0..=5.0 + back(begun, 2)).contains(&passed), "{passed}");
    let mut other = Socket::open(instance.nexus.address()).await;
    assert!(other.command(json!({"command": "ping"})).await.get("result").is_some());
    // What is no command is counted like one.
    until("what is no command to be refused as one too many", async || {
        let answer = other.command(json!({"no": "command"})).await;
        (answer["error"]["code"] == "rate_limited").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_bounded_whoever_asks_and_what_it_claims_to_be_does_not_help() {
    let world = World::new().await;
    let change = |config: &mut Config| {
        config.throttle.address_requests_per_second = PER_SECOND;
        config.throttle.address_connections_max = 1;
        config.throttle.proxies = 1;
    };
    let instance = world.unready_nexus_with(change).await;
    until("the instance to be ready", async || (instance.client.get("/readyz").await.status == 200).then_some(()))
        .await;
    let client = instance.client.with_token(Some("forged".to_owned()));
    let from = async |forwarded: &str, path: &str| {
        client.send(client.request(Method::GET, path).header("x-forwarded-for", forwarded)).await
    };
    let mut answers = Vec::new();
    for number in 0..2 * BURST {
        // Only what the proxy has added counts.
        answers.push(from(&format!("10.0.0.{number}, 192.0.2.1"), "/v1/users/1").await);
    }
    let refused = answers.iter().find(|answer| answer.status != 401).expect("one is refused");
    assert_eq!(refused.problem(), (429, "rate_limited"));
    assert!(refused.header("ratelimit-policy").is_some_and(|policy| policy.starts_with("\"address\"")));
    assert!(answers.iter().filter(|answer| answer.status == 401).count() >= BURST as usize);
    assert_eq!(from("192.0.2.2", "/v1/users/1").await.status, 401, "another address");
    for _ in 0..2 * BURST {
        assert_eq!(from("192.0.2.1", "/livez").await.status, 200, "a probe is always answered");
    }

    let stream = async |address: &str| {
        let request = instance.client.request(Method::GET, "/v1/stream/sse").header("x-forwarded-for", address);
        request.send().await.expect("an answer")
    };
    let first = stream("192.0.2.3").await;
    assert_eq!((first.status().as_u16(), stream("192.0.2.3").await.status().as_u16()), (200, 429));
    assert_eq!(stream("192.0.2.4").await.status(), 200);
    drop(first);
    until("the place to be free", async || (stream("192.0.2.3").await.status() == 200).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_count_by_address_however_many_connections_and_people_send_them() {
    let world = World::new().await;
    let change = |config: &mut Config| config.throttle.address_requests_per_second = PER_SECOND;
    let instance = world.nexus_with(change).await;
    let begun = Instant::now();
    let (mut ann, mut bob) = (open(&instance.client, ANN).await, open(&instance.client, BOB).await);
    // Each with the request that opened it.
    let mut asked = 2;
    let refused = until("a command to be refused", async || {
        let socket = if asked % 2 == 0 { &mut ann } else { &mut bob };
        let answer = socket.command(json!({"command": "ping"})).await;
        asked += 1;
        answer.get("error").cloned()
    })
    .await;
    assert_eq!(refused["code"], "rate_limited");
    let (passed, most) = (f64::from(asked - 1), f64::from(BURST) + back(begun, PER_SECOND));
    assert!((f64::from(BURST)..=most).contains(&passed), "{passed} passed, at most {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_pod_hands_on_is_not_counted_and_nobody_else_can_say_so() {
    let world = World::new().await;
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let bounded = |config: &mut Config| {
        config.listen = address.parse().expect("it is an address");
        config.advertise = Some(address.clone());
        config.throttle.address_requests_per_second = PER_SECOND;
    };
    let (bounded, free) = (world.nexus_with(bounded).await, world.nexus().await);
    let session = Polling::open(&bounded.client).await;
    let mut elsewhere = session.at(&free.client);
    until("the pod to be found", async || (elsewhere.push("3").await.status == 200).then_some(())).await;
    elsewhere.connect(json!({"token": token("admin")})).await;
    for path in [session.path(), session.path().replace("/?", "?")] {
        for _ in 0..3 * BURST {
            let pushed = free.client.send(free.client.request(Method::POST, &path).body("3")).await;
            assert_eq!((pushed.status, &*pushed.text), (200, "ok"), "{path}");
        }
    }
    for mark in ["1", "", "00000000000000000000000000000000"] {
        let forged = async || {
            let request = bounded.client.request(Method::POST, &session.path()).header("nexus-forwarded", mark);
            bounded.client.send(request.body("3")).await
        };
        let refused = until("it to be refused", async || Some(forged().await).filter(|answer| answer.status == 429));
        assert_eq!(refused.await.problem(), (429, "rate_limited"), "{mark:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_pod_counts_alone() {
    let world = World::new().await;
    let (proxy, url) = Proxy::before(world.config.redis_url.expose()).await;
    let instance = world
        .nexus_with(|config| {
            slowly(config);
            config.throttle.person_connections_max = 1;
            config.redis_url = url.as_str().into();
        })
        .await;
    proxy.cut();
    let ann = as_person(&instance.client, ANN);
    let refused = until_refused(&[&ann]).await;
    assert_eq!(refused.problem(), (429, "rate_limited"));
    let mut bob = open(&instance.client, BOB).await;
    let answer: Value = bob.command(json!({"command": "presence", "room": format!("user/{BOB}")})).await;
    assert_eq!(answer["error"]["code"], "unavailable", "nobody guesses");
    let refused = as_person(&instance.client, BOB).get("/v1/stream/sse").await;
    assert_eq!(refused.problem(), (429, "too_many_connections"));
    proxy.mend();
    until("Redis to be asked again", async || {
        let answer = bob.command(json!({"command": "presence", "room": format!("user/{BOB}")})).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        (answer["result"]["people"] == 1).then_some(())
    })
    .await;
}
