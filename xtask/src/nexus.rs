//! `cargo xtask nexus`: being written.

/// Arguments of `cargo xtask nexus`.
#[derive(clap::Args)]
pub struct Args {}

/// Not there yet.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("`cargo xtask nexus` is not written yet")
}
