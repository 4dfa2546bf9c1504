//! `cargo xtask images`: the container images of the data layer, each under a key of what it is built from.

mod wheels;

use crate::{output, store};
use anyhow::Result;
use std::path::PathBuf;

/// Arguments of `cargo xtask images`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Fetches what the images are built from; building them comes next.
pub(crate) fn run(_args: &Args) -> Result<()> {
    output::result(&mongod()?.display().to_string());
    Ok(())
}

/// The mongod program for this host and for the image, fetched once into the store.
pub(crate) fn mongod() -> Result<PathBuf> {
    wheels::mongod(&store::clone_root().join("images/mongo/requirements.txt"))
}
