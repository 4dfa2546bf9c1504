//! `cargo xtask down`: removes what `up` made. Built things stay in the cache unless `--purge`.

use crate::cluster::{self, Cluster};
use crate::engine::Engine;
use crate::output::{self, Step};
use crate::{chart, run, store, up};
use anyhow::{Context as _, Result};
use std::fs;

/// Arguments of `cargo xtask down`.
#[derive(clap::Args)]
pub struct Args {
    /// Remove the demo and the operator from the cluster of this kube context, and leave the cluster.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Remove the caches too: images, built programs, downloaded files.
    #[arg(long)]
    purge: bool,
}

/// Removes the cluster and stops our own engine; with a context, only what `up` put into that cluster.
pub fn run(args: &Args) -> Result<()> {
    let lock = store::lock("up")?;
    up::stop_forwarding()?;
    if let Some(name) = &args.context {
        empty(&cluster::named(name)?)?;
    } else if let Some(engine) = engine()? {
        if !cluster::delete(&engine)? {
            output::note("  ✓ no kind cluster is there");
        }
        if args.purge {
            // On an engine of the user's own, only our images go; our own engine goes as a whole below.
            forget_images(&engine)?;
        }
    } else {
        output::note("  ✓ no Docker Engine runs, so no cluster does");
    }
    // Another context's cluster may run on our engine.
    if args.context.is_none() && Engine::stop()? {
        output::note("  ✓ stopped the Docker Engine that xtask had started");
    }
    if args.purge {
        purge()?;
    }
    drop(lock);
    Ok(())
}

/// The engine that the cluster is on.
fn engine() -> Result<Option<Engine>> {
    match Engine::existing()? {
        None => Engine::revived(),
        running => Ok(running),
    }
}

/// Takes the demo and the operator out of a cluster that is not ours to delete. Volumes go with the demo's
/// namespace; data layers in other namespaces stay, and so does their definition.
fn empty(cluster: &Cluster) -> Result<()> {
    let step = Step::start(format!("remove namespace {}", up::DEMO_NAMESPACE));
    // While the operator still runs, so that it ends what it began.
    let namespace = ["delete", "namespace", up::DEMO_NAMESPACE, "--ignore-not-found", "--timeout=180s"];
    run::quiet(&mut cluster.kubectl(namespace)).context("remove the demo")?;
    step.done("");
    if !chart::uninstall(cluster)? {
        output::note("  ✓ no operator is there");
    }
    Ok(())
}

fn forget_images(engine: &Engine) -> Result<()> {
    let list = ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=azora/*"];
    let names = run::text(&mut engine.docker(list)).context("list the images")?;
    let names: Vec<&str> = names.lines().collect();
    if !names.is_empty() {
        let mut remove = engine.docker(["image", "rm", "--force"]);
        run::quiet(remove.args(&names)).context("remove the images")?;
    }
    Ok(())
}

fn purge() -> Result<()> {
    let step = Step::start(format!("remove the caches in {}", store::root().display()));
    Engine::purge()?;
    if store::root().exists() {
        fs::remove_dir_all(store::root()).with_context(|| format!("remove {}", store::root().display()))?;
    }
    step.done("Go's and cargo's own caches are left alone");
    Ok(())
}
