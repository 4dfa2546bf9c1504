//! `cargo xtask up`: being written; readies the Docker Engine so far.

use crate::engine::Engine;

/// Arguments of `cargo xtask up`.
#[derive(clap::Args)]
pub struct Args {}

/// Readies the engine, then says that the rest is not there yet.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    let engine = Engine::ready()?;
    crate::output::note(&engine.describe());
    crate::run::shown(&mut engine.docker(["info"]))?;
    anyhow::bail!("the rest of `cargo xtask up` is not written yet")
}
