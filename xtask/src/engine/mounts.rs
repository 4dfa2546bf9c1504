//! What is mounted below a folder: an engine leaves its network namespace behind, and one that was killed leaves its
//! containers' file systems too.

use crate::run;
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Unmounts everything at and below the folder, so that it can be removed. A process that is just ending may still be
/// in there: the folder is free at once all the same, and the file system goes with that process.
pub(super) fn unmount_all(folder: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mounts").context("read the table of mounts")?;
    for mounted in below(&table, folder) {
        run::quiet(&mut run::command("umount", ["--lazy".as_ref(), mounted.as_os_str()]))
            .with_context(|| format!("unmount {}", mounted.display()))?;
    }
    Ok(())
}

/// The mount points at and below the folder, the newest first: an older one may carry it.
fn below(table: &str, folder: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(unescape);
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    found.reverse();
    found
}

/// The kernel writes blanks, tabs, newlines and backslashes as three octal digits. Source: `fstab(5)`.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend(before.bytes());
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(b'\\'));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    bytes.extend(rest.bytes());
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_folder_are_found_whatever_its_name_and_the_newest_first() {
        let table = "/dev/vda / ext4 rw 0 0\n\
                     /dev/vda /with\\040space/data ext4 rw 0 0\n\
                     overlay /with\\040space/data/overlay2/a/merged overlay rw 0 0\n\
                     overlay /with\\040space/data2 overlay rw 0 0\n";
        let want = ["/with space/data/overlay2/a/merged", "/with space/data"].map(PathBuf::from);
        assert_eq!(below(table, Path::new("/with space/data")), want);
        assert_eq!(unescape("a\\134b\\9"), Path::new("a\\b\\9"));
    }
}
