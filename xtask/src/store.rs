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
    let folder = root().join("locks");
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
    let folder = root().join(name).join(key);
    if folder.is_dir() {
        return Ok(folder);
    }
    let _lock = lock(&format!("{}-{key}", name.replace('/', "-")))?;
    if folder.is_dir() {
        return Ok(folder); // Another process built it meanwhile.
    }
    let partial = root().join(name).join(format!("{key}.partial.{}", std::process::id()));
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
