//! `cargo xtask gen`: being written.

/// Arguments of `cargo xtask gen`.
#[derive(clap::Args)]
pub struct Args {}

/// Not there yet.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("`cargo xtask gen` is not written yet")
}
