//! Cargo, as chores call it: in this clone, building where every clone shares the compiled dependencies.

mod claim;

use crate::{run, store};
use anyhow::{Context as _, Result};
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

/// A cargo command in the root of the clone, for what builds nothing.
pub fn command<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    // The same cargo that built this program, which may not be the first on `PATH`.
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    run::command_in(&store::clone_root(), &program, arguments)
}

/// The shared build folder while it is this clone's: what was built in it is of these sources until this is dropped.
#[must_use]
pub struct BuildFolder(#[expect(dead_code, reason = "held for its lock")] File);

/// Takes the build folder; waits while another clone has it.
pub fn build_folder() -> Result<BuildFolder> {
    let clone = claim::identity(&store::clone_root())?;
    Ok(BuildFolder(claim::take(&store::target(), &clone).context("take the build folder")?))
}

impl BuildFolder {
    /// A cargo command that builds here.
    #[expect(clippy::unused_self, reason = "the lock is what entitles to build")]
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = command(arguments);
        command.env("CARGO_TARGET_DIR", store::target());
        command
    }

    /// Builds a program of the workspace in the development profile and returns its file.
    pub fn build(&self, program: &str) -> Result<PathBuf> {
        // Selected from the whole workspace with every feature, as the tests are: for a package alone cargo
        // would choose other features of shared dependencies and compile them, and what needs them, again.
        run::shown(&mut self.command(["build", "--quiet", "--workspace", "--all-features", "--bin", program]))
            .with_context(|| format!("build {program}"))?;
        Ok(store::target().join("debug").join(program))
    }
}
