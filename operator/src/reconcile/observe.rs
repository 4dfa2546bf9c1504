//! What a visit sees: our own live objects, credentials, volumes, pods, and what the databases themselves say.
//! Only reads. The lists are by label, so their cost is that of one layer.

use crate::answer::Answer;
use crate::component::{mongo, nexus, postgres, redis};
use crate::credentials::Credentials;
use crate::entropy::Entropy;
use crate::error::Error;
use crate::layer::Layer;
use crate::names::{self, Component, PATRONI_ROLE_LABEL, PATRONI_SCOPE_LABEL};
use crate::reconcile::objects::Objects;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use kube::api::{Api, ListParams, ObjectMeta, PartialObjectMeta};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::fmt::Debug;

/// Everything that a plan and a status are made from.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Our own objects as they are.
    pub live: Objects,
    /// The Secret of generated credentials.
    pub credentials: Option<Secret>,
    /// Volume claims.
    pub claims: Vec<Claim>,
    /// Pods.
    pub pods: Vec<SeenPod>,
    /// Names of the ConfigMaps in which Patroni keeps its state.
    pub patroni_state: Vec<String>,
    /// A digest of the user's event types; none when there is no such ConfigMap, or none is named.
    pub event_types: Option<String>,
    /// What the databases say.
    pub answers: Answers,
}

/// A volume claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// The component it belongs to, as the label says.
    pub component: String,
    /// The size it was made with.
    pub size: String,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenPod {
    /// Its name.
    pub name: String,
    /// The component it belongs to, as the label says.
    pub component: String,
    /// The role that Patroni gave it.
    pub role: String,
    /// Whether its container has started, by its own startup probe.
    pub started: bool,
}

/// What each component says of itself.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Postgres.
    pub postgres: Answer<postgres::database::Step>,
    /// `MongoDB`.
    pub mongo: Answer<mongo::database::Step>,
    /// Redis.
    pub redis: Answer<Infallible>,
    /// Nexus.
    pub nexus: Answer<Infallible>,
}

impl Default for Answers {
    fn default() -> Self {
        Self { postgres: Answer::NotAsked, mongo: Answer::NotAsked, redis: Answer::NotAsked, nexus: Answer::NotAsked }
    }
}

/// Looks at everything of one layer.
pub async fn observe(client: &Client, layer: &Layer) -> Result<Observed, Error> {
    let (live, credentials, claims, pods, patroni_state, event_types) = tokio::try_join!(
        list_ours(client, layer),
        read_credentials(client, &layer.namespace, &layer.name),
        list_claims(client, &layer.namespace, &layer.name),
        list_pods(client, &layer.namespace, &layer.name),
        list_patroni_state(client, &layer.namespace, &layer.name),
        read_event_types(client, layer),
    )?;
    let answers = match &credentials {
        Some(secret) => ask(layer, secret, &live, &pods).await,
        None => Answers::default(),
    };
    Ok(Observed { live, credentials, claims, pods, patroni_state, event_types, answers })
}

/// Asks all databases at once. One without a ready pod is not asked: a host name that does not exist yet would be
/// remembered as missing by the cluster's name service for half a minute.
async fn ask(layer: &Layer, secret: &Secret, live: &Objects, pods: &[SeenPod]) -> Answers {
    // Nothing is lacking in a Secret that plan has completed; if something is, the answer is a refused login.
    let (credentials, _) = Credentials::complete(Some(secret), &Entropy::new([0; 32]));
    let ready = |component| stateful_set_ready(live, &names::of(layer, component)) > 0;
    let postgres = async {
        if ready(Component::Postgres) {
            twice(|| postgres::database::observe(layer, &credentials)).await
        } else {
            Answer::NotAsked
        }
    };
    let mongo = async {
        // Its members are ready only once the set is initiated, which is ours to do; a started one is enough.
        if pods.iter().any(|pod| pod.component == Component::Mongo.word() && pod.started) {
            twice(|| mongo::database::observe(layer, &credentials)).await
        } else {
            Answer::NotAsked
        }
    };
    let redis = async {
        if ready(Component::Redis) {
            twice(|| redis::database::observe(layer, &credentials)).await
        } else {
            Answer::NotAsked
        }
    };
    let nexus = async {
        if deployment_ready(live, &names::of(layer, Component::Nexus)) > 0 {
            twice(|| nexus::observe(layer)).await
        } else {
            Answer::NotAsked
        }
    };
    let (postgres, mongo, redis, nexus) = tokio::join!(postgres, mongo, redis, nexus);
    Answers { postgres, mongo, redis, nexus }
}

/// One late answer of a busy machine, or one broken connection, is no outage: whoever did not answer is asked again
/// at once, with the same patience.
async fn twice<S, Asked: Future<Output = Answer<S>>>(ask: impl Fn() -> Asked) -> Answer<S> {
    match ask().await {
        Answer::Unreachable { .. } => ask().await,
        answer => answer,
    }
}

/// Ready pods of a StatefulSet, as Kubernetes counts them.
pub fn stateful_set_ready(live: &Objects, name: &str) -> i32 {
    let found = live.stateful_sets.iter().find(|set| set.metadata.name.as_deref() == Some(name));
    found.and_then(|set| set.status.as_ref()?.ready_replicas).unwrap_or(0)
}

