//! A steady data layer causes no write to the API server.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use azora_tests::cluster::OPERATOR_NAME;
use azora_tests::layer::Layer;
use azora_tests::trial::{Company, Trial, trial};
use azora_tests::wait::{Look, stays};
use kube::api::{Api, DynamicObject, ListParams, ObjectMeta};
use kube::discovery::{ApiResource, Discovery, Scope, verbs};
use serde_json::json;

/// The span.
const SPAN: Duration = Duration::from_mins(5);
/// Resource versions only grow, so a write is seen at the next look, however seldom that is.
const PERIOD: Duration = Duration::from_secs(10);
/// After Ready the last endpoints and the kubelet's statuses settle; so long without any change is called steady.
const QUIET: Duration = Duration::from_secs(20);
/// The field manager of Patroni's own writes.
const PATRONI: &str = "Patroni";
/// So often it may have been unsteady before the test gives up.
const SETTLING_MAX: usize = 6;

/// Kind and name of each object, with what tells one version of it from the next and its field managers.
type Snapshot = BTreeMap<String, (String, Vec<String>)>;

/// The other tests run meanwhile, one of which kills the operator again and again: an operator that starts must not
/// write to what is as it should be either.
#[tokio::test]
async fn a_steady_data_layer_is_not_written_to_for_five_minutes() -> anyhow::Result<()> {
    trial("steady", Company::Onlooker, async |trial| {
        Layer::start(trial, "steady", json!({})).await?;
        let kinds = namespaced_kinds(trial).await?;
        let settled = snapshot(trial, &kinds).await?;
        for expected in ["AzoraDataLayer/steady", "StatefulSet/steady-postgres", "Deployment/steady-nexus"] {
            assert!(settled.contains_key(expected), "{expected} is not among {:?}", settled.keys());
        }
        remains_unwritten(trial, &kinds, settled).await
    })
    .await
}

/// Fails with what was written, and by whom, once nothing moves any more; only then does the span begin.
async fn remains_unwritten(trial: &Trial, kinds: &[ApiResource], mut before: Snapshot) -> anyhow::Result<()> {
    for _ in 1..SETTLING_MAX {
        let begun = Instant::now();
        match unwritten(trial, kinds, &before, SPAN).await {
            Err(_) if begun.elapsed() < QUIET + PERIOD => before = snapshot(trial, kinds).await?,
            outcome => return outcome,
        }
    }
    unwritten(trial, kinds, &before, SPAN).await.context("the data layer did not settle after its start")
}

/// Fails with what was written, and by whom, as soon as anything has been.
async fn unwritten(trial: &Trial, kinds: &[ApiResource], before: &Snapshot, span: Duration) -> anyhow::Result<()> {
    stays("a namespace without a write", span, PERIOD, async || {
        let moved = moved(before, &snapshot(trial, kinds).await?);
        Ok(Look::when(moved.is_empty(), (), || moved.join("; ")))
    })
    .await
}

/// Every kind of object that a namespace can hold and that can be listed.
async fn namespaced_kinds(trial: &Trial) -> anyhow::Result<Vec<ApiResource>> {
    let discovery = Discovery::new(trial.cluster.client.clone()).run().await.context("ask which kinds there are")?;
    let resources = discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
    let listed = resources.filter(|(_, capabilities)| {
        capabilities.scope == Scope::Namespaced && capabilities.supports_operation(verbs::LIST)
    });
    Ok(listed.map(|(resource, _)| resource).collect())
}

async fn snapshot(trial: &Trial, kinds: &[ApiResource]) -> anyhow::Result<Snapshot> {
    let mut snapshot = Snapshot::new();
    for kind in kinds {
        let api = Api::<DynamicObject>::namespaced_with(trial.cluster.client.clone(), &trial.namespace, kind);
        let list = api.list_metadata(&ListParams::default()).await;
        for object in list.with_context(|| format!("list {}", kind.plural))? {
            let key = format!("{}/{}", kind.kind, object.metadata.name.clone().unwrap_or_default());
            let managed = object.metadata.managed_fields.iter().flatten();
            let managers = managed.filter_map(|entry| entry.manager.clone()).collect::<Vec<_>>();
            // An Event tells what happened; the kubelet and the controllers have their own, of which the operator is
            // innocent.
            if kind.kind != "Event" || managers.iter().any(|manager| manager == OPERATOR_NAME) {
                snapshot.insert(key, (version(&object.metadata), managers));
            }
        }
    }
    Ok(snapshot)
}

/// What changes with every write that counts. Patroni's do not: it renews its lock (a ConfigMap) in every loop, and
/// notes in its pod how far its log has come. That is how its failover works, and it would be wrong to stop it. So where
/// Patroni writes, the others' latest writes are the version.
fn version(metadata: &ObjectMeta) -> String {
    let entries = metadata.managed_fields.as_deref().unwrap_or_default();
    let by_patroni = |manager: &Option<String>| manager.as_deref() == Some(PATRONI);
    if !entries.iter().any(|entry| by_patroni(&entry.manager)) {
        return metadata.resource_version.clone().unwrap_or_default();
    }
    let others = entries.iter().filter(|entry| !by_patroni(&entry.manager));
    let others = others.map(|entry| (&entry.manager, &entry.subresource, entry.time.as_ref().map(|time| time.0)));
    format!("{:?}", others.collect::<Vec<_>>())
}

/// What came, went or changed, with everyone who has written to it.
fn moved(before: &Snapshot, now: &Snapshot) -> Vec<String> {
    let gone = before.keys().filter(|key| !now.contains_key(*key)).map(|key| format!("{key} is gone"));
    let changed = now.iter().filter_map(|(key, (version, managers))| match before.get(key) {
        None => Some(format!("{key} is new, written by {managers:?}")),
        Some((old, _)) if old != version => {
            Some(format!("{key} went from {old} to {version}, managed by {managers:?}"))
        }
        Some(_) => None,
    });
    gone.chain(changed).collect()
}
