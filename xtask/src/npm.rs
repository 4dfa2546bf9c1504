//! Installs what a `package-lock.json` of this repository names, from the npm registry into the store.

use crate::output::Step;
use crate::{packages, run, store};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;

/// What says which packages there are, and the checksum of each.
const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// The folder with the packages of the clone's folder `source`, installed under this name of the store if they are not
/// there.
pub fn installed(source: &str, name: &str, step: &str) -> Result<PathBuf> {
    // The makers of Node ship npm with it; Debian's packages are two.
    if !run::exists("node") || !run::exists("npm") {
        packages::ensure(&["nodejs", "npm"])?;
    }
    let source = store::clone_root().join(source);
    let key = MANIFESTS.iter().try_fold(store::Key::new(), |key, name| key.path(&source.join(name)))?.finish();
    store::built(name, &key, |folder| {
        let step = Step::start(step);
        for name in MANIFESTS {
            fs::copy(source.join(name), folder.join(name)).with_context(|| format!("copy {name}"))?;
        }
        let words = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional"];
        run::quiet(&mut run::command_in(folder, "npm", words))
            .context("install from npm: look at the network, and at npm's registry (`npm ping`)")?;
        step.done("");
        Ok(())
    })
}