/// Ready pods of a Deployment, as Kubernetes counts them.
pub fn deployment_ready(live: &Objects, name: &str) -> i32 {
    let found = live.deployments.iter().find(|set| set.metadata.name.as_deref() == Some(name));
    found.and_then(|set| set.status.as_ref()?.ready_replicas).unwrap_or(0)
}

async fn list_ours(client: &Client, layer: &Layer) -> Result<Objects, Error> {
    let labels = names::list_selector(&layer.name);
    let namespace = layer.namespace.as_str();
    let (service_accounts, roles, role_bindings, config_maps, secrets) = tokio::try_join!(
        list(client, namespace, &labels),
        list(client, namespace, &labels),
        list(client, namespace, &labels),
        list(client, namespace, &labels),
        list::<Secret>(client, namespace, &labels),
    )?;
    let (services, network_policies, disruption_budgets, stateful_sets, deployments) = tokio::try_join!(
        list(client, namespace, &labels),
        list(client, namespace, &labels),
        list(client, namespace, &labels),
        list(client, namespace, &labels),
        list(client, namespace, &labels),
    )?;
    // The credentials carry our labels and no owner: they are none of the objects that may be applied or pruned.
    let secrets = secrets.into_iter().filter(|secret| secret.name_any() != names::credentials(&layer.name)).collect();
    Ok(Objects {
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
    })
}

async fn list<K>(client: &Client, namespace: &str, labels: &str) -> Result<Vec<K>, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(labels)).await;
    let list = list.map_err(|cause| Error::ListObjects { kind: K::kind(&()).into_owned(), cause: Box::new(cause) })?;
    Ok(list.items)
}

/// The Secret of generated credentials, if it is there.
pub async fn read_credentials(client: &Client, namespace: &str, layer: &str) -> Result<Option<Secret>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let name = names::credentials(layer);
    api.get_opt(&name).await.map_err(|cause| Error::ReadCredentials { name, cause: Box::new(cause) })
}

/// Whoever changes the ConfigMap does not change the layer: it is read on every visit, and a steady layer has one twice a
/// minute.
async fn read_event_types(client: &Client, layer: &Layer) -> Result<Option<String>, Error> {
    let Some(name) = &layer.nexus.event_types else { return Ok(None) };
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &layer.namespace);
    let read = api.get_opt(name).await;
    let read = read.map_err(|cause| Error::ReadEventTypes { name: name.clone(), cause: Box::new(cause) })?;
    Ok(read.as_ref().map(nexus::digest_of_event_types))
}

/// The volume claims of a layer.
pub async fn list_claims(client: &Client, namespace: &str, layer: &str) -> Result<Vec<Claim>, Error> {
    let claims: Vec<PersistentVolumeClaim> = list(client, namespace, &names::list_selector(layer)).await?;
    let seen = |claim: PersistentVolumeClaim| Claim {
        name: claim.name_any(),
        component: label(&claim.metadata, "app.kubernetes.io/name"),
        size: claim.spec.and_then(|spec| Some(spec.resources?.requests?.remove("storage")?.0)).unwrap_or_default(),
    };
    Ok(claims.into_iter().map(seen).collect())
}

/// The pods of a layer.
pub async fn list_pods(client: &Client, namespace: &str, layer: &str) -> Result<Vec<SeenPod>, Error> {
    let pods: Vec<Pod> = list(client, namespace, &names::list_selector(layer)).await?;
    let seen = |pod: Pod| {
        let mut containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let started = containers.any(|container| container.started == Some(true));
        SeenPod {
            name: pod.name_any(),
            component: label(&pod.metadata, "app.kubernetes.io/name"),
            role: label(&pod.metadata, PATRONI_ROLE_LABEL),
            started,
        }
    };
    Ok(pods.into_iter().map(seen).collect())
}

/// Names of the ConfigMaps in which Patroni keeps its lock, its configuration and the identity of the database.
pub async fn list_patroni_state(client: &Client, namespace: &str, layer: &str) -> Result<Vec<String>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let labels = format!("{PATRONI_SCOPE_LABEL}={layer}-{}", Component::Postgres.word());
    let list = api.list_metadata(&ListParams::default().labels(&labels)).await;
    let kind = "ConfigMap".to_owned();
    let list = list.map_err(|cause| Error::ListObjects { kind, cause: Box::new(cause) })?;
    Ok(list.items.iter().map(|item: &PartialObjectMeta<ConfigMap>| item.name_any()).collect())
}

fn label(meta: &ObjectMeta, key: &str) -> String {
    meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Working;
    use std::cell::RefCell;
    use std::future::ready;

    fn missed() -> Answer<Infallible> {
        Answer::Unreachable { cause: "no answer within 5 s".to_owned() }
    }

    #[tokio::test]
    async fn who_misses_one_question_is_asked_again_and_who_answers_is_not() {
        let works = Answer::Works(Working::default());
        for (mut answers, said, left) in [
            (vec![works.clone(), missed()], works.clone(), 0),
            (vec![works.clone(), missed(), missed()], missed(), 1),
            (vec![missed(), works.clone()], works.clone(), 1),
        ] {
            let answers = RefCell::new(std::mem::take(&mut answers));
            let answer = twice(|| ready(answers.borrow_mut().pop().expect("asked at most twice"))).await;
            assert_eq!((answer, answers.borrow().len()), (said, left));
        }
    }
}
