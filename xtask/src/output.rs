//! What a chore tells its user: steps with their time, lines that change in place on a terminal,
//! errors with their causes. The only module that prints.
#![allow(clippy::print_stdout)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A step of a chore, announced when it starts and timed when it ends.
pub struct Step {
    title: String,
    started: Instant,
    live: bool,
}

impl Step {
    /// Announces a step.
    pub fn start(title: impl Into<String>) -> Self {
        let title = title.into();
        let live = std::io::stderr().is_terminal();
        if live {
            eprint!("\r\x1b[2K  … {title}");
        } else {
            eprintln!("  … {title}");
        }
        Self { title, started: Instant::now(), live }
    }

    /// Says what the step waits for now. On a terminal the line changes in place.
    pub fn waiting(&self, on: &str) {
        let seconds = self.started.elapsed().as_secs();
        if self.live {
            eprint!("\r\x1b[2K  … {} ({seconds} s): {on}", self.title);
            std::io::stderr().flush().ok();
        } else {
            eprintln!("    {seconds:>4} s  {on}");
        }
    }

    /// Ends the step with its time and a short result, such as a size or a version.
    pub fn done(self, result: &str) -> Duration {
        let took = self.started.elapsed();
        let sep = if result.is_empty() { "" } else { ": " };
        let clear = if self.live { "\r\x1b[2K" } else { "" };
        eprintln!("{clear}  ✓ {}{sep}{result} ({})", self.title, human(took));
        took
    }
}

/// The error of a chore whose output has said all there is to say: only the exit code is left.
#[derive(Debug)]
pub struct Said(pub u8);

impl std::fmt::Display for Said {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "ended with exit code {}", self.0)
    }
}

impl std::error::Error for Said {}

/// A duration as a person reads it: `0.4 s`, `12 s`, `3 min 05 s`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

/// A size in bytes as a person reads it, in powers of 1,024.
#[allow(clippy::cast_precision_loss)] // Shown with one decimal.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// A line of progress.
pub fn note(line: &str) {
    eprintln!("{line}");
}

/// A line of the result, on standard output.
pub fn result(line: &str) {
    println!("{line}");
}

/// Shows why a chore failed, unless it has said so itself, and gives the exit code.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    if let Some(Said(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    self::error(error);
    ExitCode::FAILURE
}

/// An error with its causes, each on a line of its own.
pub fn error(error: &anyhow::Error) {
    eprintln!("\nerror: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_in_the_unit_that_fits() {
        let shown = [0, 400, 9_960, 12_900, 60_000, 185_000].map(|millis| human(Duration::from_millis(millis)));
        assert_eq!(shown, ["0.0 s", "0.4 s", "10.0 s", "12 s", "1 min 00 s", "3 min 05 s"]);
    }

    #[test]
    fn a_size_reads_in_the_unit_that_fits() {
        let shown = [0, 1_536, 1_048_576, 280_000_000, 3 << 30].map(size);
        assert_eq!(shown, ["0 KiB", "2 KiB", "1.0 MiB", "267.0 MiB", "3.00 GiB"]);
    }
}
