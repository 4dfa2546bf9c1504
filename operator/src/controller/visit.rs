//! One visit to one layer: reads it, then observe, plan, apply, status. Safe at any time, any number of times.

use crate::api::{AzoraDataLayer, AzoraDataLayerStatus, validate};
use crate::context::Context;
use crate::error::Error;
use crate::layer::Layer;
use crate::reconcile::apply::apply;
use crate::reconcile::observe::observe;
use crate::reconcile::plan::plan;
use crate::reconcile::publish::publish;
use crate::reconcile::removal::{Removal, keep_finalizer, remove};
use crate::reconcile::status::{self, Moment, condition_is};
use kube::CustomResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use serde_json::json;

/// How a visit left a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Ready; nothing was to be done.
    Steady,
    /// On its way.
    Unready,
    /// Waits for its user.
    Refused,
    /// Not there any more.
    Gone,
}

/// Visits the layer of this name.
pub(super) async fn visit(ctx: &Context, namespace: &str, name: &str) -> Result<Outcome, Error> {
    let api: Api<DeserializeGuard<AzoraDataLayer>> = Api::namespaced(ctx.client.clone(), namespace);
    let read = api.get_opt(name).await;
    let read = read.map_err(|cause| Error::ReadLayer { name: name.to_owned(), cause: Box::new(cause) })?;
    match read {
        None => Ok(Outcome::Gone),
        Some(DeserializeGuard(Err(invalid))) => unreadable(ctx, namespace, name, &invalid).await,
        Some(DeserializeGuard(Ok(azora))) if azora.metadata.deletion_timestamp.is_some() => removal(ctx, &azora).await,
        Some(DeserializeGuard(Ok(azora))) => living(ctx, &azora).await,
    }
}

async fn living(ctx: &Context, azora: &AzoraDataLayer) -> Result<Outcome, Error> {
    let previous = azora.status.clone().unwrap_or_default();
    let moment = Moment { previous: &previous, generation: azora.metadata.generation.unwrap_or(0), now: ctx.now() };
    let layer = match validate(azora, &ctx.surroundings) {
        Ok(layer) => layer,
        Err(refusals) => {
            publish(ctx, azora, &status::refused(&refusals, &moment)).await?;
            return Ok(Outcome::Refused);
        }
    };
    match reconcile(ctx, azora, &layer, &moment).await {
        Ok(status) => {
            publish(ctx, azora, &status).await?;
            let ready = condition_is(&status, "Ready", "True");
            Ok(if ready { Outcome::Steady } else { Outcome::Unready })
        }
        Err(error) => {
            // The error of the visit counts; one of the publishing would only hide it.
            if let Err(unpublished) = publish(ctx, azora, &status::failed(&error, &moment)).await {
                tracing::warn!(
                    layer.name = layer.name,
                    error = unpublished.chain(),
                    "cannot publish why a visit failed"
                );
            }
            Err(error)
        }
    }
}

/// Brings one layer closer to its spec.
async fn reconcile(
    ctx: &Context,
    azora: &AzoraDataLayer,
    layer: &Layer,
    moment: &Moment<'_>,
) -> Result<AzoraDataLayerStatus, Error> {
    keep_finalizer(ctx, azora).await?;
    let mut observed = observe(&ctx.client, layer).await?;
    let mut plan = plan(layer, &observed, &ctx.entropy());
    let holds = std::mem::take(&mut plan.holds);
    let live = apply(ctx, layer, plan, std::mem::take(&mut observed.live)).await?;
    Ok(status::status(layer, &live, &observed, &holds, moment))
}

async fn removal(ctx: &Context, azora: &AzoraDataLayer) -> Result<Outcome, Error> {
    match remove(ctx, azora).await? {
        Removal::Done => Ok(Outcome::Gone),
        Removal::WaitsForPods(pods) => {
            let previous = azora.status.clone().unwrap_or_default();
            let generation = azora.metadata.generation.unwrap_or(0);
            let moment = Moment { previous: &previous, generation, now: ctx.now() };
            publish(ctx, azora, &status::removing(pods, &moment)).await?;
            Ok(Outcome::Unready)
        }
    }
}

/// A resource that this operator cannot read, such as one of a newer definition. Others go on; this one is told why.
async fn unreadable(ctx: &Context, namespace: &str, name: &str, invalid: &InvalidObject) -> Result<Outcome, Error> {
    tracing::warn!(layer.name = name, layer.namespace = namespace, error = invalid.error, "cannot read a data layer");
    let generation = invalid.metadata.generation.unwrap_or(0);
    // The previous status may be what cannot be read, so the times of its conditions are not known: the time at which
    // the resource was made stands for them, and stays the same from visit to visit.
    let made = invalid.metadata.creation_timestamp.as_ref().map_or_else(|| ctx.now(), |time| time.0);
    let moment = Moment { previous: &AzoraDataLayerStatus::default(), generation, now: made };
    let status = status::refused_for("Unreadable", &invalid.error, &moment);
    let api: Api<kube::api::DynamicObject> =
        Api::namespaced_with(ctx.client.clone(), namespace, &AzoraDataLayer::api_resource());
    let patch = json!({
        "apiVersion": "azora.io/v1alpha1",
        "kind": "AzoraDataLayer",
        "status": { "phase": status.phase, "conditions": status.conditions },
    });
    let params = PatchParams::apply(crate::names::FIELD_MANAGER).force();
    let patched = api.patch_status(name, &params, &Patch::Apply(&patch)).await;
    patched.map_err(|cause| Error::PublishStatus { cause: Box::new(cause) })?;
    Ok(Outcome::Refused)
}
