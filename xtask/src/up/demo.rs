//! The demo that `up` shows: one data layer out of `examples/`, reachable from this machine, and a token.

use crate::cluster::{Cluster, NEXUS_PORT};
use crate::output::{self, Step};
use crate::{demo, run, store};
use anyhow::{Context as _, Result, bail};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Namespace of the demo.
pub const NAMESPACE: &str = "azora";
/// Name in `examples/development.yaml`.
pub(super) const LAYER: &str = "demo";
/// How long Nexus may take to answer on this machine once its data layer is Ready.
const ANSWER_SECONDS_MAX: u64 = 60;

/// The `NodePort` that `kind-config.yaml` maps to this machine. Its labels are our own, so that the
/// operator does not take it for something to prune.
const LOCAL_SERVICE: &str = r#"{
  "apiVersion": "v1",
  "kind": "Service",
  "metadata": {"name": "demo-nexus-local", "labels": {"app.kubernetes.io/managed-by": "azora-xtask"}},
  "spec": {
    "type": "NodePort",
    "selector": {"app.kubernetes.io/name": "nexus", "app.kubernetes.io/instance": "demo"},
    "ports": [{"name": "http", "port": 4001, "targetPort": 4001, "nodePort": 30401}]
  }
}"#;

/// Where Nexus answers on this machine.
pub(super) fn address() -> String {
    format!("http://127.0.0.1:{NEXUS_PORT}")
}

/// Applies the example in the demo's namespace.
pub(super) fn apply(cluster: &Cluster) -> Result<()> {
    let step = Step::start("examples/development.yaml");
    let established = ["wait", "--for=condition=Established", "--timeout=60s", "crd/azoradatalayers.azora.io"];
    run::quiet(&mut cluster.kubectl(established)).context("wait for the definition of AzoraDataLayer")?;
    let namespace = format!(r#"{{"apiVersion": "v1", "kind": "Namespace", "metadata": {{"name": "{NAMESPACE}"}}}}"#);
    apply_text(cluster, &[], &namespace)?;
    let file = store::clone_root().join("examples/development.yaml");
    let mut apply = cluster.kubectl(["--namespace", NAMESPACE, "apply", "--filename"]);
    run::quiet(apply.arg(&file)).with_context(|| format!("apply {}", file.display()))?;
    step.done(&format!("applied in namespace {NAMESPACE}"));
    Ok(())
}

/// Makes Nexus reachable at [`address`] and waits until it answers there.
pub(super) fn expose(cluster: &Cluster) -> Result<()> {
    let step = Step::start(address());
    if cluster.is_own() {
        apply_text(cluster, &["--namespace", NAMESPACE], LOCAL_SERVICE)?;
    } else {
        forward(cluster)?;
    }
    let deadline = Instant::now() + Duration::from_secs(ANSWER_SECONDS_MAX);
    let ready = format!("{}/readyz", address());
    while !run::succeeds(&mut run::command("curl", ["--silent", "--fail", "--max-time", "5", "--noproxy", "*", &ready]))
    {
        if Instant::now() > deadline {
            bail!("Nexus is Ready in the cluster but does not answer at {ready} within {ANSWER_SECONDS_MAX} s");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    step.done("Nexus answers");
    Ok(())
}

/// A token for the demo user, signed by Nexus itself: the key never leaves the cluster.
pub(super) fn token(cluster: &Cluster) -> Result<String> {
    let deployment = format!("deployment/{LAYER}-nexus");
    let mut exec = cluster.kubectl(["--namespace", NAMESPACE, "exec", &deployment, "--container", "nexus", "--"]);
    let seconds = demo::TOKEN_SECONDS.to_string();
    exec.args(["nexus", "token", "--subject", demo::SUBJECT, "--scope", demo::SCOPE, "--ttl-seconds", &seconds]);
    run::text(&mut exec).context("make a token for the demo user")
}

/// The address, the token, commands to try, and how to look at the data layer itself.
pub(super) fn farewell(cluster: &Cluster, token: &str) {
    let kubectl = crate::tools::kubectl().map_or_else(|_| "kubectl".into(), |path| shell_word(&path.to_string_lossy()));
    output::result(&demo::commands(&address(), token));
    output::result(&format!(
        "The data layer in the cluster:\n\n  {kubectl} --context {} --namespace {NAMESPACE} get adl,pods\n\n\
         `cargo xtask status` says what is there, `cargo xtask down` removes it.",
        cluster.context()
    ));
}

fn apply_text(cluster: &Cluster, arguments: &[&str], text: &str) -> Result<()> {
    let mut apply = cluster.kubectl(arguments);
    apply.args(["apply", "--filename", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = apply.spawn().context("start kubectl apply")?;
    child
        .stdin
        .take()
        .context("open the input of kubectl apply")?
        .write_all(text.as_bytes())
        .context("write to kubectl apply")?;
    let output = child.wait_with_output().context("wait for kubectl apply")?;
    if !output.status.success() {
        bail!("kubectl apply ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Forwards the port from a cluster whose ports are not mapped here, by a kubectl that outlives this program.
fn forward(cluster: &Cluster) -> Result<()> {
    stop_forwarding()?;
    let log = store::root().join("port-forward.log");
    let log = std::fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let errors = log.try_clone().context("share the log of the port-forward")?;
    let service = format!("service/{LAYER}-nexus");
    let ports = format!("{NEXUS_PORT}:4001");
    let kubectl = cluster.kubectl(["--namespace", NAMESPACE, "port-forward", &service, &ports]);
    // The shell writes its pid and becomes kubectl, so the pid is kubectl's.
    let mut detached = Command::new("setsid");
    detached.args(["--fork", "sh", "-c", "echo $$ >\"$0\"; exec \"$@\""]).arg(forward_pid_file());
    detached.arg(kubectl.get_program()).args(kubectl.get_args()).stdin(Stdio::null()).stdout(log).stderr(errors);
    let status = detached.status().context("start the port-forward")?;
    if !status.success() {
        bail!("the port-forward ended with {status}");
    }
    Ok(())
}

/// Ends the port-forward of an earlier run, if there is one.
pub fn stop_forwarding() -> Result<()> {
    let file = forward_pid_file();
    let Ok(pid) = std::fs::read_to_string(&file) else { return Ok(()) };
    let pid = pid.trim();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // A pid may have been given to another program since.
    if String::from_utf8_lossy(&line).contains("port-forward") {
        run::quiet(&mut run::command("kill", [pid])).context("stop the port-forward")?;
    }
    std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
}

fn forward_pid_file() -> std::path::PathBuf {
    store::root().join("port-forward.pid")
}

/// A word as a shell reads it back.
fn shell_word(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:=@".contains(letter);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_spaces_is_quoted_for_the_shell() {
        assert_eq!(shell_word("/a/b-1"), "/a/b-1");
        assert_eq!(shell_word("/a b/it's"), r"'/a b/it'\''s'");
    }

    #[test]
    fn the_service_has_the_node_port_that_kind_maps() {
        let service: serde_json::Value = serde_json::from_str(LOCAL_SERVICE).expect("the constant is JSON");
        let port = &service["spec"]["ports"][0]["nodePort"];
        let file = store::clone_root().join("kind-config.yaml");
        let config = std::fs::read_to_string(file).expect("the file is in the clone");
        assert!(config.contains(&format!("containerPort: {port}\n")));
    }

    #[test]
    fn the_example_is_named_as_the_demo_expects() {
        let file = store::clone_root().join("examples/development.yaml");
        let example = std::fs::read_to_string(file).expect("the file is in the clone");
        assert!(example.contains(&format!("  name: {LAYER}\n")));
    }
}
