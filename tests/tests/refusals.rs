//! Invalid resources are refused, by the API server or by the operator, and the data layer beside them goes on.
use std::time::Duration;

use anyhow::{Context as _, bail};
use azora_operator::api::AzoraDataLayer;
use azora_tests::event;
use azora_tests::layer::{Layer, condition};
use azora_tests::trial::{Company, Trial, trial};
use azora_tests::wait::{Look, wait_for};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::response::Status;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

/// How soon the operator must say no, on a loaded machine.
const VERDICT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn invalid_data_layers_are_refused_and_a_healthy_one_beside_them_goes_on() -> anyhow::Result<()> {
    trial("refusals", Company::Shared, async |trial| {
        let healthy = Layer::start(trial, "healthy", json!({})).await?;
        let before = trial.api::<AzoraDataLayer>().get("healthy").await?;
        let nexus = healthy.nexus().await?;

        for (field, spec) in invalid_specs() {
            refused_at_creation(trial, field, spec).await?;
        }
        for (field, spec) in invalid_changes() {
            refused_as_change(trial, field, spec).await?;
        }
        for (name, reason, spec) in only_the_operator_can_tell() {
            refused_by_operator(trial, name, reason, spec).await?;
        }

        let after = trial.api::<AzoraDataLayer>().get("healthy").await?;
        assert_eq!(after.spec, before.spec, "a refused change left something behind");
        assert_eq!(after.status, before.status, "the healthy data layer has not even blinked");
        let published = nexus.publish(&event::wallet_created("/e2e/refusals", "beside", "1")).await?;
        assert!(!published.duplicate);
        Ok(())
    })
    .await
}

/// What the API server refuses by the schema or a rule beside the field, with the field that it must name.
fn invalid_specs() -> Vec<(&'static str, Value)> {
    vec![
        ("spec.profile", json!({"profile": "Staging"})),
        ("spec.deletionPolicy", json!({"deletionPolicy": "Maybe"})),
        ("spec.paused", json!({"paused": "yes"})),
        ("spec.postgres.instances", json!({"postgres": {"instances": 0}})),
        ("spec.postgres.version", json!({"postgres": {"version": "14"}})),
        ("spec.postgres.durability", json!({"postgres": {"durability": "Hopeful"}})),
        ("spec.postgres.storage.size", json!({"postgres": {"storage": {"size": "plenty"}}})),
        ("spec.postgres.storage.size", json!({"postgres": {"storage": {"size": "1Mi"}}})),
        ("spec.postgres.parameters", json!({"postgres": {"parameters": {"listen_addresses": "*"}}})),
        ("spec.mongo.members", json!({"mongo": {"members": 2}})),
        ("spec.redis.maxMemory", json!({"redis": {"maxMemory": "1Mi"}})),
        ("spec.nexus.replicas", json!({"nexus": {"replicas": 21}})),
        ("spec.nexus.allowedOrigins[0]", json!({"nexus": {"allowedOrigins": ["not an origin"]}})),
        ("spec.nexus.retention.eventsMin", json!({"nexus": {"retention": {"eventsMin": 999}}})),
        ("spec.nexus.limits.bodyBytesMax", json!({"nexus": {"limits": {"bodyBytesMax": 1}}})),
        ("spec.nexus.auth.jwksUrl", json!({"profile": "Production"})),
        ("spec.network.policy", json!({"network": {"policy": "Open"}})),
    ]
}

/// What a data layer that is there cannot become.
fn invalid_changes() -> Vec<(&'static str, Value)> {
    vec![
        (
            "spec.profile",
            json!({"profile": "Production", "nexus": {"auth": {"jwksUrl": "https://id.example.org/keys"}}}),
        ),
        ("spec.postgres.storage.size", json!({"postgres": {"storage": {"size": "30Gi"}}})),
        ("spec.mongo.storage.className", json!({"mongo": {"storage": {"className": "other"}}})),
        ("spec.mongo.members", json!({"mongo": {"members": 3}})),
    ]
}

