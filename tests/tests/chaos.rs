//! Every pod dies, once politely and once not, under a steady stream of publishes and two clients: nothing is lost.
use std::time::Duration;

use anyhow::Context as _;
use azora_tests::crash;
use azora_tests::layer::{Component, Layer, READY_IN_COMPANY};
use azora_tests::nexus::Published;
use azora_tests::socket::{Follow, Follower};
use azora_tests::stream::Stream;
use azora_tests::trial::{Company, trial};
use azora_tests::wait::{Look, wait_for};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

/// A pod that dies is scheduled, started and recovered by then, on a loaded machine.
const RETURN: Duration = Duration::from_mins(2);
/// Twenty events come in a second, so a connection that is silent for so long goes to a pod that is gone, or to one
/// whose database is; trying another is right in either case.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// So many events must get through between two deaths.
const FLOW: usize = 20;
const SOURCE: &str = "/e2e/chaos";

#[tokio::test]
async fn no_event_is_lost_doubled_or_reordered_when_each_pod_dies() -> anyhow::Result<()> {
    trial("chaos", Company::Shared, async |trial| {
        let layer = Layer::start(trial, "chaos", json!({"nexus": {"replicas": 2}})).await?;
        let nexus = layer.nexus().await?;
        let follow = |pattern: &str| Follow { types: vec![pattern.to_owned()], after: None, silence_max: SILENCE_MAX };
        let by_type = Follower::start(&nexus, follow("mining.*")).await?;
        let all = Follower::start(&nexus, follow("**")).await?;
        let stream = Stream::start(nexus.clone(), SOURCE);
        stream.flows(FLOW, RETURN).await?;

        for component in Component::ALL {
            for pod in layer.pods(component).await? {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                crash::force_delete(&trial.api::<Pod>(), name).await?;
                returns(&layer, component, &pod, &stream).await.with_context(|| format!("after deleting {name}"))?;
            }
        }
        if trial.cluster.is_local_kind() {
            for component in Component::ALL {
                let pods = layer.pods(component).await?;
                let pod = pods.first().with_context(|| format!("no pod of {}", component.word()))?;
                crash::kill(pod)?;
                let death = || format!("after killing the processes of {:?}", pod.metadata.name);
                returns(&layer, component, pod, &stream).await.with_context(death)?;
            }
        } else {
            eprintln!("not checked: crashes by SIGKILL, because the nodes' processes are not on this machine");
        }

        let acknowledged = stream.stop().await?;
        layer.ready(READY_IN_COMPANY).await?;
        assert_complete(&layer, &acknowledged, &[&by_type, &all]).await
    })
    .await
}

/// Waits until other containers than those of `dead` are ready in its place, and the stream flows.
async fn returns(layer: &Layer<'_>, component: Component, dead: &Pod, stream: &Stream) -> anyhow::Result<()> {
    let before = crash::container_ids(dead);
    let wanted = if component == Component::Nexus { 2 } else { 1 };
    wait_for(&format!("{} to be back", component.word()), RETURN, async || {
        let pods = layer.pods(component).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        let dead_ones = pods.iter().flat_map(crash::container_ids).filter(|id| before.contains(id)).count();
        let back = ready == wanted && dead_ones == 0;
        Ok(Look::when(back, (), || format!("{ready} of {wanted} pods ready, {dead_ones} dead containers listed")))
    })
    .await?;
    stream.flows(FLOW, RETURN).await
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What was acknowledged, what the log holds and what each client has is the same list.
async fn assert_complete(layer: &Layer<'_>, published: &[Published], clients: &[&Follower]) -> anyhow::Result<()> {
    let expected = published.iter().map(|event| (event.id.clone(), event.position.seq)).collect::<Vec<_>>();
    assert_eq!(
        layer.log(SOURCE).await?,
        expected,
        "the log holds each acknowledged event once, where it was said to be"
    );
    let last = &published.last().context("nothing was published")?.id;
    for client in clients {
        client.received(last, RETURN).await?;
        let record = client.record();
        let deliveries = record.deliveries.iter().map(|delivery| (delivery.id.clone(), delivery.position.seq));
        assert_eq!(deliveries.collect::<Vec<_>>(), expected, "every event once and in order");
        assert_eq!(record.gaps, Vec::<String>::new(), "no gap was stated");
        assert!(record.subscriptions > 1, "the client has come back at least once, or nothing was tried");
        eprintln!("{} events, {} subscriptions, ends: {:?}", expected.len(), record.subscriptions, record.faults);
    }
    Ok(())
}
