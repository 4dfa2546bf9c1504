//! `cargo xtask services`: being written.

/// Arguments of `cargo xtask services`.
#[derive(clap::Args)]
pub struct Args {}

/// Not there yet.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("`cargo xtask services` is not written yet")
}
