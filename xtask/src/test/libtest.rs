//! Runs test binaries and reads what they say: one `test result:` line for each run of Rust's test
//! harness. A binary that dies without one has failed, whatever it printed before.

use super::summary::Counts;
use crate::cargo::BuildFolder;
use crate::cargo::binaries::Binary;
use crate::{output, run};
use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How to run a binary.
#[derive(Clone, Default)]
pub(super) struct Options<'a> {
    /// Only tests whose name contains this.
    pub(super) filter: Option<&'a str>,
    /// None of the tests whose name contains this.
    pub(super) skip: Option<&'a str>,
    /// Tests side by side; else as many as the harness finds processors.
    pub(super) threads: Option<usize>,
    /// Show each test that passed, for suites that take minutes.
    pub(super) show_passed: bool,
    /// Show what tests print, also of those that pass.
    pub(super) show_output: bool,
    /// What the tests read from their environment.
    pub(super) environment: Vec<(String, String)>,
    /// Others run at the same time, and are shown first.
    pub(super) aside: Option<&'a Aside>,
}

/// What tests beside others have printed: kept until those are through, whose lines it would tear apart.
#[derive(Default)]
pub(super) struct Aside(Mutex<Vec<String>>);

impl Aside {
    /// Shows it.
    pub(super) fn show(&self) {
        self.lines().drain(..).for_each(|line| output::note(&line));
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a binary has a test whose name contains `filter`.
pub(super) fn has(binary: &Binary, filter: &str) -> bool {
    let list = run::text(&mut run::command(&binary.file, [filter, "--list", "--format", "terse"]));
    list.is_ok_and(|list| list.lines().any(|line| line.ends_with(": test")))
}

/// Runs a binary.
pub(super) fn run(binary: &Binary, options: &Options<'_>) -> Result<Counts> {
    let mut command = Command::new(&binary.file);
    command
        .args(options.filter)
        .current_dir(&binary.folder)
        .envs(options.environment.iter().map(|(name, value)| (name, value)));
    // Some tests find their package's files by it, as under `cargo test`.
    command.env("CARGO_MANIFEST_DIR", &binary.folder);
    if let Some(skip) = options.skip {
        command.args(["--skip", skip]);
    }
    if options.show_output {
        command.arg("--nocapture");
    }
    if let Some(threads) = options.threads {
        command.arg(format!("--test-threads={threads}"));
    }
    follow(&mut command, options.show_passed, options.aside)
}

/// Compiles and runs the examples in the libraries' documentation.
pub(super) fn documentation_examples(build: &BuildFolder) -> Result<Counts> {
    follow(&mut build.developed(["test", "--quiet", "--doc", "--no-fail-fast"])?, false, None)
}

/// Runs a command, shows what it prints as it comes, and adds up its results.
fn follow(command: &mut Command, show_passed: bool, aside: Option<&Aside>) -> Result<Counts> {
    let show = |line: String| match aside {
        Some(aside) => aside.lines().push(line),
        None => output::note(&line),
    };
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start the tests")?;
    let printed = child.stdout.take().context("read what the tests print")?;
    let mut counts = Counts::default();
    for line in BufReader::new(printed).split(b'\n') {
        let line = line.context("read what the tests print")?;
        let line = String::from_utf8_lossy(&line);
        if let Some(result) = result(&line) {
            counts.add(result);
        } else if shows(&line, show_passed) {
            show(format!("    {line}"));
        }
    }
    let status = child.wait().context("wait for the tests")?;
    if !status.success() && counts.failed == 0 {
        show(format!("    the tests ended with {status} and named none that failed"));
        counts.failed = 1;
    }
    Ok(counts)
}

/// What a `test result:` line counts.
fn result(line: &str) -> Option<Counts> {
    let (_, counted) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        let part = counted.split(';').find_map(|part| part.trim().strip_suffix(word))?;
        part.trim().parse().ok()
    };
    Some(Counts { passed: number("passed")?, failed: number("failed")?, ignored: number("ignored")? })
}

fn shows(line: &str, show_passed: bool) -> bool {
    let passed = line.starts_with("test ") && line.ends_with("... ok");
    !line.is_empty() && !line.starts_with("running ") && (show_passed || !passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_counted_and_any_other_is_not() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.51s";
        assert_eq!(result(line), Some(Counts { passed: 12, failed: 3, ignored: 1 }));
        for other in
            ["test result: ok", "test a::result ... ok", "test result: ok. many passed; 0 failed; 0 ignored", ""]
        {
            assert_eq!(result(other), None, "{other}");
        }
    }

    #[test]
    fn a_run_that_dies_without_a_result_has_failed() {
        let mut dies = run::command("sh", ["-c", "echo 'test a ... ok'; kill -9 $$"]);
        assert_eq!(follow(&mut dies, false, None).expect("it starts"), Counts { passed: 0, failed: 1, ignored: 0 });
    }

    #[test]
    fn results_of_one_run_add_up() {
        let line = "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let mut twice = run::command("printf", ["%s\n%s\n", line, line]);
        assert_eq!(follow(&mut twice, false, None).expect("it starts"), Counts { passed: 4, failed: 0, ignored: 2 });
    }

    #[test]
    fn a_passed_test_is_shown_only_when_asked_for() {
        assert!(shows("test a ... FAILED", false));
        assert!(!shows("test a ... ok", false));
        assert!(shows("test a ... ok", true));
        assert!(!shows("running 3 tests", true));
    }
}
