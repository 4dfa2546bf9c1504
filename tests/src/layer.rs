//! A data layer under test: apply it, wait for what its status says, find its pods and its binding.
//! Must never look into the operator: only what a user of the cluster can see counts.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use azora_operator::api::AzoraDataLayer;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::nexus::Nexus;
use crate::trial::Trial;
use crate::wait::{Look, wait_for};
use crate::{exec, node_port};

/// The bound for a development data layer with its images on the node.
pub const READY: Duration = Duration::from_mins(2);
/// Where other tests load the same two cores, or the operator is killed on purpose, being late is no failure.
pub const READY_IN_COMPANY: Duration = Duration::from_mins(5);
/// What the tests' data layers are made from, so that they suit the images at hand.
const EXAMPLE: &str = include_str!("../../examples/development.yaml");
/// All that a test may do.
const SCOPES: &str = "events:read events:write users:read users:write admin";

/// One part of a data layer; also the label value, the container's name and the suffix of its objects' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The records and the log.
    Postgres,
    /// The documents.
    Mongo,
    /// The shared cache and the wake-ups.
    Redis,
    /// The service in front of them.
    Nexus,
}

impl Component {
    /// Every part.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::Mongo, Self::Redis, Self::Nexus];

    /// The word for it in names and labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mongo => "mongo",
            Self::Redis => "redis",
            Self::Nexus => "nexus",
        }
    }

    /// The port that it listens on.
    pub fn port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Mongo => 27017,
            Self::Redis => 6379,
            Self::Nexus => 4001,
        }
    }
}

/// A data layer in the namespace of a test.
pub struct Layer<'trial> {
    /// The test that it belongs to.
    pub trial: &'trial Trial,
    /// Its `metadata.name`.
    pub name: String,
}

impl<'trial> Layer<'trial> {
    /// Applies the example for development under another name, with the blocks of the spec in `extra` in place of its own.
    pub async fn apply(trial: &'trial Trial, name: &str, extra: Value) -> anyhow::Result<Self> {
        let mut manifest: Value = serde_norway::from_str(EXAMPLE).context("parse the example for development")?;
        manifest["metadata"]["name"] = json!(name);
        if let (Some(spec), Value::Object(extra)) = (manifest["spec"].as_object_mut(), extra) {
            spec.extend(extra);
        }
        Self::apply_manifest(trial, &manifest).await
    }

    /// Applies a manifest as a user's `kubectl apply --server-side` does, but into the test's namespace.
    pub async fn apply_manifest(trial: &'trial Trial, manifest: &Value) -> anyhow::Result<Self> {
        let resource = ApiResource::erase::<AzoraDataLayer>(&());
        let mut object = manifest.clone();
        object["apiVersion"] = json!(resource.api_version);
        object["kind"] = json!(resource.kind);
        let name = object["metadata"]["name"].as_str().context("the manifest has no metadata.name")?.to_owned();
        let layers = Api::<DynamicObject>::namespaced_with(trial.cluster.client.clone(), &trial.namespace, &resource);
        let parameters = PatchParams::apply("azora-tests").validation_strict();
        layers
            .patch(&name, &parameters, &Patch::Apply(&object))
            .await
            .with_context(|| format!("apply layer {name}"))?;
        Ok(Self { trial, name })
    }

    /// Applies the data layer and waits until it is ready.
    pub async fn start(trial: &'trial Trial, name: &str, extra: Value) -> anyhow::Result<Self> {
        let layer = Self::apply(trial, name, extra).await?;
        layer.ready(READY_IN_COMPANY).await?;
        Ok(layer)
    }

    /// Waits until the operator calls the present generation of the spec ready.
    pub async fn ready(&self, deadline: Duration) -> anyhow::Result<AzoraDataLayer> {
        let layers = self.trial.api::<AzoraDataLayer>();
        wait_for(&format!("data layer {} to be Ready", self.name), deadline, async || {
            let layer = layers.get(&self.name).await?;
            let ready = condition(&layer, "Ready").is_some_and(|(status, _)| status == "True");
            let current = layer.status.as_ref().and_then(|status| status.observed_generation);
            let seen = serde_json::to_string(&layer.status)?;
            Ok(Look::when(ready && current == layer.metadata.generation, layer, || seen))
        })
        .await
    }

