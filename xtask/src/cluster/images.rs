//! Puts images from the engine onto kind's nodes: only those that a node lacks, and to all nodes at once.
//! An image's name carries the key of its content, so a name that is there is the right image.

use crate::engine::Engine;
use crate::images::Image;
use crate::output::Step;
use crate::{run, store};
use anyhow::{Context as _, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// Loads what is missing. How many images were.
pub(super) fn load(engine: &Engine, cluster: &str, wanted: &[Image]) -> Result<usize> {
    let lacking = lacking(engine, cluster, wanted)?;
    let missing: BTreeSet<&str> = lacking.values().flatten().copied().collect();
    if missing.is_empty() {
        return Ok(0);
    }
    let step = Step::start(format!("load {} images onto {} nodes", missing.len(), lacking.len()));
    let archive = store::root().join(format!("load.{}.tar", std::process::id()));
    let loaded = save(engine, &archive, &missing).and_then(|()| import(engine, &archive, lacking.keys()));
    fs::remove_file(&archive).ok();
    loaded?;
    step.done("");
    Ok(missing.len())
}

/// The nodes that pods run on, and what each of them lacks.
fn lacking<'a>(engine: &Engine, cluster: &str, wanted: &'a [Image]) -> Result<BTreeMap<String, Vec<&'a str>>> {
    let mut lacking = BTreeMap::new();
    for node in pod_nodes(engine, cluster)? {
        let list = ["exec", &node, "ctr", "--namespace=k8s.io", "images", "list", "--quiet"];
        let there = run::text(&mut engine.docker(list)).with_context(|| format!("list the images of node {node}"))?;
        let missing = absent(wanted.iter().map(|image| image.reference.as_str()), &there);
        if !missing.is_empty() {
            lacking.insert(node, missing);
        }
    }
    Ok(lacking)
}

/// The worker nodes; all nodes where there is none. Pods of ours do not run on a control plane beside workers.
fn pod_nodes(engine: &Engine, cluster: &str) -> Result<Vec<String>> {
    let cluster = format!("label=io.x-k8s.kind.cluster={cluster}");
    let list = ["ps", "--filter", &cluster, "--format", "{{.Names}}\t{{.Label \"io.x-k8s.kind.role\"}}"];
    let said = run::text(&mut engine.docker(list)).context("list the cluster's nodes")?;
    let nodes = workers(&said);
    if nodes.is_empty() {
        bail!("no node of the kind cluster runs on this engine: is it another engine's cluster? DOCKER_HOST names one");
    }
    Ok(nodes)
}

fn workers(said: &str) -> Vec<String> {
    let nodes: Vec<(&str, &str)> = said.lines().filter_map(|line| line.split_once('\t')).collect();
    let workers: Vec<String> =
        nodes.iter().filter(|(_, role)| *role == "worker").map(|(name, _)| (*name).to_owned()).collect();
    if workers.is_empty() { nodes.into_iter().map(|(name, _)| name.to_owned()).collect() } else { workers }
}

/// Which references are not in the answer of `ctr images list --quiet`, where each has its full name.
fn absent<'a>(references: impl Iterator<Item = &'a str>, there: &str) -> Vec<&'a str> {
    let there: BTreeSet<&str> = there.lines().map(|line| line.trim_start_matches("docker.io/")).collect();
    references.filter(|reference| !there.contains(reference)).collect()
}

fn save(engine: &Engine, archive: &Path, missing: &BTreeSet<&str>) -> Result<()> {
    let mut save = engine.docker(["save", "--output"]);
    run::quiet(save.arg(archive).args(missing)).context("save the images from the engine")
}

/// Gives the archive to all nodes at the same time.
fn import<'a>(engine: &Engine, archive: &Path, nodes: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut running = Vec::new();
    for node in nodes {
        let file = fs::File::open(archive).with_context(|| format!("open {}", archive.display()))?;
        let arguments = ["exec", "--interactive", node, "ctr", "--namespace=k8s.io", "images", "import", "-"];
        let mut import = engine.docker(arguments);
        import.stdin(file).stdout(Stdio::null()).stderr(Stdio::piped());
        running.push((node, import.spawn().with_context(|| format!("start the import on node {node}"))?));
    }
    for (node, child) in running {
        let output = child.wait_with_output().with_context(|| format!("wait for the import on node {node}"))?;
        if !output.status.success() {
            bail!("the import of images on node {node} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_node_lacks_is_loaded() {
        let there = "docker.io/azora/nexus:1f\nregistry.k8s.io/pause:3.10.1\nsha256:ab";
        let wanted = ["azora/nexus:1f", "azora/nexus:2e", "azora/redis:1f"];
        assert_eq!(absent(wanted.into_iter(), there), ["azora/nexus:2e", "azora/redis:1f"]);
    }

    #[test]
    fn images_go_to_workers_where_there_are_any() {
        assert_eq!(workers("c\tcontrol-plane\nw1\tworker\nw2\tworker"), ["w1", "w2"]);
        assert_eq!(workers("c\tcontrol-plane"), ["c"]);
    }
}
