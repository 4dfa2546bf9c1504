//! One test in a namespace of its own: made restricted, removed afterwards, its state dumped when the test fails.
//! Must never leave a namespace behind, unless `AZORA_TEST_KEEP` asks for it.
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use tokio::sync::Semaphore;

use crate::cluster::Cluster;
use crate::dump;
use crate::wait::{Look, wait_for};

/// How many tests work at a time: more of them on two cores only make each other slow. Fair, first come first served.
static ADMISSION: Semaphore = Semaphore::const_new(PLACES as usize);
const PLACES: u32 = 3;
/// Pods get their grace period and volumes are wiped by a helper pod each, so a namespace takes a while to go.
const REMOVAL: Duration = Duration::from_mins(3);

/// How a test shares the cluster with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Runs beside a few others.
    Shared,
    /// Runs while no shared test does: it disturbs the operator that all have in common.
    Alone,
    /// Runs at any time: it only looks, so it takes no place from those that work.
    Onlooker,
}

/// What a test gets: the cluster and a namespace that is its own.
pub struct Trial {
    /// The cluster under test.
    pub cluster: Cluster,
    /// The namespace of this test, with the `restricted` Pod Security Standard enforced.
    pub namespace: String,
}

impl Trial {
    /// An API handle for objects of the test's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        <K as kube::Resource>::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }
}

/// Runs `test` in a new namespace. Returns its error, or goes on with its panic, after dump and removal.
pub async fn trial(
    name: &str,
    company: Company,
    test: impl AsyncFnOnce(&Trial) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let places = match company {
        Company::Shared => 1,
        Company::Alone => PLACES,
        Company::Onlooker => 0,
    };
    let admitted = ADMISSION.acquire_many(places).await.context("the semaphore of the tests is closed")?;
    let trial = open(name).await?;
    let outcome = AssertUnwindSafe(test(&trial)).catch_unwind().await;
    if !matches!(outcome, Ok(Ok(()))) {
        dump::write(&trial, &dump::cause(&outcome)).await;
    }
    // Removal is mostly waiting, so the next test may begin.
    drop(admitted);
    let removed = if std::env::var_os("AZORA_TEST_KEEP").is_some() { Ok(()) } else { remove(&trial).await };
    match outcome {
        Ok(outcome) => outcome.and(removed),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

async fn open(name: &str) -> anyhow::Result<Trial> {
    let cluster = Cluster::connect().await?;
    let namespace = format!("e2e-{name}-{:06x}", rand::random::<u32>() & 0x00ff_ffff);
    let labels = [
        ("pod-security.kubernetes.io/enforce", "restricted"),
        ("pod-security.kubernetes.io/enforce-version", "latest"),
        ("azora.io/purpose", "end-to-end-test"),
    ];
    let object = Namespace {
        metadata: ObjectMeta {
            name: Some(namespace.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    namespaces
        .create(&PostParams::default(), &object)
        .await
        .with_context(|| format!("create namespace {namespace}"))?;
    Ok(Trial { cluster, namespace })
}

/// Removes the namespace and waits until it is gone: one that stays means that a finalizer was never taken off.
async fn remove(trial: &Trial) -> anyhow::Result<()> {
    let namespaces = Api::<Namespace>::all(trial.cluster.client.clone());
    let name = trial.namespace.as_str();
    namespaces.delete(name, &DeleteParams::default()).await.with_context(|| format!("delete namespace {name}"))?;
    wait_for(&format!("namespace {name} to be gone"), REMOVAL, async || {
        Ok(match namespaces.get_opt(name).await? {
            None => Look::Done(()),
            Some(namespace) => Look::Not(leftovers(&namespace)),
        })
    })
    .await
}

/// Why a namespace is still there, in the words of its own conditions.
fn leftovers(namespace: &Namespace) -> String {
    let conditions = namespace.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let messages = conditions.filter(|condition| condition.status == "True");
    messages.filter_map(|condition| condition.message.clone()).collect::<Vec<_>>().join("; ")
}
