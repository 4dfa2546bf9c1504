//! The operator is killed at random moments during creation, and creation finishes all the same.
use std::time::Duration;

use anyhow::{Context as _, ensure};
use azora_operator::api::AzoraDataLayer;
use azora_tests::cluster::{OPERATOR_NAME, OPERATOR_NAMESPACE};
use azora_tests::crash;
use azora_tests::layer::{Layer, READY_IN_COMPANY, condition};
use azora_tests::trial::{Company, Trial, trial};
use azora_tests::wait::{Look, stays, wait_for};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

/// The issue asks for at least so many.
const MOMENTS: usize = 10;
/// From the new operator's first sight of the work to its end: long enough to get something done, short enough that ten
/// moments fall into one or two creations.
const MOMENT_MILLISECONDS_MAX: u64 = 2500;
/// A killed leader has not given its Lease back, so the next one has to let it run out first.
const TAKEOVER: Duration = Duration::from_mins(1);

#[tokio::test]
async fn creation_finishes_though_the_operator_is_killed_at_ten_random_moments() -> anyhow::Result<()> {
    let seed = match std::env::var("AZORA_TEST_SEED") {
        Ok(seed) => seed.parse().context("AZORA_TEST_SEED is no number")?,
        Err(_) => rand::random::<u32>().into(),
    };
    eprintln!("the operator is killed at moments of seed {seed}; AZORA_TEST_SEED={seed} repeats them");
    trial("killed", Company::Alone, async |trial| creation_under_fire(trial, seed).await)
        .await
        .with_context(|| format!("with seed {seed}"))
}

/// Makes data layers, one after the other, until ten moments of a creation have had their kill.
async fn creation_under_fire(trial: &Trial, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kills = 0;
    let mut layers = Vec::new();
    while kills < MOMENTS {
        let layer = Layer::apply(trial, &format!("killed-{}", layers.len()), json!({})).await?;
        while kills < MOMENTS && reaches_moment_unready(&layer, random.random_range(0..MOMENT_MILLISECONDS_MAX)).await?
        {
            kill_operator(trial, kills).await?;
            kills += 1;
        }
        layers.push(layer);
        ensure!(layers.len() <= MOMENTS, "{} creations ended before {MOMENTS} moments came", layers.len());
    }
    for layer in &layers {
        layer.ready(READY_IN_COMPANY).await?;
        // Ready is the operator's word. What it stands for: a record can be written and read.
        let nexus = layer.nexus().await?;
        let user = json!({"email": "survivor@example.org", "display_name": "Survivor"});
        let (user, position) = nexus.create_user(&user).await?;
        let id = user["id"].as_str().context("the user has no id")?;
        assert_eq!(nexus.user(id, Some(position)).await?.user["email"], "survivor@example.org");
    }
    Ok(())
}

/// Lets the operator work until the moment. False when the data layer became ready before: that moment is no more part
/// of a creation.
async fn reaches_moment_unready(layer: &Layer<'_>, milliseconds: u64) -> anyhow::Result<bool> {
    let mut ready = false;
    let unready = stays("creation", Duration::from_millis(milliseconds), Duration::from_millis(250), async || {
        let found = layer.trial.api::<AzoraDataLayer>().get(&layer.name).await?;
        ready = condition(&found, "Ready").is_some_and(|(status, _)| status == "True");
        Ok(Look::when(!ready, (), || "Ready".to_owned()))
    })
    .await;
    if ready { Ok(false) } else { unready.map(|()| true) }
}

/// Kills the operator and waits until one leads again, in a container that was not killed.
/// Every other time by SIGKILL, which gives it no chance to end well; that pod is deleted the next time, so that the
/// kubelet's growing back-off for a container that crashes again and again does not stretch the test.
async fn kill_operator(trial: &Trial, kills: usize) -> anyhow::Result<()> {
    let client = &trial.cluster.client;
    let pods = Api::<Pod>::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let leases = Api::<Lease>::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let renewed = leases.get(OPERATOR_NAME).await.context("read the operator's Lease")?.spec;
    let renewed = renewed.and_then(|spec| spec.renew_time);
    let pod = running(&pods).await?.context("no operator is running")?;
    if trial.cluster.is_local_kind() && kills.is_multiple_of(2) {
        crash::kill(&pod)?;
    } else {
        crash::force_delete(&pods, pod.metadata.name.as_deref().unwrap_or_default()).await?;
    }
    let killed = crash::container_ids(&pod);
    wait_for("an operator to lead again", TAKEOVER, async || {
        let lease = leases.get(OPERATOR_NAME).await?.spec.unwrap_or_default();
        let pod = running(&pods).await?;
        let alive = pod.as_ref().is_some_and(|pod| {
            let containers = crash::container_ids(pod);
            !containers.is_empty() && containers.iter().all(|container| !killed.contains(container))
        });
        let name = pod.and_then(|pod| pod.metadata.name);
        let leads = alive && lease.holder_identity == name && lease.renew_time > renewed;
        Ok(Look::when(leads, (), || format!("pod {name:?}, alive {alive}, Lease {lease:?}")))
    })
    .await
}

/// The operator's pod that is not on its way out.
async fn running(pods: &Api<Pod>) -> anyhow::Result<Option<Pod>> {
    let selector = ListParams::default().labels(&format!("app.kubernetes.io/name={OPERATOR_NAME}"));
    let found = pods.list(&selector).await.context("list the operator's pods")?.items;
    Ok(found.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none()))
}
