//! Carries a plan out: with `removal` and `publish` the only place that writes. Server-side apply with one field
//! manager and only our own fields; an object that is as planned, and was not touched since, is not written at all.

use crate::component::{mongo, postgres};
use crate::context::Context;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::layer::Layer;
use crate::metrics::Write;
use crate::names::FIELD_MANAGER;
use crate::reconcile::objects::Objects;
use crate::reconcile::plan::{Plan, Step};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use std::fmt::Debug;

/// What was last applied under a key, and what the API server made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    desired: [u8; 32],
    live: [u8; 32],
}

/// Brings the cluster to the plan; the answer is our objects as they are now.
pub async fn apply(ctx: &Context, layer: &Layer, plan: Plan, live: Objects) -> Result<Objects, Error> {
    if let Some(secret) = &plan.credentials {
        store_credentials(ctx, secret).await?;
    }
    // Paused: what runs stays as it is; the databases are still seen to.
    let live = if layer.paused || plan.holds.iter().any(|hold| hold.blocked) {
        live
    } else {
        for name in &plan.stale_patroni_state {
            delete::<ConfigMap>(ctx, &layer.namespace, name, None).await?;
        }
        apply_objects(ctx, layer, plan.objects, live).await?
    };
    for step in &plan.steps {
        carry_out(layer, &plan.secrets, step).await?;
    }
    Ok(live)
}

async fn apply_objects(ctx: &Context, layer: &Layer, desired: Objects, live: Objects) -> Result<Objects, Error> {
    let Objects {
        service_accounts,
        roles,
        role_bindings,
        config_maps,
        secrets,
        services,
        network_policies,
        disruption_budgets,
        stateful_sets,
        deployments,
    } = desired;
    Ok(Objects {
        // Identities and their rights first: a pod that starts without them gives up on the API server.
        service_accounts: reach(ctx, layer, service_accounts, live.service_accounts).await?,
        roles: reach(ctx, layer, roles, live.roles).await?,
        role_bindings: reach(ctx, layer, role_bindings, live.role_bindings).await?,
        // What pods mount, or they wait for the kubelet's next try.
        config_maps: reach(ctx, layer, config_maps, live.config_maps).await?,
        secrets: reach(ctx, layer, secrets, live.secrets).await?,
        // Names, so that members find each other at once.
        services: reach(ctx, layer, services, live.services).await?,
        // Closed before anything listens.
        network_policies: reach(ctx, layer, network_policies, live.network_policies).await?,
        disruption_budgets: reach(ctx, layer, disruption_budgets, live.disruption_budgets).await?,
        // The stores, then what uses them.
        stateful_sets: reach(ctx, layer, stateful_sets, live.stateful_sets).await?,
        deployments: reach(ctx, layer, deployments, live.deployments).await?,
    })
}

/// Applies all objects of a kind, then prunes those of the kind that are ours and not planned.
async fn reach<K>(ctx: &Context, layer: &Layer, desired: Vec<K>, live: Vec<K>) -> Result<Vec<K>, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let surplus: Vec<String> = surplus(&layer.uid, &desired, &live).map(ResourceExt::name_any).collect();
    let mut reached = Vec::with_capacity(desired.len());
    for object in desired {
        let found = live.iter().find(|live| live.meta().name == object.meta().name);
        reached.push(apply_one(ctx, layer, object, found).await?);
    }
    for name in surplus {
        let uid = live.iter().find(|live| live.name_any() == name).and_then(ResourceExt::uid);
        delete::<K>(ctx, &layer.namespace, &name, uid).await?;
    }
    Ok(reached)
}

/// What is ours by owner reference and not planned. Volume claims and credentials have no owner and are no kind of
/// `Objects`, so they can never be among it.
pub fn surplus<'a, K: Resource>(uid: &'a str, desired: &'a [K], live: &'a [K]) -> impl Iterator<Item = &'a K> {
    live.iter().filter(move |live| {
        let ours = live.meta().owner_references.iter().flatten().any(|owner| owner.uid == uid);
        ours && !desired.iter().any(|desired| desired.meta().name == live.meta().name)
    })
}

