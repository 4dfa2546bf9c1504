//! Publishes what a visit found: the status where it changed, and an Event where a statement changed its value.

use crate::api::{AzoraDataLayer, AzoraDataLayerStatus};
use crate::context::Context;
use crate::error::{Error, chain};
use crate::metrics::Write;
use crate::names::FIELD_MANAGER;
use crate::reconcile::status::find;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

/// Conditions whose changes are worth an Event, and the value that is good news.
const TOLD: [(&str, &str); 3] = [("Accepted", "True"), ("Degraded", "False"), ("Ready", "True")];

/// Publishes a status, if it is not what stands.
pub async fn publish(ctx: &Context, azora: &AzoraDataLayer, status: &AzoraDataLayerStatus) -> Result<(), Error> {
    let before = azora.status.clone().unwrap_or_default();
    if before == *status {
        return Ok(());
    }
    let name = azora.name_any();
    let api: Api<AzoraDataLayer> = Api::namespaced(ctx.client.clone(), &azora.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": AzoraDataLayer::api_version(&()),
        "kind": AzoraDataLayer::kind(&()),
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&name, &params, &Patch::Apply(&patch)).await {
        Ok(_) => ctx.metrics.writes.get_or_create(&Write { verb: "status", kind: "AzoraDataLayer" }).inc(),
        // Deleted meanwhile.
        Err(kube::Error::Api(answer)) if answer.code == 404 => return Ok(()),
        Err(cause) => return Err(Error::PublishStatus { cause: Box::new(cause) }),
    };
    for event in events(&before, status) {
        tell(ctx, azora, &event).await;
    }
    Ok(())
}

/// One Event for each told condition that changed its value, but for news that nobody waits for: a new layer that is
/// not ready yet.
pub fn events(before: &AzoraDataLayerStatus, after: &AzoraDataLayerStatus) -> Vec<Event> {
    let changed = |(type_, good): &(&str, &str)| {
        let now = find(after, type_)?;
        let was = find(before, type_).map(|condition| condition.status.as_str());
        let told = match was {
            Some(was) => was != now.status,
            // Of a new layer only what nobody expects yet: that it is ready, or that something is wrong with it.
            None => (now.status == *good) == (*type_ == "Ready"),
        };
        if !told || now.status == "Unknown" {
            return None;
        }
        let fine = now.status == *good;
        Some(Event {
            type_: if fine { EventType::Normal } else { EventType::Warning },
            reason: now.reason.clone(),
            note: Some(format!("{type_}: {}", now.message)),
            action: "Reconcile".to_owned(),
            secondary: None,
        })
    };
    TOLD.iter().filter_map(changed).collect()
}

/// Events are a courtesy: one that cannot be published is logged and forgotten.
async fn tell(ctx: &Context, azora: &AzoraDataLayer, event: &Event) {
    match ctx.recorder.publish(event, &azora.object_ref(&())).await {
        Ok(()) => ctx.metrics.writes.get_or_create(&Write { verb: "event", kind: "Event" }).inc(),
        Err(error) => {
            tracing::warn!(layer.name = azora.name_any(), error = chain(&error), "cannot publish an Event");
            0
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Condition;

    fn said(type_: &str, status: &str) -> AzoraDataLayerStatus {
        let (type_, status) = (type_.to_owned(), status.to_owned());
        AzoraDataLayerStatus {
            conditions: vec![Condition { type_, status, ..Condition::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn events_tell_of_changes_and_of_a_new_layer_only_what_nobody_expects() {
        let none = AzoraDataLayerStatus::default();
        let told = |before: &AzoraDataLayerStatus, after: &AzoraDataLayerStatus| events(before, after).len();
        assert_eq!(told(&none, &said("Ready", "False")), 0);
        assert_eq!(told(&none, &said("Ready", "True")), 1);
        assert_eq!(told(&none, &said("Accepted", "True")), 0);
        assert_eq!(told(&none, &said("Accepted", "False")), 1);
        assert_eq!(told(&said("Ready", "False"), &said("Ready", "True")), 1);
        assert_eq!(told(&said("Ready", "True"), &said("Ready", "True")), 0);
        assert_eq!(told(&none, &said("Degraded", "Unknown")), 0);
    }
}
