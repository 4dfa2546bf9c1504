//! Cargo, as chores call it: in this clone, building where every clone shares what is compiled.

use crate::{run, store};
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::process::Command;

/// A cargo command in the root of the clone.
pub fn command<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    // The same cargo that built this program, which may not be the first on `PATH`.
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = run::command_in(&store::clone_root(), &program, arguments);
    command.env("CARGO_TARGET_DIR", store::target());
    command
}

/// Builds a program of the workspace in the development profile and returns its file.
pub fn build(program: &str) -> Result<PathBuf> {
    // Selected from the whole workspace with every feature, as the tests are: for a package alone cargo
    // would choose other features of shared dependencies and compile them, and what needs them, again.
    run::shown(&mut command(["build", "--quiet", "--workspace", "--all-features", "--bin", program]))
        .with_context(|| format!("build {program}"))?;
    Ok(store::target().join("debug").join(program))
}
