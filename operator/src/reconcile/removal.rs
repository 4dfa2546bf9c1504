//! The end of a layer. Every layer carries our finalizer, so that the policy that counts is the one that stands in the
//! resource when it is deleted, however shortly before it was set. With `deletionPolicy: Delete`: first the pods, so
//! that nothing writes any more, then volumes, credentials and Patroni's state, then the finalizer. With `Retain` only
//! the finalizer: Kubernetes removes what the resource owns, and the rest stays. This is the only place that deletes a
//! volume or a credential.

use crate::api::{AzoraDataLayer, DeletionPolicy};
use crate::context::Context;
use crate::error::Error;
use crate::names::{self, Component, FINALIZER};
use crate::reconcile::apply::delete;
use crate::reconcile::observe;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// What a removal waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Pods that still run.
    WaitsForPods(usize),
    /// Nothing: all is gone.
    Done,
}

/// Puts the finalizer on a living layer.
pub async fn keep_finalizer(ctx: &Context, azora: &AzoraDataLayer) -> Result<(), Error> {
    if azora.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(());
    }
    let mut finalizers = azora.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(ctx, azora, &finalizers).await
}

/// Brings the removal of a layer one step on.
pub async fn remove(ctx: &Context, azora: &AzoraDataLayer) -> Result<Removal, Error> {
    let (namespace, name) = (azora.namespace().unwrap_or_default(), azora.name_any());
    if !azora.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Removal::Done);
    }
    if azora.spec.deletion_policy == DeletionPolicy::Delete {
        let workload = |component: Component| format!("{name}-{}", component.word());
        delete::<Deployment>(ctx, &namespace, &workload(Component::Nexus), None).await?;
        for store in [Component::Postgres, Component::Mongo, Component::Redis] {
            delete::<StatefulSet>(ctx, &namespace, &workload(store), None).await?;
        }
        let pods = observe::list_pods(&ctx.client, &namespace, &name).await?;
        if !pods.is_empty() {
            return Ok(Removal::WaitsForPods(pods.len()));
        }
        for claim in observe::list_claims(&ctx.client, &namespace, &name).await? {
            delete::<PersistentVolumeClaim>(ctx, &namespace, &claim.name, None).await?;
        }
        for state in observe::list_patroni_state(&ctx.client, &namespace, &name).await? {
            delete::<ConfigMap>(ctx, &namespace, &state, None).await?;
        }
        // Last: until the volumes are gone, it is what opens them.
        delete::<Secret>(ctx, &namespace, &names::credentials(&name), None).await?;
    }
    let others: Vec<String> = azora.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    set_finalizers(ctx, azora, &others).await?;
    Ok(Removal::Done)
}

async fn set_finalizers(ctx: &Context, azora: &AzoraDataLayer, finalizers: &[String]) -> Result<(), Error> {
    let api: Api<AzoraDataLayer> = Api::namespaced(ctx.client.clone(), &azora.namespace().unwrap_or_default());
    // The resource version makes this fail if anybody changed the list since it was read.
    let meta = json!({ "metadata": { "finalizers": finalizers, "resourceVersion": azora.resource_version() } });
    let patched = api.patch_metadata(&azora.name_any(), &PatchParams::default(), &Patch::Merge(&meta)).await;
    match patched {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(cause) => Err(Error::ChangeFinalizers { cause: Box::new(cause) }),
    }
}
