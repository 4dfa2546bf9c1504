//! `cargo xtask test`: being written.

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {}

/// Not there yet.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("`cargo xtask test` is not written yet")
}
