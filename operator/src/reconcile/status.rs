//! The status that a visit publishes. Pure. Times are carried over from the last status where nothing changed, so a
//! steady layer's status stays the same to the letter and is not written.

mod conditions;
mod health;

use crate::api::{AzoraDataLayerStatus, ComponentStatus, Condition, Phase, Refusal, Waiting};
use crate::error::Error;
use crate::layer::Layer;
use crate::names::{self, Component};
use crate::reconcile::objects::Objects;
use crate::reconcile::observe::Observed;
use crate::reconcile::plan::Hold;
use conditions::{Said, Statements};
use health::Health;
use jiff::Timestamp;

/// What is common to every status: the one before, the generation it is about, the time.
pub struct Moment<'a> {
    /// The status that stands.
    pub previous: &'a AzoraDataLayerStatus,
    /// The generation of the resource.
    pub generation: i64,
    /// Now.
    pub now: Timestamp,
}

/// The status of an accepted layer.
pub fn status(
    layer: &Layer,
    live: &Objects,
    observed: &Observed,
    holds: &[Hold],
    moment: &Moment<'_>,
) -> AzoraDataLayerStatus {
    let healths = health::all(layer, live, observed, holds);
    let ready = healths.iter().all(|health| health.works) && !holds.iter().any(|hold| hold.blocked);
    let before = moment.previous;
    let same_spec = before.observed_generation == Some(moment.generation);
    let was_ready = condition_is(before, "Ready", "True") || before.phase == Phase::Degraded;
    let degraded = !ready && same_spec && was_ready;
    let mut statements = Statements::new(moment);
    statements.say("Accepted", accepted(holds));
    for health in &healths {
        statements.say(health.component.condition(), health.said());
    }
    let broken: Vec<&str> =
        healths.iter().filter(|health| !health.works).map(|health| health.component.title()).collect();
    let broken = broken.join(", ");
    statements.say(
        "Progressing",
        match (ready, degraded) {
            (false, false) => Said::yes("Reconciling", format!("not ready yet: {broken}")),
            _ => Said::no("Steady", "everything is as the spec says"),
        },
    );
    statements.say("Degraded", degradation(degraded, &broken, &healths));
    statements.say(
        "Ready",
        if ready {
            Said::yes("Working", "a write and a read succeed through every Service")
        } else {
            Said::no("NotWorking", format!("not ready: {broken}"))
        },
    );
    let [postgres, mongo, redis, nexus] = healths.each_ref().map(|health| Some(component(health, ready, degraded)));
    AzoraDataLayerStatus {
        observed_generation: Some(moment.generation),
        phase: phase(layer, holds, ready, degraded),
        conditions: statements.finish(),
        postgres,
        mongo,
        redis,
        nexus,
        waiting: waiting(&healths, holds, moment),
        binding: names::binding(layer),
    }
}

/// The status of a resource that is not accepted. What runs goes on as it was, and so does what is said of it.
pub fn refused(refusals: &[Refusal], moment: &Moment<'_>) -> AzoraDataLayerStatus {
    let message: Vec<String> =
        refusals.iter().map(|refusal| format!("{} {}", refusal.field, refusal.message)).collect();
    let reason = refusals.first().map_or("Refused", |refusal| refusal.reason);
    refused_for(reason, &message.join("; "), moment)
}

/// The same, for any one reason.
pub fn refused_for(reason: &'static str, message: &str, moment: &Moment<'_>) -> AzoraDataLayerStatus {
    let mut statements = Statements::new(moment);
    statements.say("Accepted", Said::no(reason, message));
    for component in Component::ALL {
        statements.keep(component.condition());
    }
    statements.say("Progressing", Said::no("NotAccepted", "the spec is not accepted"));
    statements.keep("Degraded");
    statements.say("Ready", Said::no("NotAccepted", "the spec is not accepted"));
    AzoraDataLayerStatus {
        observed_generation: Some(moment.generation),
        phase: Phase::Refused,
        conditions: statements.finish(),
        waiting: Vec::new(),
        ..moment.previous.clone()
    }
}

