//! `cargo xtask status`: being written.

/// Arguments of `cargo xtask status`.
#[derive(clap::Args)]
pub struct Args {}

/// Not there yet.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("`cargo xtask status` is not written yet")
}