    /// Deletes the resource and waits until it and its pods are gone.
    pub async fn delete(&self) -> anyhow::Result<()> {
        let layers = self.trial.api::<AzoraDataLayer>();
        layers.delete(&self.name, &DeleteParams::default()).await.context("delete the data layer")?;
        wait_for("the data layer and its pods to be gone", Duration::from_mins(2), async || {
            let there = layers.get_opt(&self.name).await?.is_some();
            let pods = self.trial.api::<Pod>().list(&self.selector()).await?.items;
            let names = pods.into_iter().filter_map(|pod| pod.metadata.name).collect::<Vec<_>>();
            Ok(Look::when(!there && names.is_empty(), (), || format!("resource there: {there}, pods {names:?}")))
        })
        .await
    }

    /// The labels of one component's objects.
    pub fn labels(&self, component: Component) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("app.kubernetes.io/name".to_owned(), component.word().to_owned()),
            ("app.kubernetes.io/instance".to_owned(), self.name.clone()),
        ])
    }

    /// Selects everything that carries the data layer's label.
    pub fn selector(&self) -> ListParams {
        ListParams::default().labels(&format!("app.kubernetes.io/instance={}", self.name))
    }

    /// The pods of one component that are not on their way out, by name.
    pub async fn pods(&self, component: Component) -> anyhow::Result<Vec<Pod>> {
        let labels = self.labels(component).into_iter().map(|(key, value)| format!("{key}={value}"));
        let selector = ListParams::default().labels(&labels.collect::<Vec<_>>().join(","));
        let mut pods = self.trial.api::<Pod>().list(&selector).await.context("list pods")?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.sort_by(|left, right| left.metadata.name.cmp(&right.metadata.name));
        Ok(pods)
    }

    /// Runs a command in the first pod of a component.
    pub async fn run(&self, component: Component, command: &[&str]) -> anyhow::Result<String> {
        let pods = self.pods(component).await?;
        let pod = pods.first().and_then(|pod| pod.metadata.name.as_deref());
        let pod = pod.with_context(|| format!("no pod of {} is there", component.word()))?;
        exec::run(&self.trial.api(), pod, component.word(), command).await
    }

    /// The binding Secret: what an application is given to reach the stores.
    pub async fn binding(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let name = format!("{}-binding", self.name);
        let secret = self.trial.api::<Secret>().get(&name).await.with_context(|| format!("read Secret {name}"))?;
        let data = secret.data.unwrap_or_default().into_iter();
        data.map(|(key, value)| Ok((key, String::from_utf8(value.0).context("the binding is not text")?))).collect()
    }

    /// The address of a component for the test's own process.
    pub async fn open(&self, component: Component) -> anyhow::Result<SocketAddr> {
        let name = format!("test-{}-{}", self.name, component.word());
        node_port::open(self.trial, &name, self.labels(component), component.port()).await
    }

    /// A client of Nexus through a Service in front of all its replicas.
    pub async fn nexus(&self) -> anyhow::Result<Nexus> {
        let address = self.open(Component::Nexus).await?;
        Nexus::connect(address, self.token().await?).await
    }

    /// A token for Nexus that outlives the test.
    pub async fn token(&self) -> anyhow::Result<String> {
        let command = ["/usr/local/bin/nexus", "token", "--subject", "e2e", "--scope", SCOPES, "--ttl-seconds", "3600"];
        Ok(self.run(Component::Nexus, &command).await?.trim().to_owned())
    }

    /// Runs SQL by `psql` in the Postgres pod, through the Service and with the credentials of the binding.
    pub async fn psql(&self, sql: &str) -> anyhow::Result<String> {
        let uri = self.binding().await?.remove("postgres.uri").context("the binding has no postgres.uri")?;
        let command = ["psql", &uri, "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql];
        Ok(self.run(Component::Postgres, &command).await?.trim().to_owned())
    }

    /// Id and number of each event of `source` in the log table, oldest first, as `psql` tells them.
    pub async fn log(&self, source: &str) -> anyhow::Result<Vec<(String, i64)>> {
        let sql = format!("select seq, event->>'id' from nexus.log where event->>'source' = '{source}' order by seq");
        let rows = self.psql(&sql).await?;
        let row = |line: &str| {
            let (seq, id) = line.split_once('|').with_context(|| format!("psql printed {line}"))?;
            Ok((id.to_owned(), seq.parse().with_context(|| format!("psql printed {line}"))?))
        };
        rows.lines().map(row).collect()
    }
}

/// Status and reason of one condition.
pub fn condition(layer: &AzoraDataLayer, kind: &str) -> Option<(String, String)> {
    let conditions = layer.status.as_ref()?.conditions.iter();
    let found = conditions.into_iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone()))
}
