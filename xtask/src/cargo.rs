//! Cargo, as chores call it: in this clone, building where every clone shares the compiled dependencies.

pub mod binaries;
mod claim;
pub mod lint;

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

/// What makes of the release profile, for the workspace's own code, the development profile. `Cargo.toml` pins the values
/// of the dependencies, so that those of the images serve the tests too: they take most of the time, once.
const UNOPTIMISED: [&str; 6] = [
    "profile.release.opt-level=0",
    "profile.release.package.azora-operator.opt-level=0",
    "profile.release.debug='line-tables-only'",
    "profile.release.debug-assertions=true",
    "profile.release.overflow-checks=true",
    "profile.release.strip='none'",
];

/// Where both profiles' programs lie, each replacing the other's: whoever builds one and takes it away locks this.
pub const PROGRAMS: &str = "programs";

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

    /// A cargo command that builds the whole workspace as it is developed: with debug assertions, and linted.
    ///
    /// The whole, with every feature: for a package alone cargo would choose other features of shared dependencies and
    /// compile them, and what needs them, again.
    pub fn developed<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Command> {
        let mut command = self.command(arguments);
        command.args(["--workspace", "--all-features", "--release"]);
        command.args(UNOPTIMISED.iter().flat_map(|setting| ["--config", setting]));
        lint::while_compiling(&mut command)?;
        Ok(command)
    }

    /// Builds a program of the workspace as it is developed and returns its file.
    pub fn build(&self, program: &str) -> Result<PathBuf> {
        let _lock = store::lock(PROGRAMS)?;
        run::shown(&mut self.developed(["build", "--quiet", "--bin", program])?)
            .with_context(|| format!("build {program}"))?;
        Ok(store::target().join("release").join(program))
    }
}
