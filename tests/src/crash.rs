//! Real crashes: SIGKILL of a container's processes from outside, which no grace period softens.
//! (`kubectl delete --force --grace-period=0` still sends SIGTERM first.) Must never signal a process of another container.
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};

/// Deletes a pod without a grace period, as an operator of the cluster does with a node that is lost.
pub async fn force_delete(pods: &Api<Pod>, name: &str) -> anyhow::Result<()> {
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete(name, &now).await.with_context(|| format!("delete pod {name} by force"))?;
    Ok(())
}

/// Kills every process of a pod's running containers at once. Works where the nodes are containers on this machine,
/// whose `/proc` then shows the pods' processes too. Returns how many were killed.
pub fn kill(pod: &Pod) -> anyhow::Result<usize> {
    let containers = container_ids(pod);
    ensure!(!containers.is_empty(), "pod {:?} has no running container to kill", pod.metadata.name);
    let mut victims = Vec::new();
    for entry in std::fs::read_dir("/proc").context("list the processes of this machine")? {
        let path = entry.context("list the processes of this machine")?.path();
        let Some(process) = path.file_name().and_then(|name| name.to_str()).filter(|name| is_number(name)) else {
            continue;
        };
        if containers.iter().any(|container| belongs_to(&path, container)) {
            victims.push(process.to_owned());
        }
    }
    ensure!(!victims.is_empty(), "no process of pod {:?} is on this machine", pod.metadata.name);
    // One that ends between the listing and the signal makes `kill` fail though the others are dead, so its status tells
    // nothing. That the container died is seen by its id, see [`container_ids`].
    Command::new("kill").arg("-KILL").args(&victims).output().context("run kill")?;
    Ok(victims.len())
}

/// Whether the control group of a process names the container. One that has just ended belongs to nobody.
fn belongs_to(process: &Path, container: &str) -> bool {
    std::fs::read_to_string(process.join("cgroup")).is_ok_and(|groups| groups.contains(container))
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

/// The ids of the running containers, without the `containerd://` in front. A container that was killed comes back
/// under another id.
pub fn container_ids(pod: &Pod) -> Vec<String> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let running = statuses.filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    running.filter_map(|status| Some(status.container_id.as_ref()?.rsplit('/').next()?.to_owned())).collect()
}
