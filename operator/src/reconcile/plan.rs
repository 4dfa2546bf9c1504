//! What a visit will do, as plain data. Pure: the same layer, observation and entropy give the same plan, so it can be
//! tested by files, shown before it runs, and explained while it waits. It cannot fail.

use crate::answer::Answer;
use crate::api::Amount;
use crate::component::{mongo, network, nexus, postgres, redis};
use crate::credentials::Credentials;
use crate::entropy::Entropy;
use crate::layer::Layer;
use crate::names::{self, Component};
use crate::reconcile::objects::Objects;
use crate::reconcile::observe::Observed;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use serde::Serialize;

/// What a visit will do.
#[derive(Debug)]
pub struct Plan {
    /// Credentials to store before anything else, where some were lacking.
    pub credentials: Option<Secret>,
    /// Every object that is to be there, and as it is to be.
    pub objects: Objects,
    /// Changes inside the databases.
    pub steps: Vec<Step>,
    /// State that Patroni left and that no volume goes with any more.
    pub stale_patroni_state: Vec<String>,
    /// What waits, and for what.
    pub holds: Vec<Hold>,
    /// The credentials in use, for `steps`.
    pub secrets: Credentials,
}

/// A change inside a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Step {
    /// In Postgres.
    Postgres(postgres::database::Step),
    /// In `MongoDB`.
    Mongo(mongo::database::Step),
}

/// Something that waits. A value in the status, never a sleep and never an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// What waits.
    #[serde(skip)]
    pub component: Component,
    /// One word for what stands in the way.
    pub gate: &'static str,
    /// A sentence for a person.
    pub message: String,
    /// Whether only the user can take it out of the way.
    pub blocked: bool,
}

/// Plans a visit.
pub fn plan(layer: &Layer, observed: &Observed, entropy: &Entropy) -> Plan {
    let (secrets, lacking) = Credentials::complete(observed.credentials.as_ref(), entropy);
    let blocks = blocks(layer, observed);
    let fresh = lacking && blocks.is_empty();
    let mut plan = Plan {
        credentials: fresh.then(|| secrets.secret(layer, observed.credentials.as_ref())),
        objects: Objects::default(),
        steps: steps(observed),
        stale_patroni_state: stale_patroni_state(layer, observed),
        holds: blocks,
        secrets,
    };
    if !plan.holds.is_empty() {
        // Objects made over volumes that do not fit could only do harm.
        return plan;
    }
    plan.objects.extend(postgres::desired(layer));
    plan.objects.extend(mongo::desired(layer));
    plan.objects.extend(redis::desired(layer, &plan.secrets));
    plan.objects.extend(nexus::surroundings(layer, &plan.secrets));
    plan.objects.network_policies.extend(network::desired(layer));
    let live = live_nexus(layer, observed);
    plan.holds = if live.is_some() { Vec::new() } else { nexus_holds(observed) };
    let lacks_types = event_types_hold(layer, observed);
    // A Nexus that runs keeps the types it has.
    let makes_nexus = live.is_some() || (plan.holds.is_empty() && lacks_types.is_none());
    plan.holds.extend(lacks_types);
    if makes_nexus {
        let event_types = layer.nexus.event_types.as_ref();
        let event_types =
            event_types.and_then(|_| observed.event_types.clone().or_else(|| nexus::live_event_types(live?)));
        let workload = nexus::workload(layer, &plan.secrets, event_types.as_deref());
        plan.objects.extend(workload);
    }
    plan
}

fn live_nexus<'a>(layer: &Layer, observed: &'a Observed) -> Option<&'a Deployment> {
    let name = names::of(layer, Component::Nexus);
    observed.live.deployments.iter().find(|live| live.metadata.name.as_ref() == Some(&name))
}

/// The user's event types are named, and not there: a pod would wait for their ConfigMap without a word.
fn event_types_hold(layer: &Layer, observed: &Observed) -> Option<Hold> {
    let name = layer.nexus.event_types.as_ref().filter(|_| observed.event_types.is_none())?;
    Some(Hold {
        component: Component::Nexus,
        gate: "EventTypesMissing",
        message: format!("spec.nexus.eventTypesConfigMap is {name}, and there is no ConfigMap of this name: make it"),
        blocked: true,
    })
}

/// Nexus is first made when its stores work, or its migrations would fail over and over. Once made it stays: an
/// outage of a store is no reason to take it away.
fn nexus_holds(observed: &Observed) -> Vec<Hold> {
    let answers = &observed.answers;
    let stores = [
        (Component::Postgres, matches!(answers.postgres, Answer::Works(_))),
        (Component::Mongo, matches!(answers.mongo, Answer::Works(_))),
        (Component::Redis, matches!(answers.redis, Answer::Works(_))),
    ];
    let waits = stores.into_iter().filter(|(_, works)| !works).map(|(store, _)| Hold {
        component: Component::Nexus,
        gate: match store {
            Component::Postgres => "NexusWaitsForPostgres",
            Component::Mongo => "NexusWaitsForMongo",
            Component::Redis | Component::Nexus => "NexusWaitsForRedis",
        },
        message: format!("Nexus is made once a write and a read in {} succeed", store.title()),
        blocked: false,
    });
    waits.collect()
}

/// What only the user can mend and what must not be worked around.
fn blocks(layer: &Layer, observed: &Observed) -> Vec<Hold> {
    let mut blocks = Vec::new();
    if observed.credentials.is_none() && observed.claims.iter().any(|claim| claim.component != "redis") {
        blocks.push(Hold {
            component: Component::Postgres,
            gate: "CredentialsMissing",
            message: format!(
                "volumes of this name are there, but the Secret {} that opens them is not: restore it, or delete the volumes",
                names::credentials(&layer.name)
            ),
            blocked: true,
        });
    }
    let sizes = [
        (Component::Postgres, &layer.postgres.storage.size),
        (Component::Mongo, &layer.mongo.storage.size),
        (Component::Redis, &layer.redis.storage.size),
    ];
    for (component, size) in sizes {
        let claims = observed.claims.iter().filter(|claim| claim.component == component.word());
        for claim in claims {
            if Amount::new(claim.size.clone()).units() != size.units() {
                blocks.push(Hold {
                    component,
                    gate: "StorageDiffers",
                    message: format!(
                        "spec.{}.storage.size is {}, but the volume claim {} was made with {}: set it to that, or delete the claim",
                        component.word(),
                        size.text(),
                        claim.name,
                        claim.size
                    ),
                    blocked: true,
                });
            }
        }
    }
    blocks
}

fn steps(observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Answer::Lacks(step) = &observed.answers.postgres {
        steps.push(Step::Postgres(*step));
    }
    if let Answer::Lacks(step) = &observed.answers.mongo {
        steps.push(Step::Mongo(step.clone()));
    }
    steps
}

/// Patroni refuses volumes that are not those of its state. When all volumes of Postgres are gone, deleted by hand
/// after the resource was, and nothing runs, the state is of no more use and would keep a new database from starting.
fn stale_patroni_state(layer: &Layer, observed: &Observed) -> Vec<String> {
    let name = names::of(layer, Component::Postgres);
    let volumes = observed.claims.iter().any(|claim| claim.component == Component::Postgres.word());
    let pods = observed.pods.iter().any(|pod| pod.component == Component::Postgres.word());
    let workload = observed.live.stateful_sets.iter().any(|live| live.metadata.name.as_ref() == Some(&name));
    if volumes || pods || workload { Vec::new() } else { observed.patroni_state.clone() }
}
