//! What runs now, shared with the thread that waits for signals: both end it in the same order.

use super::folder::Folder;
use super::process::{LOOK_AGAIN, Process};
use crate::output;
use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take until it answers. Seconds usually; a busy machine is no failure.
const READY_SECONDS: u64 = 60;

/// The processes and the folder of their data. Ends with all stopped and the folder removed.
pub(super) struct Running(Arc<Mutex<Parts>>);

struct Parts {
    folder: Folder,
    processes: Vec<Process>,
}

impl Running {
    /// Nothing yet, in `folder`. From here on SIGINT, SIGTERM and SIGHUP stop what is running and
    /// end this program.
    pub(super) fn new(folder: Folder) -> Result<Self> {
        let parts = Arc::new(Mutex::new(Parts { folder, processes: Vec::new() }));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("listen to signals")?;
        let shared = Arc::downgrade(&parts);
        thread::spawn(move || {
            let Some(signal) = signals.forever().next() else { return };
            if let Some(parts) = shared.upgrade() {
                lock(&parts).stop();
            }
            // What a shell reports for a program that the signal ended.
            std::process::exit(128 + signal);
        });
        Ok(Self(parts))
    }

    /// Where the data is.
    pub(super) fn folder(&self) -> PathBuf {
        lock(&self.0).folder.path().to_path_buf()
    }

    /// Leaves the folder in place at the end.
    pub(super) fn keep_folder(&self) {
        lock(&self.0).folder.keep();
    }

    /// Takes a process in, to be stopped before those that were there already.
    pub(super) fn add(&self, process: Process) {
        lock(&self.0).processes.push(process);
    }

    /// Waits until the server `name` answers. Its death is an error at once.
    pub(super) fn until(&self, name: &str, answers: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(READY_SECONDS);
        while !answers() {
            self.must_run()?;
            if Instant::now() > deadline {
                bail!("{name} did not answer within {READY_SECONDS} s");
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Waits until the process that was added last has ended.
    pub(super) fn wait_for_last(&self) -> Result<ExitStatus> {
        loop {
            if let Some(process) = lock(&self.0).processes.last_mut()
                && let Some(status) = process.ended()?
            {
                return Ok(status);
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits for ever, unless a process ends by itself, which is an error.
    pub(super) fn wait(&self) -> Result<()> {
        loop {
            self.must_run()?;
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn must_run(&self) -> Result<()> {
        lock(&self.0).processes.iter_mut().try_for_each(Process::must_run)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.0).stop();
    }
}

impl Parts {
    /// What uses the servers stops before them; the servers then stop side by side.
    fn stop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            process.ask_to_stop();
            if process.uses_servers() {
                process.wait_until_stopped();
            }
        }
        self.processes.iter_mut().for_each(Process::wait_until_stopped);
        self.processes.clear();
        if let Some(error) = self.folder.remove().err() {
            output::error(&error);
        }
    }
}

fn lock(parts: &Mutex<Parts>) -> MutexGuard<'_, Parts> {
    // A panic elsewhere must not keep the servers alive.
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}
