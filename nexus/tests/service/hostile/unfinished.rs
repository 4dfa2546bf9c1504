//! What clients begin to send and do not end: bounded for all of them together, for none has to show a token to begin.

use crate::support::raw::{Raw, head, upgrade};
use crate::support::{Instance, World, metric, until};

const MEMORY: usize = 160 * 1024;

async fn instance(world: &World) -> Instance {
    world.nexus_with(|config| config.limits.unfinished_bytes_max = MEMORY).await
}

/// A connection on which these bytes were sent.
async fn open(instance: &Instance, begin: &str, bytes: usize) -> Raw {
    let mut raw = Raw::open(instance.nexus.address()).await;
    raw.send(format!("{begin}{}", " ".repeat(bytes))).await;
    raw
}

async fn until_held(instance: &Instance, holds: impl Fn(i64) -> bool) {
    let held = async || holds(metric(&instance.client, "nexus_unfinished_bytes").await).then_some(());
    until("the memory to be held", held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_the_pod_has_no_memory_for_is_refused_and_small_ones_pass() {
    let world = World::new().await;
    let instance = instance(&world).await;
    let post = |bytes: usize| {
        let path = "/socket.io/?EIO=4&transport=polling&sid=none";
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {bytes}\r\n\r\n")
    };
    let mut first = open(&instance, &post(80_000), 70_000).await;
    until_held(&instance, |held| held >= 60_000).await;
    let mut second = open(&instance, &post(200_000), 110_000).await;
    assert_eq!(second.status().await, 429);
    second.send(" ".repeat(90_000)).await;
    let problem = second.chunks().await;
    assert!(problem.contains("overloaded"), "{problem}");
    assert_eq!(metric(&instance.client, "nexus_unfinished_refused_total").await, 1);
    assert_eq!(open(&instance, &post(3_000), 3_000).await.status().await, 400, "no such session");
    first.send(" ".repeat(10_000)).await;
    assert_eq!(first.status().await, 400, "it had the memory, and goes on");
    until_held(&instance, |held| held == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_the_pod_has_no_memory_for_ends_its_connection_and_no_other() {
    let world = World::new().await;
    let instance = instance(&world).await;
    let begin = "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-long:";
    let mut open_ones = Vec::new();
    for number in 1..=4 {
        open_ones.push(open(&instance, begin, 40_000).await);
        until_held(&instance, |held| held >= number * 35_000).await;
    }
    assert_eq!(open(&instance, begin, 40_000).await.rest().await, "");
    for mut one in open_ones {
        one.send("\r\n\r\n").await;
        assert_eq!(one.status().await, 200);
    }
    until_held(&instance, |held| held == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_pod_has_no_memory_for_ends_its_connection_and_no_other() {
    let world = World::new().await;
    let instance = instance(&world).await;
    let begun = async || {
        let mut raw = Raw::open(instance.nexus.address()).await;
        raw.send(upgrade("/v1/stream", "")).await;
        assert_eq!(raw.status().await, 101);
        raw.send([head(0x81, 60_000), vec![b' '; 50_000]].concat()).await;
        raw
    };
    let mut open_ones = Vec::new();
    for number in 1..=3 {
        open_ones.push(begun().await);
        until_held(&instance, |held| held >= number * 40_000).await;
    }
    assert_eq!(begun().await.text().await, Err(1013));
    for mut one in open_ones {
        one.send(" ".repeat(10_000)).await;
        let answer = one.text().await.expect("it goes on");
        assert!(answer.contains("malformed_frame"), "{answer}");
    }
    until_held(&instance, |held| held == 0).await;
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
