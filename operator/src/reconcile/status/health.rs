//! Whether each component works, from what Kubernetes counts and what the component itself says. Pure.

use super::conditions::Said;
use crate::answer::{Answer, Working};
use crate::layer::Layer;
use crate::names::{self, Component, MONGO_PORT, NEXUS_PORT, POSTGRES_PORT, REDIS_PORT};
use crate::reconcile::objects::Objects;
use crate::reconcile::observe::Observed;
use crate::reconcile::plan::Hold;

/// How one component is.
pub(super) struct Health {
    pub(super) component: Component,
    pub(super) works: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) ready: i32,
    pub(super) wanted: i32,
    pub(super) primary: String,
    pub(super) instances: Vec<String>,
    pub(super) version: String,
    pub(super) endpoint: String,
    pub(super) version_differs: Option<String>,
}

impl Health {
    pub(super) fn said(&self) -> Said {
        if self.works {
            Said::yes(self.reason, self.message.clone())
        } else {
            Said::no(self.reason, self.message.clone())
        }
    }
}

/// How far Kubernetes is with a workload.
struct Rollout {
    wanted: i32,
    ready: i32,
    /// Whether the counts are about the spec that was applied, and all pods are of it.
    settled: bool,
}

/// All components in the order of the status.
pub(super) fn all(layer: &Layer, live: &Objects, observed: &Observed, holds: &[Hold]) -> [Health; 4] {
    Component::ALL.map(|component| one(component, layer, live, (observed, holds)))
}

fn one(component: Component, layer: &Layer, live: &Objects, (observed, holds): (&Observed, &[Hold])) -> Health {
    let answers = &observed.answers;
    let answer = match component {
        Component::Postgres => flatten(&answers.postgres),
        Component::Mongo => flatten(&answers.mongo),
        Component::Redis => flatten(&answers.redis),
        Component::Nexus => flatten(&answers.nexus),
    };
    let rollout = rollout(component, layer, live);
    let held = holds.iter().find(|hold| hold.component == component);
    let (works, reason, message) = judge(component, &rollout, &answer, held);
    let mut instances: Vec<String> =
        observed.pods.iter().filter(|pod| pod.component == component.word()).map(|pod| pod.name.clone()).collect();
    instances.sort();
    let working = match answer {
        Flat::Works(working) => working,
        _ => Working::default(),
    };
    let primary = match component {
        Component::Postgres => {
            let primary = observed.pods.iter().find(|pod| pod.component == component.word() && pod.role == "primary");
            primary.map(|pod| pod.name.clone()).unwrap_or_default()
        }
        Component::Mongo => working.primary,
        // One instance: it is the primary where it works.
        Component::Redis if works => instances.first().cloned().unwrap_or_default(),
        Component::Redis | Component::Nexus => String::new(),
    };
    Health {
        component,
        works,
        reason,
        message,
        ready: rollout.ready,
        wanted: rollout.wanted,
        primary,
        instances,
        version_differs: version_differs(component, layer, &working.version),
        version: working.version,
        endpoint: endpoint(component, layer),
    }
}

/// An answer without the kind of step that it may lack.
enum Flat {
    NotAsked,
    Unreachable(String),
    Lacks,
    Works(Working),
}

fn flatten<S>(answer: &Answer<S>) -> Flat {
    match answer {
        Answer::NotAsked => Flat::NotAsked,
        Answer::Unreachable { cause } => Flat::Unreachable(cause.clone()),
        Answer::Lacks(_) => Flat::Lacks,
        Answer::Works(working) => Flat::Works(working.clone()),
    }
}

fn judge(component: Component, rollout: &Rollout, answer: &Flat, held: Option<&Hold>) -> (bool, &'static str, String) {
    if let Some(hold) = held {
        return (false, hold.gate, hold.message.clone());
    }
    let Rollout { wanted, ready, settled } = *rollout;
    let title = component.title();
    match answer {
        Flat::Unreachable(cause) => (false, "Unreachable", format!("{title} does not answer as it should: {cause}")),
        Flat::Lacks => (false, "SettingUp", format!("{title} runs; the application's access to it is being made")),
        Flat::NotAsked => (false, "Starting", format!("{title} has {ready} of {wanted} instances ready")),
        Flat::Works(_) if ready < wanted => {
            (false, "InstancesMissing", format!("{title} has {ready} of {wanted} instances ready"))
        }
        Flat::Works(_) if !settled => (false, "RollingOut", format!("{title} takes over a changed spec")),
        Flat::Works(_) => (true, "Working", format!("a write and a read in {title} succeed")),
    }
}

fn rollout(component: Component, layer: &Layer, live: &Objects) -> Rollout {
    let name = names::of(layer, component);
    let wanted = match component {
        Component::Postgres => layer.postgres.workload.count,
        Component::Mongo => layer.mongo.workload.count,
        Component::Redis => layer.redis.workload.count,
        Component::Nexus => layer.nexus.workload.count,
    };
    let mut rollout = Rollout { wanted, ready: 0, settled: false };
    if let Some(set) = live.stateful_sets.iter().find(|set| set.metadata.name.as_ref() == Some(&name)) {
        let status = set.status.clone().unwrap_or_default();
        rollout.ready = status.ready_replicas.unwrap_or(0);
        rollout.settled = status.observed_generation >= set.metadata.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.replicas == wanted;
    }
    if let Some(set) = live.deployments.iter().find(|set| set.metadata.name.as_ref() == Some(&name)) {
        let status = set.status.clone().unwrap_or_default();
        rollout.ready = status.ready_replicas.unwrap_or(0);
        rollout.settled = status.observed_generation >= set.metadata.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.replicas.unwrap_or(0) == wanted;
    }
    rollout
}

fn version_differs(component: Component, layer: &Layer, running: &str) -> Option<String> {
    let expected = match component {
        Component::Postgres => &layer.postgres.version,
        Component::Mongo => &layer.mongo.version,
        Component::Redis => &layer.redis.version,
        Component::Nexus => return None,
    };
    let major = running.split('.').next().unwrap_or_default();
    (!running.is_empty() && major != expected)
        .then(|| format!("{} runs {running}, the spec expects {expected}", component.title()))
}

fn endpoint(component: Component, layer: &Layer) -> String {
    let port = match component {
        Component::Postgres => POSTGRES_PORT,
        Component::Mongo => MONGO_PORT,
        Component::Redis => REDIS_PORT,
        Component::Nexus => NEXUS_PORT,
    };
    format!("{}:{port}", names::host(layer, &names::of(layer, component)))
}
