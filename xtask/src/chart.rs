//! Installs the operator's chart with Helm. An install of what is there already changes nothing.

use crate::cluster::Cluster;
use crate::images::Image;
use crate::output::Step;
use crate::{run, store, tools};
use anyhow::{Context as _, Result};
use std::process::Command;

/// Namespace of the operator.
pub const NAMESPACE: &str = "azora-system";
/// Helm release, and name of the operator's Deployment.
pub const RELEASE: &str = "azora-operator";
/// How long the operator's pod may take: it starts in a second once its image is there.
const READY_WITHIN: &str = "180s";

/// Installs or upgrades the operator so that it runs, and lets data layers run, `images`.
///
/// # Errors
/// When Helm refuses or the operator does not become ready; the end of its log is in the message then.
pub fn install(cluster: &Cluster, images: &[Image]) -> Result<()> {
    let step = Step::start("operator (Helm chart)");
    unlock(cluster)?;
    // What was applied by other means, such as `kubectl apply`, becomes the release's own.
    let mut upgrade = helm(
        cluster,
        ["upgrade", "--install", "--create-namespace", "--take-ownership", "--force-conflicts", RELEASE],
    )?;
    upgrade.arg(store::clone_root().join("charts").join(RELEASE)).args(values(images));
    run::quiet(&mut upgrade).context("install the operator's chart")?;
    let deployment = format!("deployment/{RELEASE}");
    let timeout = format!("--timeout={READY_WITHIN}");
    let rollout = ["--namespace", NAMESPACE, "rollout", "status", &deployment, &timeout];
    if let Err(error) = run::quiet(&mut cluster.kubectl(rollout)) {
        let symptoms = symptoms(cluster, &deployment);
        return Err(error.context(format!("the operator does not become ready\n{symptoms}")));
    }
    step.done("ready");
    Ok(())
}

/// Removes the operator; data layers and their definition stay. Whether it was there.
pub fn uninstall(cluster: &Cluster) -> Result<bool> {
    if !is_installed(cluster)? {
        return Ok(false);
    }
    let step = Step::start("remove the operator");
    run::quiet(&mut helm(cluster, ["uninstall", RELEASE, "--wait"])?).context("remove the operator's chart")?;
    step.done("");
    Ok(true)
}

/// Whether a release, in whatever state, is there.
pub fn is_installed(cluster: &Cluster) -> Result<bool> {
    Ok(run::succeeds(&mut helm(cluster, ["status", RELEASE])?))
}

/// An `up` that was interrupted within Helm leaves the release "pending", and Helm then refuses every upgrade.
fn unlock(cluster: &Cluster) -> Result<()> {
    let status = run::text(&mut helm(cluster, ["status", RELEASE, "--output", "json"])?).unwrap_or_default();
    match pending(&status) {
        // Nothing was running before, so there is nothing to go back to.
        Some("pending-install") => run::quiet(&mut helm(cluster, ["uninstall", RELEASE])?),
        Some(_) => run::quiet(&mut helm(cluster, ["rollback", RELEASE])?),
        None => return Ok(()),
    }
    .context("put back the release that an interrupted run left half installed")
}

/// The state of a release that Helm holds locked.
fn pending(status: &str) -> Option<&'static str> {
    let status: serde_json::Value = serde_json::from_str(status).ok()?;
    let state = status["info"]["status"].as_str()?;
    ["pending-install", "pending-upgrade", "pending-rollback"].into_iter().find(|pending| *pending == state)
}

/// The chart's values for the images: the operator's own is `image`, the others are below `images`.
fn values(images: &[Image]) -> Vec<String> {
    let value = |image: &Image| match image.name {
        "operator" => format!("--set-string=image={}", image.reference),
        name => format!("--set-string=images.{name}={}", image.reference),
    };
    images.iter().map(value).collect()
}

fn helm<'a>(cluster: &Cluster, arguments: impl IntoIterator<Item = &'a str>) -> Result<Command> {
    let mut command = run::command(tools::helm()?, arguments);
    command.args(["--kube-context", cluster.context(), "--namespace", NAMESPACE]);
    Ok(command)
}

fn symptoms(cluster: &Cluster, deployment: &str) -> String {
    let pods = run::text(&mut cluster.kubectl(["--namespace", NAMESPACE, "get", "pods", "--output=wide"]));
    let log = run::text(&mut cluster.kubectl(["--namespace", NAMESPACE, "logs", deployment, "--tail=20"]));
    format!("{}\n{}", pods.unwrap_or_default(), log.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_becomes_the_chart_value_of_its_name() {
        let image = |name, reference: &str| Image { name, reference: reference.into(), bytes: 0 };
        let images = [image("operator", "azora/operator:1"), image("redis", "azora/redis:2")];
        assert_eq!(values(&images), ["--set-string=image=azora/operator:1", "--set-string=images.redis=azora/redis:2"]);
    }

    #[test]
    fn only_a_release_that_helm_holds_locked_is_pending() {
        assert_eq!(pending(r#"{"info": {"status": "pending-install"}}"#), Some("pending-install"));
        assert_eq!(pending(r#"{"info": {"status": "deployed"}}"#), None);
        assert_eq!(pending(""), None);
    }
}
