//! `cargo xtask up`: being written.

/// Arguments of `cargo xtask up`.
#[derive(clap::Args)]
pub struct Args {}

/// Not there yet.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("`cargo xtask up` is not written yet")
}
