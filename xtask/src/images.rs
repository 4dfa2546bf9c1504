//! `cargo xtask images`: being written.

/// Arguments of `cargo xtask images`.
#[derive(clap::Args)]
pub struct Args {}

/// Not there yet.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("`cargo xtask images` is not written yet")
}
