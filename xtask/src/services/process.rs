//! A process of the services: started so that it ends with this program, stopped by its own signal.

use crate::{packages, run};
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a process may take to stop before it is killed. Postgres writes a checkpoint in it.
const STOP_SECONDS: u64 = 20;

/// How often a wait looks again: short beside the second that a start takes.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Lines of a server's log that the error of its death carries.
const LOG_LINES: usize = 20;

/// What to start as a server.
pub(super) struct Program<'a> {
    /// What messages and the log file call it.
    pub(super) name: &'static str,
    /// The signal that makes it stop at once but in order.
    pub(super) stop_signal: &'static str,
    /// Whom to become first, when this program runs as root.
    pub(super) user: Option<&'static str>,
    /// The program's file.
    pub(super) file: &'a Path,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
}

/// A running process.
pub(super) struct Process {
    /// What messages call it.
    pub(super) name: String,
    stop_signal: &'static str,
    child: Child,
    /// A server writes one; a foreground command writes to the terminal.
    log: Option<PathBuf>,
}

impl Process {
    /// Starts a server with `folder` as its working folder, by which a later run finds it should it
    /// be left behind, and its output in a log there.
    pub(super) fn server(program: &Program<'_>, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{}.log", program.name));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = become_user(program.user);
        command.args(["setpriv", "--pdeathsig", program.stop_signal, "--"]);
        command.arg(program.file).args(&program.arguments).current_dir(folder);
        command.stdin(Stdio::null()).stderr(output.try_clone().context("share the log")?).stdout(output);
        // A group of its own: Ctrl-C at the terminal reaches only this program, which stops the
        // servers after what uses them.
        let child = command.process_group(0).spawn().with_context(|| format!("start {}", program.name))?;
        Ok(Self { name: program.name.to_owned(), stop_signal: program.stop_signal, child, log: Some(log) })
    }

    /// Starts a command that shares this program's terminal.
    pub(super) fn foreground(command: &Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut wrapped = run::command("setpriv", ["--pdeathsig", "TERM", "--"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(variable, value),
                None => wrapped.env_remove(variable),
            };
        }
        let child = wrapped.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name, stop_signal: "TERM", child, log: None })
    }

    /// Its exit status, if it has ended.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("look after {}", self.name))
    }

    /// Fails with the end of its log if it has ended.
    pub(super) fn must_run(&mut self) -> Result<()> {
        let Some(status) = self.ended()? else { return Ok(()) };
        let log = self.log.as_ref().and_then(|log| fs::read_to_string(log).ok()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        bail!("{} ended by itself with {status}; the end of its log:\n{end}", self.name)
    }

    /// Whether it is a command that uses the servers, rather than one of them.
    pub(super) fn uses_servers(&self) -> bool {
        self.log.is_none()
    }

    /// Asks it to stop. Does not wait.
    pub(super) fn ask_to_stop(&mut self) {
        if matches!(self.ended(), Ok(None)) {
            run::signal(self.child.id(), self.stop_signal);
        }
    }

    /// Waits until it has stopped, and kills it when it takes too long.
    pub(super) fn wait_until_stopped(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS);
        while matches!(self.ended(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(LOOK_AGAIN);
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A command that goes on as `user` when this program runs as root.
pub(super) fn become_user(user: Option<&str>) -> Command {
    match user {
        Some(user) if packages::is_root() => {
            run::command("setpriv", ["--reuid", user, "--regid", user, "--init-groups", "--"])
        }
        _ => run::command("env", ["--"]),
    }
}