/// Name, reason and spec of what no schema can express: what depends on this version of the operator, on two fields
/// at once, or on the name.
fn only_the_operator_can_tell() -> Vec<(&'static str, &'static str, Value)> {
    let small = json!({"redis": {"maxMemory": "256Mi", "resources": {"limits": {"memory": "64Mi"}}}});
    vec![
        ("sentinel", "RedisInstancesUnsupported", json!({"redis": {"instances": 3}})),
        ("killed-early", "MemoryBelowMaxMemory", small),
        ("a-name-of-more-characters-than-leave-room-for-others", "NameTooLong", json!({})),
    ]
}

async fn refused_at_creation(trial: &Trial, field: &str, mut spec: Value) -> anyhow::Result<()> {
    if spec.get("profile").is_none() {
        spec["profile"] = json!("Development");
    }
    let layers = untyped(trial);
    let object = manifest("invalid", &spec)?;
    let status = refusal(layers.create(&PostParams::default(), &object).await, &spec)?;
    assert_names_field(&status, field, &spec);
    assert!(layers.get_opt("invalid").await?.is_none(), "{spec} was refused and stored all the same");
    Ok(())
}

async fn refused_as_change(trial: &Trial, field: &str, spec: Value) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"spec": spec}));
    let answer = untyped(trial).patch("healthy", &PatchParams::default(), &patch).await;
    assert_names_field(&refusal(answer, &spec)?, field, &spec);
    Ok(())
}

async fn refused_by_operator(trial: &Trial, name: &str, reason: &str, spec: Value) -> anyhow::Result<()> {
    let layer = Layer::apply(trial, name, spec).await?;
    let layers = trial.api::<AzoraDataLayer>();
    let verdict = wait_for(&format!("the operator's verdict on {name}"), VERDICT, async || {
        let found = layers.get(name).await?;
        let verdict = condition(&found, "Accepted");
        let current = found.status.as_ref().and_then(|status| status.observed_generation);
        let seen = format!("{:?}", found.status);
        Ok(match verdict.filter(|_| current == found.metadata.generation) {
            Some(verdict) => Look::Done(verdict),
            None => Look::Not(seen),
        })
    })
    .await?;
    assert_eq!(verdict, ("False".to_owned(), reason.to_owned()), "{name}");
    let workloads = (
        trial.api::<StatefulSet>().list(&layer.selector()).await?.items.len(),
        trial.api::<Deployment>().list(&layer.selector()).await?.items.len(),
    );
    assert_eq!(workloads, (0, 0), "{name} is refused, so nothing of it may run");
    Ok(())
}

fn untyped(trial: &Trial) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<AzoraDataLayer>(&());
    Api::namespaced_with(trial.cluster.client.clone(), &trial.namespace, &resource)
}

fn manifest(name: &str, spec: &Value) -> anyhow::Result<DynamicObject> {
    let resource = ApiResource::erase::<AzoraDataLayer>(&());
    let object = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    serde_json::from_value(object).context("build the invalid object")
}

/// The API server's own words on why not.
fn refusal(answer: Result<DynamicObject, kube::Error>, spec: &Value) -> anyhow::Result<Status> {
    match answer {
        Ok(_) => bail!("the API server took {spec}"),
        Err(kube::Error::Api(status)) => Ok(*status),
        Err(error) => Err(error).context("send an invalid object"),
    }
}

/// The fields that the API server names must be exactly the one that is wrong.
fn assert_names_field(status: &Status, field: &str, spec: &Value) {
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{spec}: {}", status.message);
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut fields = causes.map(|cause| cause.field.as_str()).filter(|field| *field != "<nil>").collect::<Vec<_>>();
    fields.dedup();
    assert_eq!(fields, [field], "{spec}: {}", status.message);
    assert!(status.message.contains(&format!("{field}: ")), "{}", status.message);
}
