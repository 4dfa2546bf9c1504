//! `cargo xtask check`: what can be said about the sources without running them.

use crate::cargo::binaries;
use crate::output::Step;
use crate::{cargo, generate, output, run, store};
use anyhow::{Context as _, Result, bail};
use std::fs;

/// The longest a source file may be, with its tests.
const FILE_LINES_MAX: usize = 600;

/// Arguments of `cargo xtask check`.
#[derive(clap::Args)]
pub struct Args {}

/// A check: its name and what runs it. Says in a few words what it found.
pub struct Check {
    /// What the summary calls it.
    pub name: &'static str,
    run: fn() -> Result<String>,
}

/// Every check, the quickest first.
pub const CHECKS: [Check; 4] = [
    Check { name: "formatting", run: formatting },
    Check { name: "file sizes", run: file_sizes },
    Check { name: "build with clippy and rustdoc", run: lints },
    Check { name: "generated files", run: generated_files },
];

/// Runs every check, also after one has failed.
pub fn run(_args: &Args) -> Result<()> {
    let failed: Vec<&str> = CHECKS.iter().filter(|check| !check.passes()).map(|check| check.name).collect();
    if !failed.is_empty() {
        bail!("not passed: {}", failed.join(", "));
    }
    Ok(())
}

impl Check {
    /// Runs it and shows what it found; whether it passed.
    pub fn passes(&self) -> bool {
        let step = Step::start(self.name);
        match (self.run)() {
            Ok(found) => {
                step.done(&found);
                true
            }
            Err(error) => {
                output::error(&error.context(format!("the check `{}` did not pass", self.name)));
                false
            }
        }
    }
}

fn formatting() -> Result<String> {
    run::shown(&mut cargo::command(["fmt", "--all", "--check"])).context("`cargo fmt --all` mends it")?;
    Ok(String::new())
}

fn lints() -> Result<String> {
    let warnings = binaries::build(&cargo::build_folder()?)?.warnings;
    for warning in &warnings {
        output::note(warning);
    }
    if !warnings.is_empty() {
        bail!("{} warnings, each an error here", warnings.len());
    }
    Ok(String::new())
}

fn generated_files() -> Result<String> {
    generate::check()?;
    Ok("fresh".to_owned())
}

fn file_sizes() -> Result<String> {
    // Those not yet added count too; those that git ignores do not.
    let words = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.rs"];
    let list = run::text(&mut run::command_in(&store::clone_root(), "git", words)).context("list the sources")?;
    let mut sizes = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        // A file that is deleted but still in git's index is not there to be measured.
        let Ok(text) = fs::read_to_string(store::clone_root().join(path)) else { continue };
        sizes.push((text.lines().count(), path.to_owned()));
    }
    let too_long = sizes.iter().filter(|(lines, _)| *lines > FILE_LINES_MAX);
    let named: Vec<String> = too_long.map(|(lines, path)| format!("{path} ({lines} lines)")).collect();
    if !named.is_empty() {
        bail!("longer than {FILE_LINES_MAX} lines, split by what they are for: {}", named.join(", "));
    }
    Ok(spread(sizes.into_iter().map(|(lines, _)| lines).collect()))
}

fn spread(mut lines: Vec<usize>) -> String {
    lines.sort_unstable();
    let Some(last) = lines.len().checked_sub(1) else { return "no file".to_owned() };
    let (median, most) = (lines[last / 2], lines[last * 95 / 100]);
    format!("{} files, median {median} lines, 95 % within {most}, longest {}", lines.len(), lines[last])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_names_median_and_tail() {
        assert_eq!(spread((1..=100).rev().collect()), "100 files, median 50 lines, 95 % within 95, longest 100");
        assert_eq!(spread(vec![7]), "1 files, median 7 lines, 95 % within 7, longest 7");
        assert_eq!(spread(Vec::new()), "no file");
    }
}
