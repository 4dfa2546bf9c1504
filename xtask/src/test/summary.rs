//! What ran and how it ended: a line for each suite, and the sum as the last line.

use crate::output;
use anyhow::Result;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Tests of a suite by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) ignored: u32,
}

/// A suite that ran.
pub(super) struct Suite {
    /// What the table calls it.
    pub(super) name: String,
    pub(super) counts: Counts,
    pub(super) took: Duration,
}

/// Every suite so far, in the order they ran.
#[derive(Default)]
pub(super) struct Summary {
    suites: Vec<Suite>,
    left_out: Vec<String>,
}

impl Counts {
    /// Adds another count to this one.
    pub(super) fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl Summary {
    /// Takes a suite in, unless it had nothing to run.
    pub(super) fn add(&mut self, suite: Suite) {
        if suite.counts != Counts::default() {
            self.suites.push(suite);
        }
    }

    /// Runs a suite. One that cannot run counts as one failure.
    pub(super) fn attempt(&mut self, name: &str, run: impl FnOnce() -> Result<Counts>) {
        output::note(&format!("  … {name}"));
        let started = Instant::now();
        let result = run();
        self.ended(name, result, started.elapsed());
    }

    /// Takes in how a suite ended. One that could not run counts as one failure.
    pub(super) fn ended(&mut self, name: &str, result: Result<Counts>, took: Duration) {
        match result {
            Ok(counts) => {
                let mark = if counts.failed == 0 { "✓" } else { "✗" };
                output::note(&format!("  {mark} {name} ({})", output::human(took)));
                self.add(Suite { name: name.to_owned(), counts, took });
            }
            Err(error) => self.broken(name, &error),
        }
    }

    /// Counts a suite that could not run as one failure, and says why.
    pub(super) fn broken(&mut self, name: &str, error: &anyhow::Error) {
        output::error(error);
        let counts = Counts { passed: 0, failed: 1, ignored: 0 };
        self.add(Suite { name: format!("{name} (could not run)"), counts, took: Duration::ZERO });
    }

    /// Notes a suite that was not asked for.
    pub(super) fn left_out(&mut self, name: &str, reason: &str) {
        self.left_out.push(format!("{name}: left out ({reason})"));
    }

    /// Whether anything failed, or nothing ran at all, which proves nothing.
    pub(super) fn failed(&self) -> bool {
        let sum = self.sum();
        sum.failed > 0 || sum.passed == 0
    }

    /// The table, and as its last line `N passed, N failed`.
    pub(super) fn table(&self) -> String {
        let width = self.suites.iter().map(|suite| suite.name.chars().count()).max().unwrap_or(0).max(5);
        let mut table = format!("\n{:width$}  passed  failed  ignored  time\n", "suite");
        for Suite { name, counts: Counts { passed, failed, ignored }, took } in &self.suites {
            let took = output::human(*took);
            let _ = writeln!(table, "{name:width$}  {passed:>6}  {failed:>6}  {ignored:>7}  {took}");
        }
        for line in &self.left_out {
            let _ = writeln!(table, "{line}");
        }
        let sum = self.sum();
        let _ = write!(table, "{} passed, {} failed", sum.passed, sum.failed);
        table
    }

    fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        self.suites.iter().for_each(|suite| sum.add(suite.counts));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(name: &str, passed: u32, failed: u32) -> Suite {
        Suite { name: name.to_owned(), counts: Counts { passed, failed, ignored: 0 }, took: Duration::from_secs(61) }
    }

    #[test]
    fn the_table_ends_with_the_sum() {
        let mut summary = Summary::default();
        summary.add(suite("nexus (lib)", 40, 0));
        summary.add(suite("empty", 0, 0));
        summary.add(suite("tests/e2e", 9, 2));
        summary.left_out("bench", "not asked for");
        let want = "
suite        passed  failed  ignored  time
nexus (lib)      40       0        0  1 min 01 s
tests/e2e         9       2        0  1 min 01 s
bench: left out (not asked for)
49 passed, 2 failed";
        assert_eq!(summary.table(), want);
        assert!(summary.failed());
    }

    #[test]
    fn a_run_of_nothing_has_not_passed() {
        assert!(Summary::default().failed());
    }

    #[test]
    fn a_suite_that_cannot_run_is_one_failure() {
        let mut summary = Summary::default();
        summary.add(suite("nexus (lib)", 1, 0));
        assert!(!summary.failed());
        summary.attempt("service tests", || anyhow::bail!("no database"));
        assert_eq!(summary.table().lines().last(), Some("1 passed, 1 failed"));
    }
}
