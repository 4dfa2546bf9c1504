//! Where built things live outside the clone, each under a key of what it was built from.
//! A thing is complete when its folder has its final name: an interrupted build leaves nothing
//! that a later run could mistake for a finished one.

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of built things: `$AZORA_CACHE`, else `$XDG_CACHE_HOME/azora`, else `~/.cache/azora`.
pub fn root() -> PathBuf {
    if let Some(folder) = std::env::var_os("AZORA_CACHE").filter(|folder| !folder.is_empty()) {
        // Other programs are given paths below it while they run in other folders.
        return std::path::absolute(&folder).unwrap_or_else(|_| folder.into());
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("azora")
}

/// The root of the clone that this program was built in.
pub fn clone_root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("the crate stands in a folder of the workspace").to_path_buf()
}

/// Where cargo builds for chores, shared by every clone so that dependencies are compiled once.
pub fn target() -> PathBuf {
    root().join("target")
}

/// Waits until no other process does what `name` stands for, and keeps others out until the
/// returned file is dropped. The kernel lets go of the lock when the process dies, however it dies.
pub fn lock(name: &str) -> Result<fs::File> {
    lock_below(&root(), name)
}

fn lock_below(root: &Path, name: &str) -> Result<fs::File> {
    let folder = root.join("locks");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let path = folder.join(name);
    let file = fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        crate::output::note(&format!("  … waiting for another `cargo xtask` that holds {}", path.display()));
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}

/// A key over what something is built from: files, folders (recursively, sorted) and plain words.
#[derive(Default)]
pub struct Key(Sha256);

impl Key {
    /// A key of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a word, such as a version.
    pub fn word(mut self, word: &str) -> Self {
        self.add(word.as_bytes());
        self
    }

    /// Adds a file, or a folder with all below it, by relative path and content.
    pub fn path(mut self, path: &Path) -> Result<Self> {
        self.walk(path, path.parent().unwrap_or(path))?;
        Ok(self)
    }

    /// The key: 16 hexadecimal digits, fit for a file name and an image tag.
    pub fn finish(self) -> String {
        use std::fmt::Write as _;
        self.0.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn walk(&mut self, path: &Path, base: &Path) -> Result<()> {
        let name = path.strip_prefix(base).unwrap_or(path).to_string_lossy().into_owned();
        if path.is_dir() {
            let list = fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
            let mut below: Vec<PathBuf> = list.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
            below.sort();
            return below.iter().try_for_each(|each| self.walk(each, base));
        }
        self.add(name.as_bytes());
        self.add(&fs::read(path).with_context(|| format!("read {}", path.display()))?);
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) {
        // The length first, so that "ab" + "c" and "a" + "bc" differ.
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

/// The folder of the thing `name` with `key`, built by `build` into an empty folder if it is not there.
pub fn built(name: &str, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    built_below(&root(), name, key, build)
}

/// Whether the thing is there already.
pub fn is_built(name: &str, key: &str) -> bool {
    root().join(name).join(key).is_dir()
}

fn built_below(root: &Path, name: &str, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = root.join(name).join(key);
    if folder.is_dir() {
        return Ok(folder);
    }
    let _lock = lock_below(root, &format!("{}-{key}", name.replace('/', "-")))?;
    if folder.is_dir() {
        return Ok(folder); // Another process built it meanwhile.
    }
    // One name for every process: the lock keeps them apart, and what a killed one left is cleared away here.
    let partial = root.join(name).join(format!("{key}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
    if let Err(error) = build(&partial) {
        fs::remove_dir_all(&partial).ok();
        return Err(error);
    }
    fs::rename(&partial, &folder).with_context(|| format!("move {} into place", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    /// A folder of a test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("xtask-store-{name}-{}", std::process::id()));
            fs::remove_dir_all(&folder).ok();
            fs::create_dir_all(&folder).expect("a folder");
            Self(folder)
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }

        fn key(&self) -> String {
            Key::new().path(&self.0).expect("it can be read").finish()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn a_key_tells_words_apart_by_where_they_end() {
        let key = |words: &[&str]| words.iter().fold(Key::new(), |key, word| key.word(word)).finish();
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["ab"]).len(), 16);
    }

    #[test]
    fn a_key_of_a_folder_changes_with_a_file_its_name_and_its_place() {
        let sources = Scratch::new("key");
        sources.write("one.rs", "1");
        sources.write("deep/two.rs", "2");
        let first = sources.key();
        assert_eq!(sources.key(), first);
        sources.write("deep/two.rs", "3");
        assert_ne!(sources.key(), first, "content");
        sources.write("deep/two.rs", "2");
        assert_eq!(sources.key(), first, "back to what it was");
        fs::rename(sources.0.join("one.rs"), sources.0.join("uno.rs")).expect("rename");
        assert_ne!(sources.key(), first, "name");
    }

    #[test]
    fn a_key_of_what_is_not_there_is_an_error() {
        assert!(Key::new().path(Path::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn a_thing_is_built_once_and_a_failed_build_leaves_nothing() {
        let store = Scratch::new("built");
        let failed = built_below(&store.0, "tool", "k", |folder| {
            fs::write(folder.join("half"), "")?;
            bail!("the compiler died")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(store.0.join("tool")).expect("listed").count(), 0);

        let folder = built_below(&store.0, "tool", "k", |folder| Ok(fs::write(folder.join("program"), "1")?));
        assert_eq!(folder.expect("built"), store.0.join("tool/k"));
        let again = built_below(&store.0, "tool", "k", |_| bail!("it is there already"));
        assert_eq!(fs::read_to_string(again.expect("found").join("program")).expect("whole"), "1");
    }

    #[test]
    fn an_interrupted_build_is_done_again() {
        let store = Scratch::new("interrupted");
        store.write("tool/k.partial/half", "");
        let folder = built_below(&store.0, "tool", "k", |folder| Ok(fs::write(folder.join("program"), "")?));
        let left = fs::read_dir(folder.expect("built")).expect("listed").map(|entry| entry.expect("entry").file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["program"]);
    }
}
