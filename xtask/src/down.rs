//! `cargo xtask down`: being written.

/// Arguments of `cargo xtask down`.
#[derive(clap::Args)]
pub struct Args {}

/// Not there yet.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("`cargo xtask down` is not written yet")
}
