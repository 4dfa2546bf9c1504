//! A clone's claim on the shared build folder. For cargo the packages of two clones are the same packages, whose
//! sources differ only by their time stamps: without a claim, a clone could be given what another one's sources
//! became. The dependencies are the same in every clone, and stay.

use crate::output;
use anyhow::{Context as _, Result};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// What the names of the workspace's packages begin with, in the folders where cargo notes what is fresh.
const OURS: [&str; 2] = ["azora-", "xtask-"];

/// The file in the build folder that names the clone.
const NAME: &str = "clone";

/// What tells a clone from others, and from an earlier one in the same place.
pub(super) fn identity(clone: &Path) -> Result<String> {
    let found = fs::metadata(clone).with_context(|| format!("look at {}", clone.display()))?;
    let born = found.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Ok(format!("{} {} {}", clone.display(), found.ino(), born.as_nanos()))
}

/// Makes `target` the clone's own until the returned file is dropped. Commands of one clone share it, those of
/// others wait.
pub(super) fn take(target: &Path, clone: &str) -> Result<File> {
    fs::create_dir_all(target).with_context(|| format!("create {}", target.display()))?;
    let path = target.join(NAME);
    let file = File::options().read(true).append(true).create(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let locking = || format!("lock {}", path.display());
    loop {
        file.lock_shared().with_context(locking)?;
        if names(&path, clone) {
            return Ok(file);
        }
        file.unlock().with_context(locking)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                output::note(&format!("  … waiting for another clone that builds in {}", target.display()));
                file.lock().with_context(locking)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(locking),
        }
        // While this one waited, another thread of the clone may have taken it, and built.
        if !names(&path, clone) {
            forget(target)?;
            // Written last: an interrupted change is made again.
            fs::write(&path, clone).with_context(|| format!("write {}", path.display()))?;
        }
        file.unlock().with_context(locking)?;
    }
}

fn names(path: &Path, clone: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|found| found == clone)
}

/// Removes what cargo knows of the workspace's own packages, so that it builds them anew.
fn forget(target: &Path) -> Result<()> {
    for profile in folders(target)? {
        for package in folders(&profile.join(".fingerprint"))? {
            let name = package.file_name().unwrap_or_default().to_string_lossy();
            if OURS.iter().any(|ours| name.starts_with(ours)) {
                fs::remove_dir_all(&package).with_context(|| format!("remove {}", package.display()))?;
            }
        }
    }
    Ok(())
}

fn folders(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let list = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let paths = list.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;

    /// A build folder with one package of ours and one dependency.
    fn built(name: &str) -> std::path::PathBuf {
        let target = std::env::temp_dir().join(format!("xtask-claim-{name}-{}", std::process::id()));
        fs::remove_dir_all(&target).ok();
        for package in ["azora-nexus-0123", "tokio-4567"] {
            fs::create_dir_all(target.join("debug/.fingerprint").join(package)).expect("a folder");
        }
        target
    }

    fn known(target: &Path) -> Vec<String> {
        let list = folders(&target.join("debug/.fingerprint")).expect("listed");
        list.iter().map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
    }

    fn leads_to(fd: &std::io::Result<fs::DirEntry>, target: &Path) -> bool {
        fd.as_ref().is_ok_and(|fd| fs::read_link(fd.path()).is_ok_and(|file| file == target.join(NAME)))
    }

    #[test]
    fn another_clone_finds_the_dependencies_and_nothing_of_ours() {
        let target = built("other");
        drop(take(&target, "one").expect("taken"));
        fs::create_dir_all(target.join("debug/.fingerprint/azora-nexus-0123")).expect("built by the first clone");
        drop(take(&target, "one").expect("taken again"));
        assert_eq!(known(&target).len(), 2, "the same clone goes on with what it built");
        drop(take(&target, "two").expect("taken by another"));
        assert_eq!(known(&target), ["tokio-4567"]);
        fs::remove_dir_all(target).ok();
    }

    #[test]
    fn one_clone_shares_its_claim_and_keeps_another_out() {
        let target = built("shared");
        let first = take(&target, "one").expect("taken");
        let second = take(&target, "one").expect("taken beside the first");
        let (sender, taken) = std::sync::mpsc::channel();
        let other = std::thread::spawn({
            let target = target.clone();
            move || {
                let claim = take(&target, "two").expect("taken by another");
                sender.send(fs::read_to_string(target.join(NAME)).expect("named")).expect("heard");
                drop(claim);
            }
        });
        drop(first);
        assert_eq!(fs::read_to_string(target.join(NAME)).expect("named"), "one", "the second still holds it");
        assert!(taken.try_recv().is_err());
        drop(second);
        assert_eq!(taken.recv().expect("said"), "two");
        other.join().expect("it ends well");
        fs::remove_dir_all(target).ok();
    }

    #[test]
    fn of_two_that_wait_the_second_keeps_what_the_first_built() {
        let target = built("waiting");
        let first = take(&target, "one").expect("taken");
        let waiting = ["azora-nexus-a", "azora-nexus-b"].map(|package| {
            let target = target.clone();
            std::thread::spawn(move || {
                let claim = take(&target, "two").expect("taken by another");
                fs::create_dir(target.join("debug/.fingerprint").join(package)).expect("built");
                drop(claim);
            })
        });
        // Both have opened the file, and wait for its lock or are about to.
        while fs::read_dir("/proc/self/fd").expect("listed").filter(|fd| leads_to(fd, &target)).count() < 3 {}
        drop(first);
        for thread in waiting {
            thread.join().expect("it ends well");
        }
        let mut known = known(&target);
        known.sort();
        assert_eq!(known, ["azora-nexus-a", "azora-nexus-b", "tokio-4567"]);
        fs::remove_dir_all(target).ok();
    }

    #[test]
    fn a_clone_in_the_place_of_another_is_another() {
        let place = built("place");
        let before = identity(&place).expect("known");
        assert_eq!(identity(&place).expect("known"), before);
        fs::rename(&place, place.with_extension("old")).expect("moved away");
        fs::create_dir(&place).expect("a new one");
        assert_ne!(identity(&place).expect("known"), before);
        fs::remove_dir_all(place.with_extension("old")).ok();
        fs::remove_dir_all(place).ok();
    }

    #[test]
    fn every_package_of_the_workspace_is_ours() {
        let root = store::clone_root();
        for member in ["operator", "nexus", "bench", "xtask", "tests"] {
            let manifest = fs::read_to_string(root.join(member).join("Cargo.toml")).expect("a manifest");
            let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
            let name = format!("{}-", name.expect("a package has a name"));
            assert!(OURS.iter().any(|ours| name.starts_with(ours)), "{name}");
        }
    }
}
