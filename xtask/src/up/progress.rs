//! Waits until the demo's data layer is Ready on the images of this run, and says meanwhile what each component waits
//! for.

use super::demo::{LAYER, NAMESPACE};
use crate::cluster::Cluster;
use crate::images::Image;
use crate::output::Step;
use crate::run;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long the data layer may take with its images on the nodes: it takes half a minute when the machine is idle.
const READY_SECONDS_MAX: u64 = 300;

const COMPONENTS: [&str; 4] = ["postgres", "mongo", "redis", "nexus"];

/// What the resource says of itself.
#[derive(Debug, PartialEq)]
enum State {
    Ready,
    /// The operator refuses the spec; waiting is of no use.
    Refused(String),
    /// Not there yet, and why.
    Waiting(String),
}

/// Waits for Ready, with `images` in every pod: a new operator finds the Ready that the old one wrote.
///
/// # Errors
/// When the operator refuses the resource or the time is up; the message says what is waited for.
pub(super) fn until_ready(cluster: &Cluster, images: &[Image]) -> Result<()> {
    let step = Step::start(format!("data layer {LAYER}"));
    let deadline = Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
    let mut said = String::new();
    loop {
        // Before the layer: a status read later than this is of no older images.
        let outdated = outdated(&workloads(cluster)?, |reference| images.iter().any(|one| one.reference == reference));
        let layer = get(cluster)?;
        let waiting = match state(&layer) {
            State::Ready if !outdated.is_empty() => format!("new images in {}", outdated.join(", ")),
            State::Ready => {
                step.done(&components(&layer));
                return Ok(());
            }
            State::Refused(why) => bail!("the operator refuses the data layer {LAYER}: {why}"),
            State::Waiting(on) => on,
        };
        if Instant::now() > deadline {
            bail!(
                "the data layer {LAYER} is not Ready after {READY_SECONDS_MAX} s\nit waits for: {waiting}\n{}\n\
                 Look at `kubectl --context {} -n {NAMESPACE} describe adl {LAYER}` and at the operator's log, \
                 then run this command again: it goes on from here",
                pods(cluster),
                cluster.context()
            );
        }
        if waiting != said {
            step.waiting(&waiting);
            said = waiting;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn get(cluster: &Cluster) -> Result<Value> {
    let arguments = ["--namespace", NAMESPACE, "get", "azoradatalayer", LAYER, "--output=json"];
    let text = run::text(&mut cluster.kubectl(arguments)).context("read the data layer")?;
    serde_json::from_str(&text).context("read the data layer's JSON")
}

fn workloads(cluster: &Cluster) -> Result<Value> {
    let selector = format!("--selector=app.kubernetes.io/managed-by=azora-operator,app.kubernetes.io/instance={LAYER}");
    let arguments = ["--namespace", NAMESPACE, "get", "deployments,statefulsets", &selector, "--output=json"];
    let text = run::text(&mut cluster.kubectl(arguments)).context("read the data layer's workloads")?;
    serde_json::from_str(&text).context("read the workloads' JSON")
}

/// The workloads that have a pod of another image than those of this run, or are not rolled out.
fn outdated(workloads: &Value, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let is_outdated = |workload: &&Value| {
        let (spec, status) = (&workload["spec"], &workload["status"]);
        let containers = spec["template"]["spec"]["containers"].as_array();
        let current = containers.into_iter().flatten().all(|one| one["image"].as_str().is_some_and(&wanted));
        let seen = status["observedGeneration"] == workload["metadata"]["generation"];
        let counts = [&status["updatedReplicas"], &status["replicas"]];
        !(current && seen && counts.iter().all(|count| **count == spec["replicas"]))
    };
    let items = workloads["items"].as_array().map_or(&[][..], Vec::as_slice);
    items.iter().filter(is_outdated).map(|one| text(&one["metadata"]["name"])).collect()
}

fn state(layer: &Value) -> State {
    let generation = &layer["metadata"]["generation"];
    if &layer["status"]["observedGeneration"] != generation {
        return State::Waiting("the operator to look at it".into());
    }
    if let Some(accepted) = condition(layer, "Accepted").filter(|accepted| accepted["status"] == "False") {
        return State::Refused(text(&accepted["message"]));
    }
    if condition(layer, "Ready").is_some_and(|ready| ready["status"] == "True") {
        return State::Ready;
    }
    State::Waiting(format!("{}{}", components(layer), gates(layer)))
}

fn condition<'a>(layer: &'a Value, kind: &str) -> Option<&'a Value> {
    layer["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// `postgres 1/1, mongo 0/1 Creating, …`: the phase only where it says more than the count.
fn components(layer: &Value) -> String {
    let component = |name: &str| {
        let status = &layer["status"][name];
        let ready = status["ready"].as_str().unwrap_or("?");
        let phase = status["phase"].as_str().filter(|phase| *phase != "Ready").unwrap_or_default();
        format!("{name} {ready} {phase}").trim_end().to_owned()
    };
    COMPONENTS.map(component).join(", ")
}

/// What stands in the way, each with its message.
fn gates(layer: &Value) -> String {
    let waiting = layer["status"]["waiting"].as_array().map_or(&[][..], Vec::as_slice);
    let gates: Vec<String> =
        waiting.iter().map(|gate| format!("{}: {}", text(&gate["gate"]), text(&gate["message"]))).collect();
    if gates.is_empty() { String::new() } else { format!(" | {}", gates.join("; ")) }
}

fn pods(cluster: &Cluster) -> String {
    run::text(&mut cluster.kubectl(["--namespace", NAMESPACE, "get", "pods", "--output=wide"])).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn layer(ready: &str, observed: i64) -> Value {
        json!({
            "metadata": {"generation": 2},
            "status": {
                "observedGeneration": observed,
                "conditions": [{"type": "Accepted", "status": "True"}, {"type": "Ready", "status": ready}],
                "postgres": {"ready": "1/1", "phase": "Ready"},
                "mongo": {"ready": "0/1", "phase": "Creating"},
                "waiting": [{"gate": "MongoReplicaSet", "message": "the first member elects itself"}],
            },
        })
    }

    #[test]
    fn an_unfinished_layer_names_each_component_and_each_gate() {
        let want =
            "postgres 1/1, mongo 0/1 Creating, redis ?, nexus ? | MongoReplicaSet: the first member elects itself";
        assert_eq!(state(&layer("False", 2)), State::Waiting(want.into()));
    }

    #[test]
    fn ready_counts_only_for_the_spec_that_stands() {
        assert_eq!(state(&layer("True", 2)), State::Ready);
        assert_eq!(state(&layer("True", 1)), State::Waiting("the operator to look at it".into()));
        assert_eq!(state(&json!({"metadata": {"generation": 1}})), State::Waiting("the operator to look at it".into()));
    }

    #[test]
    fn a_refused_spec_ends_the_wait() {
        let mut refused = layer("False", 2);
        refused["status"]["conditions"][0] = json!({"type": "Accepted", "status": "False", "message": "spec.x: no"});
        assert_eq!(state(&refused), State::Refused("spec.x: no".into()));
    }

    #[test]
    fn a_workload_is_outdated_until_all_its_pods_have_the_image_of_this_run() {
        let workloads = |image: &str, observed: i64, updated: i64, replicas: i64| {
            json!({"items": [{
                "metadata": {"name": "demo-nexus", "generation": 2},
                "spec": {"replicas": 1, "template": {"spec": {"containers": [{"image": image}]}}},
                "status": {"observedGeneration": observed, "updatedReplicas": updated, "replicas": replicas},
            }]})
        };
        let outdated = |workloads: &Value| outdated(workloads, |image| image == "azora/nexus:new");
        assert_eq!(outdated(&workloads("azora/nexus:new", 2, 1, 1)), [""; 0]);
        for late in [
            workloads("azora/nexus:old", 2, 1, 1), // The operator has not looked yet.
            workloads("azora/nexus:new", 1, 1, 1), // The Deployment's controller has not.
            workloads("azora/nexus:new", 2, 0, 1), // The new pod is not there.
            workloads("azora/nexus:new", 2, 1, 2), // The old pod is still there.
        ] {
            assert_eq!(outdated(&late), ["demo-nexus"], "{late}");
        }
    }
}
