//! Resident memory of running programs, from `/proc`: what the kernel holds for them, shared libraries included.

use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// Nexus on the local services.
#[derive(Serialize)]
pub(super) struct Nexus {
    pub(super) at_rest_bytes: u64,
    pub(super) after_load_bytes: u64,
}

/// Resident memory of the one process that runs the file `program`.
pub(super) fn of_program(program: &Path) -> Option<u64> {
    resident(&folders_of(program)?.next()?)
}

/// The id of the process that runs it, and is none of the `others`.
pub(super) fn process_of(program: &Path, others: &[u32]) -> Option<u32> {
    let mut ids = folders_of(program)?.filter_map(|folder| folder.file_name()?.to_str()?.parse().ok());
    ids.find(|id| !others.contains(id))
}

/// The id of the process that was started with this very argument.
pub(super) fn process_with(argument: &str) -> Option<u32> {
    let with = |process: &PathBuf| {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    };
    processes().find(with)?.file_name()?.to_str()?.parse().ok()
}

fn folders_of(program: &Path) -> Option<impl Iterator<Item = PathBuf>> {
    let program = fs::canonicalize(program).ok()?;
    Some(processes().filter(move |process| fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program)))
}

/// Resident memory of the program `name` in the pod with this uid, on a node that runs on this machine.
pub(super) fn of_pod(uid: &str, name: &str) -> Option<u64> {
    // systemd writes a uid's dashes as underscores in the names of its slices.
    let names = [uid.to_owned(), uid.replace('-', "_")];
    let ours = |process: &PathBuf| {
        let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
        names.iter().any(|name| groups.contains(name)) && command.trim() == name
    };
    resident(&processes().find(ours)?)
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.join("exe").is_symlink())
}

fn resident(process: &Path) -> Option<u64> {
    parse(&fs::read_to_string(process.join("status")).ok()?)
}

/// `VmRSS` of a `/proc/PID/status`, in bytes.
fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(parse("Name:\tnexus\nVmHWM:\t  40000 kB\nVmRSS:\t   20480 kB\n"), Some(20_971_520));
        assert_eq!(parse("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn this_very_program_is_found() {
        let own = std::env::current_exe().expect("a test is a file");
        assert!(of_program(&own).is_some_and(|bytes| bytes > 1 << 20));
    }
}
