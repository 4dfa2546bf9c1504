//! Whether a cluster works: the API server answers, and every node is ready.

use crate::{output::Step, run};
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// Succeeds when the API server says that it is ready.
pub(super) fn answers(kubectl: &Path, context: &str) -> Result<()> {
    let arguments = ["--context", context, "--request-timeout=10s", "get", "--raw", "/readyz"];
    run::quiet(&mut run::command(kubectl, arguments))
}

/// Waits until `count` nodes are ready; says what it waits for.
pub(super) fn wait_for_nodes(step: &Step, kubectl: &Path, context: &str, count: usize, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    let mut said = String::new();
    loop {
        let state = nodes(kubectl, context);
        let waiting = match &state {
            Ok(nodes) if nodes.len() >= count && nodes.iter().all(|(_, ready)| *ready) => return Ok(()),
            _ if Instant::now() > deadline => {
                let state = state?;
                bail!("of {count} nodes only these are ready after {} s: {}", within.as_secs(), ready_names(&state));
            }
            Ok(nodes) => waiting_for(nodes, count),
            Err(_) => "the API server".to_owned(),
        };
        if waiting != said {
            step.waiting(&waiting);
            said = waiting;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Every node's name, and whether it is ready.
fn nodes(kubectl: &Path, context: &str) -> Result<Vec<(String, bool)>> {
    let arguments = ["--context", context, "--request-timeout=10s", "get", "nodes", "--output=json"];
    parse(&run::text(&mut run::command(kubectl, arguments))?)
}

fn parse(json: &str) -> Result<Vec<(String, bool)>> {
    let list: serde_json::Value = serde_json::from_str(json).context("read the list of nodes")?;
    let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    Ok(items.iter().map(|node| (text(&node["metadata"]["name"]), is_ready(node))).collect())
}

fn is_ready(node: &serde_json::Value) -> bool {
    let conditions = node["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn waiting_for(nodes: &[(String, bool)], count: usize) -> String {
    let waiting: Vec<&str> = nodes.iter().filter(|(_, ready)| !ready).map(|(name, _)| name.as_str()).collect();
    if waiting.is_empty() {
        return format!("{} of {count} nodes have joined", nodes.len());
    }
    format!("not ready yet: {}", waiting.join(", "))
}

fn ready_names(nodes: &[(String, bool)]) -> String {
    let ready: Vec<&str> = nodes.iter().filter(|(_, ready)| *ready).map(|(name, _)| name.as_str()).collect();
    if ready.is_empty() { "none".into() } else { ready.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_its_condition_says_so() {
        let json = r#"{"items": [
            {"metadata": {"name": "a"}, "status": {"conditions": [{"type": "DiskPressure", "status": "False"},
                                                                  {"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "b"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
            {"metadata": {"name": "c"}}]}"#;
        let nodes = parse(json).expect("the list is JSON");
        assert_eq!(nodes, [("a".into(), true), ("b".into(), false), ("c".into(), false)]);
        assert_eq!(waiting_for(&nodes, 4), "not ready yet: b, c");
        assert_eq!(ready_names(&nodes), "a");
    }

    #[test]
    fn nodes_that_have_not_joined_are_counted() {
        assert_eq!(waiting_for(&[("a".into(), true)], 4), "1 of 4 nodes have joined");
    }
}
