//! What clients begin to send and do not end: bounded for all of them together, for none has to show a token to begin.

use serde_json::json;

use crate::support::polling::Polling;
use crate::support::raw::{Raw, head, upgrade};
use crate::support::{Client, Instance, World, large_event, metric, token, until};

const MEMORY: usize = 100 * 1024;

/// Bytes of which two have room in the memory, or one whose buffer has grown by doubling, and three have not.
const LARGE: usize = 45_000;

async fn instance(world: &World) -> Instance {
    world.nexus_with(|config| config.limits.unfinished_bytes_max = MEMORY).await
}

async fn held(client: &Client, of: &str) -> i64 {
    metric(client, &format!("nexus_unfinished_bytes{{of=\"{of}\"}}")).await
}

async fn refused(client: &Client, of: &str) -> i64 {
    metric(client, &format!("nexus_unfinished_refused_total{{of=\"{of}\"}}")).await
}

async fn until_free(client: &Client, of: &str) {
    until("the memory to be free", async || (held(client, of).await == 0).then_some(())).await;
}

/// Connections that have taken something, each of so many bytes, and the one that was refused for it.
async fn until_refused(client: &Client, of: &str, bytes: i64, begin: impl AsyncFn() -> Raw) -> (Vec<Raw>, Raw) {
    let mut taken = Vec::new();
    loop {
        let before = held(client, of).await;
        let one = begin().await;
        let is_refused = until("it to be taken or refused", async || {
            let is_refused = refused(client, of).await > 0;
            (is_refused || held(client, of).await >= before + bytes).then_some(is_refused)
        });
        if is_refused.await {
            assert!(!taken.is_empty(), "nobody was taken");
            return (taken, one);
        }
        taken.push(one);
        assert!(taken.len() < 20, "nobody is refused");
    }
}

async fn open(instance: &Instance, begin: &str, bytes: usize) -> Raw {
    let mut raw = Raw::open(instance.nexus.address()).await;
    raw.send(format!("{begin}{}", " ".repeat(bytes))).await;
    raw
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_there_is_no_memory_for_is_refused_and_small_ones_pass() {
    let world = World::new().await;
    let instance = instance(&world).await;
    let client = &instance.client;
    let authorization = format!("authorization: Bearer {}", token("admin"));
    let post = |bytes: usize| {
        let headers = format!("host: localhost\r\n{authorization}\r\ncontent-type: application/json");
        format!("POST /v1/events HTTP/1.1\r\n{headers}\r\ncontent-length: {bytes}\r\n\r\n")
    };
    let begin = async || open(&instance, &post(LARGE + 1), LARGE).await;
    let (taken, mut refused) = until_refused(client, "callers", 40_000, begin).await;
    assert_eq!(refused.status().await, 429);
    refused.send(" ").await;
    let problem = refused.chunks().await;
    assert!(problem.contains("overloaded"), "{problem}");
    assert_eq!(open(&instance, &post(3_000), 3_000).await.status().await, 400, "no document");
    for mut one in taken {
        one.send(" ").await;
        assert_eq!(one.status().await, 400, "it had the memory, and goes on");
    }
    until_free(client, "callers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_token_uses_up_no_memory_of_those_who_have() {
    let world = World::new().await;
    let instance = instance(&world).await;
    let client = &instance.client;
    let post = |sid: &str| {
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", LARGE + 1)
    };
    let begin = async || open(&instance, &post(Polling::open(client).await.sid()), LARGE).await;
    let (_taken, mut refused) = until_refused(client, "strangers", 40_000, begin).await;
    assert_eq!(refused.status().await, 429);
    assert_eq!(open(&instance, &post("none"), 1).await.status().await, 400, "before its body comes");
    let events: Vec<_> = (0..8).map(|number| large_event(&format!("large-{number}"))).collect();
    client.publish(&json!(events)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_there_is_no_memory_for_ends_its_connection_and_no_other() {
    let world = World::new().await;
    let instance = instance(&world).await;
    let client = &instance.client;
    let begin = async || {
        let mut raw = open(&instance, "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-long:", 7_000).await;
        raw.send(" ".repeat(7_000)).await;
        raw
    };
    let (taken, mut refused) = until_refused(client, "strangers", 9_000, begin).await;
    assert_eq!(refused.rest().await, "");
    for mut one in taken {
        one.send("\r\n\r\n").await;
        assert_eq!(one.status().await, 200);
    }
    until_free(client, "strangers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_there_is_no_memory_for_ends_its_connection_and_no_other() {
    let world = World::new().await;
    let instance = instance(&world).await;
    let client = &instance.client;
    let frame = [head(0x81, LARGE as u64 + 1), vec![b' '; LARGE]].concat();
    let begin = async || {
        let mut raw = Raw::open(instance.nexus.address()).await;
        raw.send(upgrade("/v1/stream", "")).await;
        assert_eq!(raw.status().await, 101);
        raw.send(&frame).await;
        raw
    };
    let (taken, mut refused) = until_refused(client, "strangers", 40_000, begin).await;
    assert_eq!(refused.text().await, Err(1013));
    for mut one in taken {
        one.send(" ").await;
        let answer = one.text().await.expect("it goes on");
        assert!(answer.contains("malformed_frame"), "{answer}");
    }
    until_free(client, "strangers").await;
    // A WebSocket that a session which polls tries out counts as well.
    let polling = Polling::open(client).await;
    let mut probe = Raw::open(instance.nexus.address()).await;
    let path = format!("/socket.io/?EIO=4&transport=websocket&sid={}", polling.sid());
    probe.send(upgrade(&path, "")).await;
    assert_eq!(probe.status().await, 101);
    probe.send(&frame).await;
    until("it to be counted", async || (held(client, "strangers").await >= 40_000).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_who_shows_no_token_and_reads_nothing_next_to_nothing_is_kept() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut raw = Raw::open(instance.nexus.address()).await;
    raw.send(upgrade("/v1/stream", "")).await;
    assert_eq!(raw.status().await, 101);
    let empty = head(0x81, 0).repeat(1_000);
    let sending = tokio::spawn(async move { while raw.send(&empty).await {} });
    let kept = until("answers to wait for the network", async || {
        let kept = metric(&instance.client, "nexus_stream_waiting_bytes").await;
        (kept > 4 * 1024).then_some(kept)
    })
    .await;
    assert!(kept < 5 * 1024, "{kept}");
    sending.abort();
}
