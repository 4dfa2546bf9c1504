//! Two replicas of Nexus are one service: what happens at one is known at the other.
use std::time::Duration;

use anyhow::{Context as _, ensure};
use azora_tests::event::{self, Position};
use azora_tests::layer::{Component, Layer, READY_IN_COMPANY};
use azora_tests::nexus::Nexus;
use azora_tests::node_port;
use azora_tests::socket::{Follow, Follower};
use azora_tests::trial::{Company, trial};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

const ARRIVAL: Duration = Duration::from_secs(20);
/// Above the heartbeat's 25 s, so that a quiet connection is not taken for a broken one.
const SILENCE_MAX: Duration = Duration::from_mins(1);
const SOURCE: &str = "/e2e/replicas";
/// So many writes are looked for at the other replica.
const WRITES: usize = 25;
/// The bound that Nexus states for a read that names no position (`ARCHITECTURE.md`).
const STALE_MAX: Duration = Duration::from_secs(2);
/// The label by which a Service of the test selects one replica only.
const REPLICA: &str = "azora.io/test-replica";

#[tokio::test]
async fn two_replicas_share_events_and_never_serve_a_stale_record_beyond_the_bound() -> anyhow::Result<()> {
    trial("replicas", Company::Shared, async |trial| {
        Layer::start(trial, "replicas", json!({})).await?;
        let layer = Layer::apply(trial, "replicas", json!({"nexus": {"replicas": 2}})).await?;
        layer.ready(READY_IN_COMPANY).await?;
        let (one, other) = each_replica(&layer).await?;
        events_cross(&one, &other).await?;
        let (user, position) = one.create_user(&json!({"email": "eve@example.org", "display_name": "Eve"})).await?;
        let user = user["id"].as_str().context("the user has no id")?;
        other.user(user, Some(position)).await?;
        for write in 0..WRITES {
            let position = one.record_login(user).await?;
            let version = i64::try_from(write)? + 2;
            never_stale(&other, user, position, version).await.with_context(|| format!("after write {write}"))?;
        }
        Ok(())
    })
    .await
}

/// A client for each of the two pods, through a Service of its own.
async fn each_replica(layer: &Layer<'_>) -> anyhow::Result<(Nexus, Nexus)> {
    let pods = layer.pods(Component::Nexus).await?;
    ensure!(pods.len() == 2, "two replicas were asked for, {} are there", pods.len());
    let token = layer.token().await?;
    let mut replicas = Vec::new();
    for (number, pod) in pods.iter().enumerate() {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let value = format!("replica-{number}");
        let label = Patch::Merge(json!({"metadata": {"labels": {REPLICA: value}}}));
        let pods = layer.trial.api::<Pod>();
        pods.patch(name, &PatchParams::default(), &label).await.with_context(|| format!("label pod {name}"))?;
        let labels = [(REPLICA.to_owned(), value.clone())].into();
        let address = node_port::open(layer.trial, &value, labels, Component::Nexus.port()).await?;
        replicas.push(Nexus::connect(address, token.clone()).await?);
    }
    let other = replicas.pop().context("the second replica")?;
    Ok((replicas.pop().context("the first replica")?, other))
}

/// What is published at either replica comes out of both.
async fn events_cross(one: &Nexus, other: &Nexus) -> anyhow::Result<()> {
    let follow = Follow { types: vec!["wallet.*".to_owned()], after: None, silence_max: SILENCE_MAX };
    let at_one = Follower::start(one, follow.clone()).await?;
    let at_other = Follower::start(other, follow).await?;
    let mut expected = Vec::new();
    for number in 0..10 {
        let id = format!("crossing-{number}");
        let nexus = if number % 2 == 0 { one } else { other };
        expected.push((nexus.publish(&event::wallet_created(SOURCE, &id, "1")).await?.position, id));
    }
    for follower in [&at_one, &at_other] {
        follower.received("crossing-9", ARRIVAL).await?;
        let deliveries = follower.record().deliveries.into_iter();
        let deliveries = deliveries.map(|delivery| (delivery.position, delivery.id)).collect::<Vec<_>>();
        assert_eq!(deliveries, expected, "both replicas bring all events in the same order");
    }
    Ok(())
}

/// Reads at a replica that did not take the write. Three promises: an answer never claims to be as new as the write and
/// lacks it; one that asks for the write's position has it; and without asking, the old one goes within the bound.
async fn never_stale(nexus: &Nexus, user: &str, position: Position, version: i64) -> anyhow::Result<()> {
    let written = Instant::now();
    loop {
        let asked = Instant::now();
        let read = nexus.user(user, None).await?;
        if read.version() == Some(version) {
            break;
        }
        ensure!(read.version() == Some(version - 1), "version {version} is awaited, not {read:?}");
        ensure!(read.as_of < position, "stale, though it claims to be as of {}: {read:?}", read.as_of);
        ensure!(asked - written < STALE_MAX, "still stale {:?} after the write: {read:?}", asked - written);
    }
    let read = nexus.user(user, Some(position)).await?;
    ensure!(read.version() == Some(version), "a read that asked for {position} got {read:?}");
    ensure!(read.as_of >= position, "a read that asked for {position} is as of {}", read.as_of);
    Ok(())
}
