//! The release binaries of the workspace, each as a root file system for an image: the binary, the shared
//! libraries it is linked to, CA certificates and a passwd entry. Built on the host with the cargo cache of
//! all chores, and not at all when the sources have not changed.

use crate::ahead::Ahead;
use crate::cargo::BuildFolder;
use crate::output::Step;
use crate::{cargo, output, run, store};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the binary is in its image.
const BINARIES: &str = "usr/local/bin";

/// Where Debian keeps Mozilla's certificate authorities, without those that a machine's owner added.
const AUTHORITIES: &str = "/usr/share/ca-certificates/mozilla";

/// The one file that TLS libraries look for.
const AUTHORITIES_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// A binary of the workspace.
pub(super) struct Binary {
    /// The crate's folder and the image's name.
    pub(super) folder: &'static str,
    /// The package, as cargo names it.
    package: &'static str,
    /// The program.
    pub(super) program: &'static str,
}

pub(super) const NEXUS: Binary = Binary { folder: "nexus", package: "azora-nexus", program: "nexus" };
pub(super) const OPERATOR: Binary = Binary { folder: "operator", package: "azora-operator", program: "azora-operator" };

impl Binary {
    /// The root file system with this binary, built if its sources have changed.
    pub(super) fn root_folder(&self) -> Result<PathBuf> {
        let key = self.key()?;
        store::built(&self.name(), &key, |root| {
            // Kept until the binary is copied: another clone would build its own in its place.
            let build = cargo::build_folder()?;
            let _lock = store::lock(cargo::PROGRAMS)?;
            compile(&build)?;
            // Else what is kept under this key would be something else.
            ensure!(self.key()? == key, "the sources were edited while they were compiled: run this command again");
            self.assemble(root)
        })
    }

    /// The program itself, from the same build as its image.
    pub(super) fn program_file(&self) -> Result<PathBuf> {
        Ok(self.root_folder()?.join(BINARIES).join(self.program))
    }

    /// What the store calls it.
    fn name(&self) -> String {
        format!("release-{}", self.folder)
    }

    /// A key over all that the binary is built from.
    fn key(&self) -> Result<String> {
        let root = store::clone_root();
        let mut key = store::Key::new()
            .word(&run::text(&mut cargo::command(["--version"]))?)
            .word(&libc_version())
            .path(&root.join("Cargo.toml"))?
            .path(&root.join("Cargo.lock"))?;
        for part in sources(&root.join(self.folder))? {
            key = key.path(&part)?;
        }
        Ok(key.finish())
    }

    fn assemble(&self, root: &Path) -> Result<()> {
        let built = store::target().join("release").join(self.program);
        copy(&built, &root.join(BINARIES).join(self.program))?;
        let linked = run::text(run::command("ldd", [""; 0]).arg(&built)).context("ask for the linked libraries")?;
        for library in libraries(&linked) {
            let inside = library.strip_prefix("/").unwrap_or(&library);
            copy(&library, &root.join(inside))?;
        }
        write(&root.join(AUTHORITIES_BUNDLE), &authorities()?)?;
        write(&root.join("etc/passwd"), &format!("{}:x:999:999::/:/sbin/nologin\n", self.folder))?;
        write(&root.join("etc/group"), &format!("{}:x:999:\n", self.folder))?;
        // Without it the C library would ask only DNS, and a pod's /etc/hosts would not count.
        write(&root.join("etc/nsswitch.conf"), "hosts: files dns\n")
    }
}

/// Begins to compile the release binaries where they are not there yet. What comes before them in a chore mostly
/// waits, for downloads and for the cluster.
pub(crate) fn compile_ahead() -> Ahead {
    let built = |binary: &Binary| binary.key().is_ok_and(|key| store::is_built(&binary.name(), &key));
    if built(&NEXUS) && built(&OPERATOR) {
        return Ahead::default();
    }
    Ahead::begin("release binaries", || run::quiet(&mut build_command(&cargo::build_folder()?)))
}

fn build_command(folder: &BuildFolder) -> Command {
    let mut build = folder.command(["build", "--release", "--locked", "--bins"]);
    build.args(["--package", NEXUS.package, "--package", OPERATOR.package]);
    build
}

/// Compiles both programs in one go: cargo unifies the features of what it builds together, so building one
/// alone would compile shared dependencies a second time.
fn compile(folder: &BuildFolder) -> Result<()> {
    let step = Step::start("release binaries");
    run::shown(&mut build_command(folder)).context("compile the release binaries")?;
    let size = |binary: &Binary| -> Result<String> {
        let file = store::target().join("release").join(binary.program);
        let bytes = fs::metadata(&file).with_context(|| format!("find {}", file.display()))?.len();
        Ok(format!("{} {}", binary.program, output::size(bytes)))
    };
    step.done(&format!("{}, {}", size(&NEXUS)?, size(&OPERATOR)?));
    Ok(())
}

/// What of a crate's folder goes into its binary: all but its tests, whose change must not rebuild an image.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut parts: Vec<PathBuf> = list.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    parts.retain(|part| !["tests", "benches", "examples", "target"].iter().any(|name| part.ends_with(name)));
    parts.sort();
    Ok(parts)
}

/// The libraries named by `ldd`, by their path on the host. The kernel's own, which has no file, is left out.
fn libraries(ldd: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let named = line.split_once("=>").map_or(line, |(_, path)| path);
        named.split_whitespace().next().filter(|word| word.starts_with('/')).map(PathBuf::from)
    };
    ldd.lines().filter_map(path).collect()
}

/// The host's C library goes into the image, so its version is part of what the image is built from.
fn libc_version() -> String {
    let said = run::text(&mut run::command("ldd", ["--version"])).unwrap_or_default();
    said.lines().next().unwrap_or_default().to_owned()
}

/// Mozilla's certificate authorities in one file; where the machine is no Debian, those it trusts.
fn authorities() -> Result<String> {
    let folder = Path::new(AUTHORITIES);
    if !folder.is_dir() {
        let bundles = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
        let bundle = bundles.into_iter().find(|file| Path::new(file).is_file());
        let bundle = bundle.context("find CA certificates on this machine: install the package ca-certificates")?;
        return fs::read_to_string(bundle).with_context(|| format!("read {bundle}"));
    }
    let list = fs::read_dir(folder).with_context(|| format!("list {AUTHORITIES}"))?;
    let mut files: Vec<PathBuf> = list.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).with_context(|| format!("read {}", file.display()))).collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    make_parent(file)?;
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

fn make_parent(file: &Path) -> Result<()> {
    let folder = file.parent().context("a file without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_files_that_ldd_names() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f1)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f3)\n";
        let want =
            ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(said), want.map(PathBuf::from));
    }

    #[test]
    fn a_test_is_no_source_of_a_binary() {
        let parts = sources(&store::clone_root().join("nexus")).expect("the crate is there");
        assert!(parts.iter().any(|part| part.ends_with("src")));
        assert!(!parts.iter().any(|part| part.ends_with("tests")));
    }
}
