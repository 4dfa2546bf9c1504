//! `cargo xtask up`: from nothing to a running data layer with an event on its way. Every step takes
//! what is there already, so a repeated or interrupted run goes on where it can.

mod demo;
mod progress;
mod travel;

use crate::ahead::Ahead;
use crate::cluster;
use crate::engine::{Engine, Weight};
use crate::images::{self, Image};
use crate::output::{self, Step};
use crate::{chart, packages, run, store, tools};
use anyhow::{Context as _, Result};
use std::time::Instant;

pub use demo::{NAMESPACE as DEMO_NAMESPACE, stop_forwarding};

/// Arguments of `cargo xtask up`.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Use the cluster of this kube context instead of a kind cluster of its own.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// Brings everything up and shows that it works.
pub fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    // What can be refused is refused before anything is waited for or made.
    let named = args.context.as_deref().map(cluster::named).transpose()?;
    tools::check()?;
    if !run::exists("curl") {
        packages::ensure(&["curl"])?;
    }
    let engine = Engine::ready()?;
    output::note(&format!("  ✓ {}", engine.describe()));
    if named.is_none() {
        cluster::check(&engine)?;
    }
    // Two at once would undo each other's half-done work.
    let _lock = store::lock("up")?;
    let ahead = images::compile_ahead();
    let cluster = named.map_or_else(|| cluster::ensure(&engine), Ok)?;
    engine.weigh_containers(Weight::Many);
    // Before the images, whose binaries are still being compiled.
    tools::helm()?;
    let images = build(&engine, ahead)?;
    cluster.load(&images)?;
    chart::install(&cluster, &images)?;
    demo::apply(&cluster)?;
    progress::until_ready(&cluster, &images)?;
    demo::expose(&cluster)?;
    let token = demo::token(&cluster)?;
    let journey = travel::show(&token)?;
    let took = output::human(started.elapsed());
    output::note(&format!(
        "  ✓ an event travelled: {journey}\n\nThe data layer `{}` is running ({took}).\n",
        demo::LAYER
    ));
    demo::farewell(&cluster, &token);
    Ok(())
}

fn build(engine: &Engine, ahead: Ahead) -> Result<Vec<Image>> {
    let step = Step::start("images");
    let images = images::build_all(engine, ahead).context("build the images")?;
    step.done(&format!("{} present", images.len()));
    for image in &images {
        output::note(&format!("      {:<32} {:>10}", image.reference, output::size(image.bytes)));
    }
    Ok(images)
}