async fn apply_one<K>(ctx: &Context, layer: &Layer, desired: K, live: Option<&K>) -> Result<K, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let (kind, name) = (K::kind(&()).into_owned(), desired.name_any());
    let key = format!("{}/{kind}/{name}", layer.uid);
    let wanted = digest(&desired);
    if let Some(live) = live {
        let now = Applied { desired: wanted, live: fingerprint(live) };
        if ctx.applied.get(&key) == Some(now) {
            return Ok(live.clone());
        }
    }
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &layer.namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(&desired)).await;
    let applied = applied.map_err(|cause| Error::ApplyObject { kind: kind.clone(), name, cause: Box::new(cause) })?;
    ctx.applied.set(key, Applied { desired: wanted, live: fingerprint(&applied) });
    if live.and_then(ResourceExt::resource_version) != applied.resource_version() {
        count(ctx, "apply", K::kind(&()).as_ref());
        tracing::info!(
            layer.name = layer.name,
            layer.namespace = layer.namespace,
            object.kind = kind,
            object.name = applied.name_any(),
            "applied an object"
        );
    }
    Ok(applied)
}

/// An object without what changes by itself: its status, its version, and the record of who wrote what.
fn fingerprint<K: Serialize>(object: &K) -> [u8; 32] {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
        if let Some(meta) = fields.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
            meta.remove("resourceVersion");
            meta.remove("managedFields");
        }
    }
    Sha256::digest(value.to_string().as_bytes()).into()
}

fn digest<K: Serialize>(object: &K) -> [u8; 32] {
    Sha256::digest(serde_json::to_vec(object).unwrap_or_default()).into()
}

/// Removes an object; that it is gone already is fine. With a `uid`, only that very object.
pub async fn delete<K>(ctx: &Context, namespace: &str, name: &str, uid: Option<String>) -> Result<(), Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    let mut params = DeleteParams::background();
    params.preconditions = uid.map(|uid| Preconditions { uid: Some(uid), ..Preconditions::default() });
    match api.delete(name, &params).await {
        Ok(_) => {
            count(ctx, "delete", K::kind(&()).as_ref());
            tracing::info!(object.kind = %K::kind(&()), object.name = name, "deleted an object");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(cause) => {
            let kind = K::kind(&()).into_owned();
            Err(Error::DeleteObject { kind, name: name.to_owned(), cause: Box::new(cause) })
        }
    }
}

/// Stores new or completed credentials, never over what another wrote meanwhile: a lost password loses the data.
async fn store_credentials(ctx: &Context, secret: &Secret) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &secret.namespace().unwrap_or_default());
    let name = secret.name_any();
    let stored = match secret.metadata.resource_version {
        None => {
            api.create(&PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }, secret)
                .await
        }
        // The resource version is part of what is applied, so a change of another makes this fail.
        Some(_) => api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(secret)).await,
    };
    stored.map_err(|cause| Error::StoreCredentials { name, cause: Box::new(cause) })?;
    count(ctx, "apply", "Secret");
    Ok(())
}

async fn carry_out(layer: &Layer, credentials: &Credentials, step: &Step) -> Result<(), Error> {
    tracing::info!(layer.name = layer.name, layer.namespace = layer.namespace, step = ?step, "changing a database");
    match step {
        Step::Postgres(step) => postgres::database::carry_out(layer, credentials, *step)
            .await
            .map_err(|cause| Error::ChangePostgres { step: *step, cause }),
        Step::Mongo(step) => mongo::database::carry_out(credentials, step)
            .await
            .map_err(|cause| Error::ChangeMongo { step: step.clone(), cause: Box::new(cause) }),
    }
}

fn count(ctx: &Context, verb: &'static str, kind: &str) {
    // The kinds are those of `Objects`: a fixed list, so the label is bounded.
    const KINDS: [&str; 11] = [
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ConfigMap",
        "Secret",
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "StatefulSet",
        "Deployment",
        "PersistentVolumeClaim",
    ];
    let kind = KINDS.into_iter().find(|known| *known == kind).unwrap_or("other");
    ctx.metrics.writes.get_or_create(&Write { verb, kind }).inc();
}
