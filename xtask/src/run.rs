//! Runs other programs. A failure names the program, its arguments and the end of what it said.

use anyhow::{Context as _, Result, bail};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Lines of a failed program's output that an error carries: enough for a compiler error.
const TAIL_LINES: usize = 30;

/// Whether `program` is on `PATH`.
pub fn exists(program: &str) -> bool {
    find(program).is_some()
}

/// Where `program` is on `PATH`, or in the folders that a plain user's `PATH` leaves out.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Runs a program with its output passed through.
pub fn shown(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("start {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a program silently; its output is in the error when it fails.
pub fn quiet(command: &mut Command) -> Result<()> {
    text(command).map(drop)
}

/// Runs a program and returns its standard output, trimmed.
pub fn text(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{} ended with {}\n{}", line(command), output.status, tail(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a program; whether it succeeded.
pub fn succeeds(command: &mut Command) -> bool {
    output(command).is_ok_and(|output| output.status.success())
}

/// Sends a signal to a process; whether it could be sent. Through the shell: the standard library can
/// only kill, and `kill` is no program of its own on a minimal system.
pub fn signal(process: u32, name: &str) -> bool {
    succeeds(&mut command("sh", ["-c", "kill -s \"$0\" \"$1\"", name, &process.to_string()]))
}

/// A command from a program and its arguments.
pub fn command<P: AsRef<OsStr>, A: AsRef<OsStr>>(program: P, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// A command in a folder.
pub fn command_in<A: AsRef<OsStr>>(folder: &Path, program: &str, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut made = command(program, arguments);
    made.current_dir(folder);
    made
}

fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("start {}", line(command)))
}

fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    format!("`{}`", words.join(" "))
}

fn tail(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    let all = String::from_utf8_lossy(&all);
    let lines: Vec<&str> = all.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn a_failure_names_the_program_its_arguments_and_what_it_said() {
        let mut fails = command("sh", ["-c", "echo out; echo err >&2; exit 3"]);
        let error = text(&mut fails).expect_err("it fails").to_string();
        assert_eq!(error, "`sh -c echo out; echo err >&2; exit 3` ended with exit status: 3\nout\nerr");
    }

    #[test]
    fn a_failure_carries_only_the_end_of_a_long_output() {
        let error = text(&mut command("sh", ["-c", "seq 100; exit 1"])).expect_err("it fails").to_string();
        let lines: Vec<&str> = error.lines().skip(1).collect();
        assert_eq!((lines.len(), lines[0], lines[29]), (TAIL_LINES, "71", "100"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = quiet(&mut command("no-such-program", ["--help"])).expect_err("it is not there");
        assert_eq!(error.to_string(), "start `no-such-program --help`");
    }

    #[test]
    fn output_is_trimmed_and_success_is_told() {
        assert_eq!(text(&mut command("printf", ["  a b\n\n"])).expect("it runs"), "a b");
        assert!(succeeds(&mut command("sh", ["-c", "exit 0"])));
        assert!(!succeeds(&mut command("sh", ["-c", "exit 1"])));
    }

    #[test]
    fn a_signal_reaches_a_process_and_one_that_is_gone_is_told() {
        let mut child = command("sleep", ["60"]).spawn().expect("it starts");
        assert!(signal(child.id(), "TERM"));
        assert_eq!(child.wait().expect("it ends").signal(), Some(15));
        assert!(!signal(child.id(), "TERM"));
    }

    #[test]
    fn a_program_is_found_on_the_path_and_another_is_not() {
        assert!(exists("sh"));
        assert_eq!(find("no-such-program"), None);
    }
}
