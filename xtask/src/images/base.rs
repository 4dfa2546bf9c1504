//! The base that the database images and the node image stand on, `debian:bookworm-slim`: pulled where a
//! registry answers, else made from Debian's packages under the same name, so the Dockerfiles need not know.

use super::builder::Builder;
use crate::output::Step;
use crate::{output, packages, run, store};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// The name that the Dockerfiles say after `FROM`.
pub(super) const NAME: &str = "debian:bookworm-slim";

/// What Debian's slim image leaves out, and ours with it. Copyright files stay, as licences ask.
const DPKG_OPTIONS: [&str; 6] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
];

/// Makes sure that the builder has the base.
pub(super) fn ensure(builder: &Builder) -> Result<()> {
    if builder.contents(NAME).is_some() {
        return Ok(());
    }
    let step = Step::start(format!("base image {NAME}"));
    if builder.pull(NAME) {
        step.done("pulled");
        return Ok(());
    }
    step.waiting("no registry answers: made from Debian's packages");
    let archive = archive()?;
    builder.import(&archive, NAME)?;
    let bytes = std::fs::metadata(&archive).context("read the size of the base")?.len();
    step.done(&format!("made from Debian's packages, {}", output::size(bytes)));
    Ok(())
}

/// The root file system of the base as a tar, made once.
fn archive() -> Result<PathBuf> {
    // The keyring is not there by itself on Debian's relatives.
    packages::ensure(&["mmdebstrap", "debian-archive-keyring"])?;
    let key = DPKG_OPTIONS.iter().fold(store::Key::new(), |key, option| key.word(option)).finish();
    let folder = store::built("base-image", &key, |folder| bootstrap(&folder.join("base.tar")))?;
    Ok(folder.join("base.tar"))
}

fn bootstrap(archive: &Path) -> Result<()> {
    // `usr-is-merged` with its hook spares `usrmerge`, which would bring in the whole of perl.
    let mut mmdebstrap = run::command("mmdebstrap", ["--quiet", "--variant=minbase", "--include=usr-is-merged"]);
    mmdebstrap.arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr");
    mmdebstrap.args(DPKG_OPTIONS.map(|option| format!("--dpkgopt={option}")));
    mmdebstrap.arg("--aptopt=APT::Install-Recommends \"false\"").arg("bookworm").arg(archive);
    run::quiet(&mut mmdebstrap).context("make the base image from Debian's packages")
}
