//! What is measured on the cluster that `up` made: memory of the operator and of Nexus at rest, and the time
//! from apply to Ready of a fresh data layer whose images are on the nodes.

use super::memory;
use crate::cluster::{self, Cluster};
use crate::output::Step;
use crate::{run, store, up};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Made for the measurement and deleted after it.
const NAMESPACE: &str = "azora-bench";

/// Fresh data layers, one after the other: one start alone may be lucky.
const STARTS: usize = 3;

/// How long a start may take before the measurement is given up.
const READY_WITHIN: &str = "--timeout=300s";

/// What was measured there; memory is absent where the nodes do not run on this machine.
#[derive(Serialize)]
pub(super) struct Figures {
    pub(super) operator_bytes: Option<u64>,
    pub(super) nexus_bytes: Option<u64>,
    pub(super) ready_seconds: Vec<f64>,
}

/// Measures on the cluster, which is brought up where none is.
pub(super) fn measure() -> Result<Figures> {
    let cluster = if let Some(cluster) = cluster::existing()? {
        cluster
    } else {
        up::run(&up::Args::default())?;
        cluster::existing()?.context("find the cluster that has just come up")?
    };
    // The memory first: the starts below give the operator work.
    let operator_bytes = memory_of(&cluster, "azora-system", "azora-operator", "azora-operator")?;
    let nexus_bytes = memory_of(&cluster, "azora", "nexus", "nexus")?;
    let started = (0..STARTS).map(|_| apply_to_ready(&cluster).map(|took| took.as_secs_f64()));
    Ok(Figures { operator_bytes, nexus_bytes, ready_seconds: started.collect::<Result<_>>()? })
}

/// Resident memory of `program` in the first pod with the label `name`.
fn memory_of(cluster: &Cluster, namespace: &str, name: &str, program: &str) -> Result<Option<u64>> {
    let selector = format!("--selector=app.kubernetes.io/name={name}");
    let uids = "--output=jsonpath={.items[*].metadata.uid}";
    let said = run::text(&mut cluster.kubectl(["get", "pods", "--namespace", namespace, &selector, uids]))?;
    Ok(said.split_whitespace().find_map(|uid| memory::of_pod(uid, program)))
}

fn apply_to_ready(cluster: &Cluster) -> Result<Duration> {
    let step = Step::start("a fresh data layer, from apply to Ready");
    remove(cluster)?;
    run::quiet(&mut cluster.kubectl(["create", "namespace", NAMESPACE]))?;
    let example = store::clone_root().join("examples/development.yaml");
    let started = Instant::now();
    run::quiet(cluster.kubectl(["apply", "--namespace", NAMESPACE, "--filename"]).arg(example))?;
    let wait = ["wait", "--namespace", NAMESPACE, "azoradatalayer/demo", "--for=condition=Ready", READY_WITHIN];
    let ready = run::quiet(&mut cluster.kubectl(wait)).context("wait until a fresh data layer is Ready");
    let took = started.elapsed();
    remove(cluster)?;
    ready?;
    step.done("");
    Ok(took)
}

fn remove(cluster: &Cluster) -> Result<()> {
    run::quiet(&mut cluster.kubectl(["delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait"]))
}
