//! Makes, mends and deletes the kind cluster. What exists is read from the engine, never remembered.

use super::{CONTEXT, NEXUS_PORT, health, network};
use crate::engine::Engine;
use crate::output::{self, Step};
use crate::{node_image, packages, ports, run, store, tools};
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The cluster's name in `kind-config.yaml`.
const NAME: &str = "azora";
/// Nodes in `kind-config.yaml`; a test holds the two together.
const NODES: usize = 4;
/// How long a new cluster's nodes may take: half a minute when the machine is idle.
const CREATE_SECONDS_MAX: u64 = 300;
/// How long a cluster that was there may take to be whole again after a mend.
const MEND_SECONDS_MAX: u64 = 90;
/// inotify instances per user that four nodes need; Linux's default of 128 ends in "too many open files".
const INOTIFY_INSTANCES_MIN: u32 = 1024;

/// A node as the engine sees it.
#[derive(Debug, PartialEq)]
pub(super) struct Node {
    /// The container's name, which is the node's.
    pub(super) name: String,
    /// `running`, `exited`, `paused`, `created` or `dead`.
    pub(super) state: String,
    /// Whether it is connected to the network.
    pub(super) connected: bool,
}

/// Makes sure that the cluster works.
pub(super) fn ensure(engine: &Engine, kubectl: &Path) -> Result<()> {
    let there = nodes(engine)?;
    if !there.is_empty() {
        match mend(engine, kubectl, &there) {
            Ok(()) => return Ok(()),
            Err(reason) => {
                output::note(&format!("  ! the kind cluster is there but broken, so it is made anew: {reason:#}"));
                delete(engine)?;
            }
        }
    }
    create(engine, kubectl)
}

/// The cluster's nodes; none when there is no cluster.
pub(super) fn nodes(engine: &Engine) -> Result<Vec<Node>> {
    let filter = format!("label=io.x-k8s.kind.cluster={NAME}");
    let format = "{{.Names}}\t{{.State}}\t{{.Networks}}";
    let said = run::text(&mut engine.docker(["ps", "--all", "--filter", &filter, "--format", format]))?;
    Ok(parse_nodes(&said))
}

/// Memory of the running nodes, as the engine counts it: what programs hold and the files in use, without
/// the cache that the kernel would give back.
pub(super) fn memory_bytes(engine: &Engine) -> Result<u64> {
    let running = nodes(engine)?.into_iter().filter(|node| node.state == "running").map(|node| node.name);
    let mut stats = engine.docker(["stats", "--no-stream", "--format", "{{.MemUsage}}"]);
    let said = run::text(stats.args(running)).context("ask for the nodes' memory")?;
    Ok(said.lines().filter_map(used_bytes).sum())
}

