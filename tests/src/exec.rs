//! Commands inside a pod's container.
//! Must never be given a secret that the container does not hold already.
use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use tokio::io::AsyncReadExt as _;

/// Runs `command` and returns its standard output. Fails, with its standard error, when the command does.
pub async fn run(pods: &Api<Pod>, pod: &str, container: &str, command: &[&str]) -> anyhow::Result<String> {
    let parameters = AttachParams::default().container(container);
    let mut process = pods
        .exec(pod, command.iter().copied(), &parameters)
        .await
        .with_context(|| format!("run {} in pod {pod}", command[0]))?;
    let mut output = process.stdout().context("no standard output was attached")?;
    let mut errors = process.stderr().context("no standard error was attached")?;
    let status = process.take_status().context("no status was attached")?;
    let (mut stdout, mut stderr) = (String::new(), String::new());
    // Both at once: the one that is not read would fill its pipe and stop the command.
    let read = futures::future::try_join(output.read_to_string(&mut stdout), errors.read_to_string(&mut stderr));
    read.await.with_context(|| format!("read what {} in pod {pod} prints", command[0]))?;
    let status = status.await.with_context(|| format!("the connection to {} in pod {pod} broke", command[0]))?;
    ensure!(
        status.status.as_deref() == Some("Success"),
        "{} in pod {pod} failed: {}; it printed: {}",
        command[0],
        status.message.unwrap_or_default(),
        stderr.trim()
    );
    Ok(stdout)
}
