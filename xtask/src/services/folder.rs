//! The folder of one run's data. It bears the run's process id, so that a later run can tell what
//! a killed one has left behind, and clear it away with the servers that still sit in it.

use crate::{output, packages, run, store};
use anyhow::{Context as _, Result};
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// How the folders are called, before the process id.
const PREFIX: &str = "azora-services-";

/// A run's folder.
pub(super) struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Folder {
    /// Makes this run's folder, after clearing away what killed runs have left.
    pub(super) fn create() -> Result<Self> {
        let base = base();
        fs::create_dir_all(&base).with_context(|| format!("create {}", base.display()))?;
        clear_leftovers(&base)?;
        let path = base.join(format!("{PREFIX}{}", std::process::id()));
        // Others may pass through to what is theirs (Postgres' part, when we are root), not list it.
        // Not `create_dir_all`: a folder of this name that is there already is not ours to use.
        fs::DirBuilder::new().mode(0o711).create(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path, kept: false })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets it stay at the end.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// Removes it, or says where it stays, under a name that no later run clears away.
    pub(super) fn remove(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        if self.kept {
            let kept = self.path.with_file_name(format!("{PREFIX}kept-{}", std::process::id()));
            fs::rename(&self.path, &kept).with_context(|| format!("rename {}", self.path.display()))?;
            output::note(&format!("The data and the logs stay in {}.", kept.display()));
            return Ok(());
        }
        fs::remove_dir_all(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }
}

/// The cache; but for root a folder that the user `postgres` can reach too, which root's home is not.
/// On disk rather than in memory, where `fsync` would cost nothing and benchmarks would flatter.
fn base() -> PathBuf {
    if packages::is_root() { "/var/tmp".into() } else { store::root().join("services") }
}

/// Removes our folders whose run is gone, and first kills the servers that still sit in them.
fn clear_leftovers(base: &Path) -> Result<()> {
    let own = fs::metadata("/proc/self").context("read our own user")?.uid();
    for entry in fs::read_dir(base).with_context(|| format!("list {}", base.display()))? {
        let entry = entry.with_context(|| format!("list {}", base.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(run) = name.strip_prefix(PREFIX).and_then(|id| id.parse::<u32>().ok()) else { continue };
        let ours = entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own);
        if !ours || is_running(run) {
            continue;
        }
        output::note(&format!("    clear away what a killed run left in {}", entry.path().display()));
        for process in inside(&entry.path()) {
            run::signal(process, "KILL");
        }
        fs::remove_dir_all(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
    }
    Ok(())
}

/// Whether another xtask of this process id runs: this program's own id was the dead one's.
fn is_running(run: u32) -> bool {
    let comm = fs::read_to_string(format!("/proc/{run}/comm")).unwrap_or_default();
    // A process that has ended but is not yet reaped has no program file any more.
    run != std::process::id() && comm.trim_end() == "xtask" && fs::read_link(format!("/proc/{run}/exe")).is_ok()
}

/// The processes whose working folder is `folder` or below.
fn inside(folder: &Path) -> Vec<u32> {
    let Ok(list) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))).collect()
}