/// The first size in `405.3MiB / 23.54GiB`.
fn used_bytes(said: &str) -> Option<u64> {
    let (used, _) = said.split_once(" / ")?;
    let unit = used.find(|letter: char| letter.is_ascii_alphabetic())?;
    let factor = match &used[unit..] {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return None,
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Sizes are small and positive.
    used[..unit].parse().ok().map(|amount: f64| (amount * factor) as u64)
}

/// Deletes the cluster. Whether it was there.
pub(super) fn delete(engine: &Engine) -> Result<bool> {
    if nodes(engine)?.is_empty() {
        network::remove(engine);
        return Ok(false);
    }
    let step = Step::start("delete the kind cluster");
    run::quiet(&mut kind(engine, &["delete", "cluster", "--name", NAME])?)?;
    network::remove(engine);
    step.done("");
    Ok(true)
}

/// Writes the cluster's context into the kubeconfig.
pub(super) fn write_kubeconfig(engine: &Engine) -> Result<()> {
    run::quiet(&mut kind(engine, &["export", "kubeconfig", "--name", NAME])?).context("write the kubeconfig")
}

fn kind(engine: &Engine, arguments: &[&str]) -> Result<Command> {
    let mut command = run::command(tools::kind()?, arguments);
    engine.address(&mut command);
    Ok(command)
}

/// Brings a cluster that is there back to work. An error says why that cannot be.
fn mend(engine: &Engine, kubectl: &Path, there: &[Node]) -> Result<()> {
    let step = Step::start("kind cluster");
    if there.len() < NODES {
        bail!("{} of its {NODES} nodes exist, an earlier run was interrupted", there.len());
    }
    if there.iter().all(|node| node.state == "exited") {
        // They would come back in another order, with each other's addresses.
        bail!("all its nodes were stopped, as a restart of the machine or the engine does");
    }
    for node in there {
        let mended = match node.state.as_str() {
            "running" if !node.connected => engine.docker(["network", "connect", network::NAME, &node.name]),
            "running" => continue,
            "paused" => engine.docker(["unpause", &node.name]),
            _ => engine.docker(["start", &node.name]),
        };
        let mut mended = mended;
        run::quiet(&mut mended).with_context(|| format!("bring back node {} ({})", node.name, node.state))?;
        step.waiting(&format!("brought back {}, which was {}", node.name, node.state));
    }
    if health::answers(kubectl, CONTEXT).is_err() {
        write_kubeconfig(engine)?;
    }
    health::wait_for_nodes(&step, kubectl, CONTEXT, NODES, Duration::from_secs(MEND_SECONDS_MAX))?;
    step.done(&format!("{NODES} nodes ready"));
    Ok(())
}

fn create(engine: &Engine, kubectl: &Path) -> Result<()> {
    free_port()?;
    let image = node_image::ensure(engine)?;
    let step = Step::start("kind cluster");
    allow_inotify();
    network::ensure(engine)?;
    let config = store::clone_root().join("kind-config.yaml");
    let mut create = kind(engine, &["create", "cluster", "--image", &image, "--config"])?;
    create.arg(&config);
    run::quiet(&mut create).context("make the kind cluster")?;
    health::wait_for_nodes(&step, kubectl, CONTEXT, NODES, Duration::from_secs(CREATE_SECONDS_MAX))?;
    step.done(&format!("{NODES} nodes ready, context {CONTEXT}"));
    Ok(())
}

/// Refuses when the port of the demo is taken. It is freed again at once, for the engine to take.
pub(super) fn free_port() -> Result<()> {
    let advice = "if it is yours (`cargo xtask nexus` is one), end it and run this command again";
    ports::hold(([127, 0, 0, 1], NEXUS_PORT).into(), "Nexus of the demo", advice).map(drop)
}

/// Four nodes with systemd and kubelet watch more than Linux allows a user by default. Only ever raised.
fn allow_inotify() {
    let limit = Path::new("/proc/sys/fs/inotify/max_user_instances");
    let now = std::fs::read_to_string(limit).ok().and_then(|text| text.trim().parse::<u32>().ok());
    if now.is_some_and(|now| now < INOTIFY_INSTANCES_MIN) && packages::is_root() {
        std::fs::write(limit, INOTIFY_INSTANCES_MIN.to_string()).ok();
    }
}

fn parse_nodes(said: &str) -> Vec<Node> {
    let node = |line: &str| {
        let mut fields = line.split('\t');
        let (name, state) = (fields.next()?, fields.next()?);
        let connected = fields.next().unwrap_or_default().split(',').any(|network| network == network::NAME);
        Some(Node { name: name.to_owned(), state: state.to_owned(), connected })
    };
    said.lines().filter_map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_with_their_state_and_network() {
        let said = "azora-worker\tpaused\tkind\nazora-worker2\trunning\t\nazora-control-plane\trunning\tkind,other";
        let node = |name: &str, state: &str, connected| Node { name: name.into(), state: state.into(), connected };
        let want = [
            node("azora-worker", "paused", true),
            node("azora-worker2", "running", false),
            node("azora-control-plane", "running", true),
        ];
        assert_eq!(parse_nodes(said), want);
        assert_eq!(parse_nodes(""), []);
    }

    #[test]
    fn memory_is_read_in_every_unit() {
        assert_eq!(used_bytes("512KiB / 23.54GiB"), Some(524_288));
        assert_eq!(used_bytes("1.5GiB / 23.54GiB"), Some(1_610_612_736));
        assert_eq!(used_bytes("--"), None);
    }

    #[test]
    fn the_config_has_the_nodes_the_name_and_the_port_that_are_expected_here() {
        let file = store::clone_root().join("kind-config.yaml");
        let text = std::fs::read_to_string(file).expect("the file is in the clone");
        assert_eq!(text.matches("- role: ").count(), NODES);
        assert!(text.contains(&format!("\nname: {NAME}\n")) && CONTEXT == format!("kind-{NAME}"));
        assert!(text.contains(&format!("hostPort: {NEXUS_PORT}\n")));
    }
}
