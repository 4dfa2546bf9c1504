//! Runs other programs. A failure names the program, its arguments and the end of what it said. A SIGTERM ends what runs,
//! so that nothing goes on behind the back of the next run.

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Lines of a failed program's output that an error carries: enough for a compiler error.
const TAIL_LINES: usize = 30;

/// Programs that run now.
static RUNNING: Mutex<Running> = Mutex::new(Running { ids: Vec::new(), ending: false });

struct Running {
    ids: Vec<u32>,
    /// Nothing more is started.
    ending: bool,
}

/// From here on a SIGTERM is passed on to what runs. The chore then ends as when that had failed, in order.
/// (A terminal sends its SIGINT to all of them by itself.)
pub fn pass_on_sigterm() -> Result<()> {
    let mut signals = Signals::new([SIGTERM]).context("listen to SIGTERM")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            end_all();
        }
    });
    Ok(())
}

/// Ends what runs, such as a compile beside a step that has failed; nothing is started any more.
pub fn end_all() {
    // A chore whose command has ended on the signal waits here until the others were sent theirs.
    static ENDING: Mutex<()> = Mutex::new(());
    let _alone = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
    let ids = {
        let mut running = running();
        running.ending = true;
        running.ids.clone()
    };
    // cargo, for one, leaves its compilers running.
    for process in with_descendants(ids) {
        // One that has ended meanwhile is no failure.
        signal(process, "TERM");
    }
}

/// The processes and all that they have started, by the parents that the kernel names.
fn with_descendants(mut ids: Vec<u32>) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|process| {
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            // A name may hold anything, so what follows it is found from the end. Source: `proc_pid_stat(5)`.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((parent, process.file_name().to_str()?.parse().ok()?))
        })
        .collect();
    let mut seen = 0;
    while let Some(&id) = ids.get(seen) {
        seen += 1;
        ids.extend(parents.iter().filter(|(parent, _)| *parent == id).map(|(_, child)| *child));
    }
    ids
}

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

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
    let output = run(command)?;
    if !output.status.success() {
        bail!("{} ended with {}", line(command), output.status);
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

/// Runs a program with its errors passed through; how it ended, and what it wrote to its standard output.
pub fn printed(command: &mut Command) -> Result<Output> {
    run(command.stdout(Stdio::piped()))
}

/// Runs a program; whether it succeeded.
pub fn succeeds(command: &mut Command) -> bool {
    output(command).is_ok_and(|output| output.status.success())
}

/// Sends a signal to a process; whether it could be sent. Through the shell: the standard library can
/// only kill, and `kill` is no program of its own on a minimal system.
pub fn signal(process: u32, name: &str) -> bool {
    let mut kill = command("sh", ["-c", "kill -s \"$0\" \"$1\"", name, &process.to_string()]);
    // Not by `succeeds`: what has to stop is told so also when nothing else is started any more.
    kill.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
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
    run(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// Runs a program to its end.
fn run(command: &mut Command) -> Result<Output> {
    let child = start(command)?;
    let id = child.id();
    let output = child.wait_with_output();
    running().ids.retain(|other| *other != id);
    output.with_context(|| format!("wait for {}", line(command)))
}

fn start(command: &mut Command) -> Result<Child> {
    let mut running = running();
    if running.ending {
        bail!("{} was not started: this chore was asked to end", line(command));
    }
    let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("start {}", line(command)))?;
    running.ids.push(child.id());
    Ok(child)
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
    fn what_a_program_has_started_is_known() {
        let mut shell = command("sh", ["-c", "sleep 60 & echo $!; wait"]);
        let mut shell = shell.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut said = [0; 16];
        let count = std::io::Read::read(shell.stdout.as_mut().expect("piped"), &mut said).expect("it speaks");
        let child: u32 = String::from_utf8_lossy(&said[..count]).trim().parse().expect("a process");
        assert_eq!(with_descendants(vec![shell.id()]), [shell.id(), child]);
        assert!(signal(child, "TERM"));
        shell.wait().expect("it ends");
    }

    #[test]
    fn a_program_is_found_on_the_path_and_another_is_not() {
        assert!(exists("sh"));
        assert_eq!(find("no-such-program"), None);
    }
}
