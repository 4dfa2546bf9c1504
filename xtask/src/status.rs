//! `cargo xtask status`: what is there, read anew from the engine and the cluster; changes nothing.

use crate::cluster::{self, Cluster};
use crate::engine::Engine;
use crate::{chart, output, run, store};
use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

/// Arguments of `cargo xtask status`.
#[derive(clap::Args)]
pub struct Args {
    /// Look at the cluster of this kube context instead of the kind cluster.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is there. Absent parts are `null` or empty.
#[derive(Serialize)]
struct Report {
    /// Folder of built things.
    cache: String,
    /// The Docker Engine, for a person.
    engine: Option<String>,
    /// Containers of the kind cluster.
    nodes: Vec<Node>,
    /// Memory that the nodes hold with all that runs on them.
    memory_bytes: Option<u64>,
    /// The cluster's kube context, when its API server answers.
    context: Option<String>,
    /// The operator's state: `1/1 ready`, or what Helm says.
    operator: Option<String>,
    /// Every data layer in every namespace.
    layers: Vec<Layer>,
    /// What is wrong, each with what to do.
    troubles: Vec<String>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    state: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Layer {
    namespace: String,
    name: String,
    ready: bool,
    phase: String,
    components: Vec<Component>,
    /// What it waits for.
    waiting: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Component {
    name: String,
    /// Ready instances of those wanted, as `3/3`.
    ready: String,
}

/// Prints the report.
pub fn run(args: &Args) -> Result<()> {
    let report = report(args);
    if args.json {
        output::result(&serde_json::to_string_pretty(&report).context("write the report as JSON")?);
    } else {
        output::result(&lines(&report).join("\n"));
    }
    Ok(())
}

/// Trouble with one part is part of the report and does not hide the others.
fn report(args: &Args) -> Report {
    let mut troubles = Vec::new();
    let mut keep = |error: anyhow::Error| troubles.push(format!("{error:#}"));
    let engine = Engine::existing().unwrap_or_else(|error| {
        keep(error);
        None
    });
    let nodes = engine.as_ref().map_or_else(|| Ok(Vec::new()), cluster::describe_nodes).unwrap_or_else(|error| {
        keep(error);
        Vec::new()
    });
    let found = match &args.context {
        Some(name) => cluster::named(name).map(Some),
        None if nodes.is_empty() => Ok(None),
        None => cluster::existing(),
    };
    let cluster = found.unwrap_or_else(|error| {
        keep(error);
        None
    });
    let layers = cluster.as_ref().map_or_else(|| Ok(Vec::new()), layers).unwrap_or_else(|error| {
        keep(error);
        Vec::new()
    });
    let memory_bytes =
        engine.as_ref().filter(|_| !nodes.is_empty()).and_then(|engine| cluster::memory_bytes(engine).ok());
    Report {
        cache: store::root().display().to_string(),
        memory_bytes,
        engine: engine.map(|engine| engine.describe()),
        nodes: nodes.into_iter().map(|(name, state)| Node { name, state }).collect(),
        operator: cluster.as_ref().and_then(operator),
        context: cluster.map(|cluster| cluster.context().to_owned()),
        layers,
        troubles,
    }
}

fn operator(cluster: &Cluster) -> Option<String> {
    let format =
        "--output=jsonpath={.status.readyReplicas}/{.spec.replicas} ready, {.spec.template.spec.containers[0].image}";
    let get = ["--namespace", chart::NAMESPACE, "get", "deployment", chart::RELEASE, format];
    let said = run::text(&mut cluster.kubectl(get)).ok()?;
    Some(if said.starts_with('/') { format!("0{said}") } else { said })
}

fn layers(cluster: &Cluster) -> Result<Vec<Layer>> {
    let defined = ["get", "crd", "azoradatalayers.azora.io", "--ignore-not-found", "--output=name"];
    if run::text(&mut cluster.kubectl(defined)).context("look for the definition of AzoraDataLayer")?.is_empty() {
        return Ok(Vec::new());
    }
    let list = ["get", "azoradatalayers", "--all-namespaces", "--output=json"];
    parse(&run::text(&mut cluster.kubectl(list)).context("list the data layers")?)
}

fn parse(json: &str) -> Result<Vec<Layer>> {
    let list: Value = serde_json::from_str(json).context("read the list of data layers")?;
    Ok(array(&list["items"]).iter().map(layer).collect())
}

fn layer(item: &Value) -> Layer {
    let status = &item["status"];
    let component = |name: &str| {
        let ready = status[name]["ready"].as_str().unwrap_or("?");
        Component { name: name.to_owned(), ready: ready.to_owned() }
    };
    Layer {
        namespace: text(&item["metadata"]["namespace"]),
        name: text(&item["metadata"]["name"]),
        ready: array(&status["conditions"]).iter().any(|each| each["type"] == "Ready" && each["status"] == "True"),
        phase: text(&status["phase"]),
        components: ["postgres", "mongo", "redis", "nexus"].map(component).into(),
        waiting: array(&status["waiting"]).iter().map(|gate| text(&gate["message"])).collect(),
    }
}

fn lines(report: &Report) -> Vec<String> {
    let line = |what: &str, value: &str| format!("{what:<10} {value}");
    let none = "none";
    let nodes: Vec<String> = report.nodes.iter().map(|node| format!("{} {}", node.name, node.state)).collect();
    let nodes = if nodes.is_empty() { none.to_owned() } else { nodes.join(", ") };
    let mut lines = vec![
        line("cache", &report.cache),
        line("engine", report.engine.as_deref().unwrap_or(none)),
        line("nodes", &nodes),
        line("memory", &report.memory_bytes.map_or_else(|| none.to_owned(), output::size)),
        line("context", report.context.as_deref().unwrap_or(none)),
        line("operator", report.operator.as_deref().unwrap_or(none)),
    ];
    for layer in &report.layers {
        let ready = if layer.ready { "Ready" } else { "not Ready" };
        let components: Vec<String> =
            layer.components.iter().map(|each| format!("{} {}", each.name, each.ready)).collect();
        lines.push(line("layer", &format!("{}/{}: {ready}, {}", layer.namespace, layer.name, components.join(", "))));
        lines.extend(layer.waiting.iter().map(|message| line("", &format!("waits for: {message}"))));
    }
    if report.layers.is_empty() {
        lines.push(line("layers", none));
    }
    lines.extend(report.troubles.iter().map(|trouble| line("trouble", trouble)));
    lines
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Layer {
        let counts = [("postgres", "1/1"), ("mongo", "?"), ("redis", "?"), ("nexus", "?")];
        Layer {
            namespace: "azora".into(),
            name: "demo".into(),
            ready: false,
            phase: "Creating".into(),
            components: counts.map(|(name, ready)| Component { name: name.into(), ready: ready.into() }).into(),
            waiting: vec!["the first member elects itself".into()],
        }
    }

    #[test]
    fn a_layer_is_read_with_what_it_waits_for() {
        let json = r#"{"items": [{"metadata": {"namespace": "azora", "name": "demo"}, "status": {
            "phase": "Creating", "postgres": {"ready": "1/1"},
            "conditions": [{"type": "Ready", "status": "False"}],
            "waiting": [{"gate": "MongoMembers", "message": "the first member elects itself"}]}}]}"#;
        assert_eq!(parse(json).expect("the list is JSON"), [demo()]);
    }

    #[test]
    fn what_is_absent_is_said_so() {
        let report = Report {
            cache: "/c".into(),
            engine: None,
            nodes: vec![],
            memory_bytes: None,
            context: None,
            operator: None,
            layers: vec![demo()],
            troubles: vec!["start it".into()],
        };
        let want = [
            "cache      /c",
            "engine     none",
            "nodes      none",
            "memory     none",
            "context    none",
            "operator   none",
            "layer      azora/demo: not Ready, postgres 1/1, mongo ?, redis ?, nexus ?",
            "           waits for: the first member elects itself",
            "trouble    start it",
        ];
        assert_eq!(lines(&report), want);
    }
}
