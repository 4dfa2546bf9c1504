//! `cargo xtask check`: being written.

/// Arguments of `cargo xtask check`.
#[derive(clap::Args)]
pub struct Args {}

/// Not there yet.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("`cargo xtask check` is not written yet")
}
