//! The Kubernetes cluster that chores work on: real kind by default, any other by its context's name.
//! One chore at a time makes or mends it; a cluster that cannot be mended is made anew, with the reason said.

mod health;
mod images;
mod kind;
mod network;

use crate::engine::Engine;
use crate::images::Image;
use crate::{run, store, tools};
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// The kube context of the cluster that kind makes: `kind-` and the name in `kind-config.yaml`.
pub const CONTEXT: &str = "kind-azora";

/// Where Nexus of the demo answers, on this machine only.
pub const NEXUS_PORT: u16 = 4001;

/// A cluster whose API server has answered.
#[derive(Debug)]
pub struct Cluster {
    context: String,
    kubectl: PathBuf,
    /// The engine that the nodes run on, where they are kind's: images are loaded through it.
    engine: Option<Engine>,
}

/// Refuses what would end the making of the kind cluster, before minutes of work end at it.
///
/// # Errors
/// When the port of the demo is taken by something else.
pub fn check(engine: &Engine) -> Result<()> {
    if kind::nodes(engine)?.is_empty() { kind::free_port() } else { Ok(()) }
}

/// The kind cluster, ready: made, mended or taken as it is.
///
/// # Errors
/// When it cannot be made: a taken port, an unreadable kubeconfig, an engine that fails.
pub fn ensure(engine: &Engine) -> Result<Cluster> {
    let kubectl = tools::kubectl()?;
    readable_kubeconfig(&kubectl)?;
    let _lock = store::lock("cluster")?;
    kind::ensure(engine, &kubectl)?;
    Ok(Cluster { context: CONTEXT.to_owned(), kubectl, engine: Some(engine.clone()) })
}

/// The cluster of another context of the kubeconfig.
///
/// # Errors
/// When there is no such context, or its API server does not answer: each says what to do.
pub fn named(context: &str) -> Result<Cluster> {
    if !is_mentioned(context) {
        bail!("no context `{context}` in {}\nName one that is there, or set KUBECONFIG", kubeconfig_name());
    }
    let kubectl = tools::kubectl()?;
    readable_kubeconfig(&kubectl)?;
    let contexts = run::text(&mut run::command(&kubectl, ["config", "get-contexts", "--output=name"]))?;
    if !contexts.lines().any(|name| name == context) {
        let known: Vec<&str> = contexts.lines().collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        bail!(
            "no context `{context}` in {}; there are: {known}\nName one of them, or set KUBECONFIG",
            kubeconfig_name()
        );
    }
    // Only kind's nodes can be given images; the engine may have nothing to do with any other cluster.
    let engine = if context.starts_with("kind-") { Engine::existing()? } else { None };
    let cluster = Cluster { context: context.to_owned(), kubectl, engine };
    if let Err(error) = health::answers(&cluster.kubectl, context) {
        return Err(error.context(format!(
            "the cluster of context `{context}` does not answer: start it, or mend its server address in {}",
            kubeconfig_name()
        )));
    }
    Ok(cluster)
}

/// The kind cluster if it is there and answers; makes nothing.
pub fn existing() -> Result<Option<Cluster>> {
    let Some(engine) = Engine::existing()? else { return Ok(None) };
    if kind::nodes(&engine)?.is_empty() {
        return Ok(None);
    }
    let kubectl = tools::kubectl()?;
    readable_kubeconfig(&kubectl)?;
    if health::answers(&kubectl, CONTEXT).is_err() {
        kind::write_kubeconfig(&engine)?;
        health::answers(&kubectl, CONTEXT)
            .context("the kind cluster is there and does not answer: `cargo xtask up` mends it")?;
    }
    Ok(Some(Cluster { context: CONTEXT.to_owned(), kubectl, engine: Some(engine) }))
}

/// Deletes the kind cluster with all that runs on it. Whether it was there.
pub fn delete(engine: &Engine) -> Result<bool> {
    let _lock = store::lock("cluster")?;
    kind::delete(engine)
}

/// The kind cluster's nodes, as the engine sees them, for a person: name and state.
pub fn describe_nodes(engine: &Engine) -> Result<Vec<(String, String)>> {
    Ok(kind::nodes(engine)?.into_iter().map(|node| (node.name, node.state)).collect())
}

/// Bytes of memory that the nodes' containers hold, with all that runs in them.
pub fn memory_bytes(engine: &Engine) -> Result<u64> {
    kind::memory_bytes(engine)
}

impl Cluster {
    /// A `kubectl` command on this cluster.
    pub fn kubectl<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(["--context", &self.context]).args(arguments);
        command
    }

    /// The kube context's name.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// Whether `up` made this cluster, so that its ports are mapped to this machine.
    pub fn is_own(&self) -> bool {
        self.context == CONTEXT
    }

    /// Puts the images that the nodes lack onto them. How many were missing on at least one node.
    ///
    /// # Errors
    /// When the engine fails, or the cluster is one that takes no images from here.
    pub fn load(&self, wanted: &[Image]) -> Result<usize> {
        let Some(engine) = &self.engine else {
            bail!(
                "the nodes of context `{}` are not kind's, so images cannot be put onto them from here\n\
                 Push {} to a registry that they pull from and install the chart with those names",
                self.context,
                wanted.iter().map(|image| image.reference.as_str()).collect::<Vec<_>>().join(", ")
            );
        };
        images::load(engine, self.context.trim_start_matches("kind-"), wanted)
    }
}

/// Refuses a kubeconfig that no program can read, before kind fails halfway for it.
fn readable_kubeconfig(kubectl: &std::path::Path) -> Result<()> {
    run::quiet(&mut run::command(kubectl, ["config", "view"])).with_context(|| {
        format!(
            "the kubeconfig {} cannot be read: mend it, move it away, or name another in KUBECONFIG",
            kubeconfig_name()
        )
    })
}

/// Whether a kubeconfig holds the word at all: to ask `kubectl` for its contexts, that has to be built first.
fn is_mentioned(context: &str) -> bool {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let chosen = std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty());
    let paths = chosen.unwrap_or_else(|| home.join(".kube/config").into());
    // One that is there and cannot be read is left to `kubectl`, which says why.
    std::env::split_paths(&paths).any(|path| match std::fs::read_to_string(&path) {
        Ok(text) => text.contains(context),
        Err(_) => path.exists(),
    })
}

/// The kubeconfig's path as the user would look for it.
fn kubeconfig_name() -> String {
    std::env::var("KUBECONFIG").ok().filter(|path| !path.is_empty()).unwrap_or_else(|| "~/.kube/config".into())
}