/// The status after a visit that failed: what stands, and why it does not go on.
pub fn failed(error: &Error, moment: &Moment<'_>) -> AzoraDataLayerStatus {
    let before = moment.previous;
    let mut statements = Statements::new(moment);
    for condition in &before.conditions {
        if !["Progressing", "Ready"].contains(&condition.type_.as_str()) {
            statements.keep(&condition.type_);
        }
    }
    statements.say("Progressing", Said::yes(error.reason(), error.chain()));
    if before.observed_generation == Some(moment.generation) {
        statements.keep("Ready");
    } else {
        statements.say("Ready", Said::no(error.reason(), "the spec could not be carried out yet"));
    }
    AzoraDataLayerStatus {
        // The spec was seen; the conditions say how far it came.
        observed_generation: before.observed_generation,
        conditions: statements.finish(),
        ..before.clone()
    }
}

/// The status of a layer on its way out.
pub fn removing(pods: usize, moment: &Moment<'_>) -> AzoraDataLayerStatus {
    let mut statements = Statements::new(moment);
    statements.keep("Accepted");
    statements.say("Ready", Said::no("Deleting", "the data layer is being deleted"));
    let message = format!("volumes and credentials go once {pods} pods have stopped");
    AzoraDataLayerStatus {
        observed_generation: Some(moment.generation),
        phase: Phase::Deleting,
        conditions: statements.finish(),
        waiting: vec![since("PodsStop", message, moment)],
        ..AzoraDataLayerStatus::default()
    }
}

/// Whether a status says something.
pub fn condition_is(status: &AzoraDataLayerStatus, type_: &str, value: &str) -> bool {
    find(status, type_).is_some_and(|condition| condition.status == value)
}

/// A condition by its type.
pub fn find<'a>(status: &'a AzoraDataLayerStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

fn accepted(holds: &[Hold]) -> Said {
    match holds.iter().find(|hold| hold.blocked) {
        Some(hold) => Said::no(hold.gate, hold.message.clone()),
        None => Said::yes("Valid", "the spec is accepted"),
    }
}

fn degradation(degraded: bool, broken: &str, healths: &[Health]) -> Said {
    if degraded {
        return Said::yes("NotWorking", format!("was ready, and is not: {broken}"));
    }
    match healths.iter().find_map(|health| health.version_differs.clone()) {
        Some(message) => Said::yes("VersionDiffers", message),
        None => Said::no("AsExpected", "nothing that worked has stopped working"),
    }
}

fn phase(layer: &Layer, holds: &[Hold], ready: bool, degraded: bool) -> Phase {
    match () {
        () if holds.iter().any(|hold| hold.blocked) => Phase::Refused,
        () if layer.paused => Phase::Paused,
        () if ready => Phase::Ready,
        () if degraded => Phase::Degraded,
        () => Phase::Progressing,
    }
}

fn component(health: &Health, all_ready: bool, degraded: bool) -> ComponentStatus {
    ComponentStatus {
        phase: match (health.works || all_ready, degraded) {
            (true, _) => Phase::Ready,
            (false, true) => Phase::Degraded,
            (false, false) => Phase::Progressing,
        },
        ready: format!("{}/{}", health.ready, health.wanted),
        primary: health.primary.clone(),
        instances: health.instances.clone(),
        version: health.version.clone(),
        lag: None,
        endpoint: health.endpoint.clone(),
    }
}

fn waiting(healths: &[Health], holds: &[Hold], moment: &Moment<'_>) -> Vec<Waiting> {
    let mut waiting: Vec<Waiting> = holds.iter().map(|hold| since(hold.gate, hold.message.clone(), moment)).collect();
    for health in healths {
        // A component that is held has said so above, more precisely.
        if !health.works && !holds.iter().any(|hold| hold.component == health.component) {
            waiting.push(since(health.component.condition(), health.message.clone(), moment));
        }
    }
    waiting.sort_by(|left, right| left.since.cmp(&right.since));
    waiting
}

fn since(gate: &str, message: String, moment: &Moment<'_>) -> Waiting {
    let earlier = moment.previous.waiting.iter().find(|waiting| waiting.gate == gate);
    let since = earlier.map_or_else(|| conditions::time(moment.now), |waiting| waiting.since.clone());
    Waiting { gate: gate.to_owned(), since, message }
}

#[cfg(test)]
mod tests;
