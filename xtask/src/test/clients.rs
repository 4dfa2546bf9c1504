//! The clients from the npm registry, the browser and `curl`, which the service tests run against Nexus.

use crate::output::Step;
use crate::{packages, run, store};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;

/// What says which clients there are, and the checksum of each.
const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// The folder with the clients, installed if they are not there.
pub fn installed() -> Result<PathBuf> {
    if !run::exists("chromium-headless-shell") {
        packages::ensure(&["chromium-headless-shell"])?;
    }
    if !run::exists("curl") {
        packages::ensure(&["curl"])?;
    }
    // The makers of Node ship npm with it; Debian's packages are two.
    if !run::exists("node") || !run::exists("npm") {
        packages::ensure(&["nodejs", "npm"])?;
    }
    let source = store::clone_root().join("nexus/tests/clients");
    let key = MANIFESTS.iter().try_fold(store::Key::new(), |key, name| key.path(&source.join(name)))?.finish();
    store::built("npm-clients", &key, |folder| {
        let step = Step::start("install the clients from npm");
        for name in MANIFESTS {
            fs::copy(source.join(name), folder.join(name)).with_context(|| format!("copy {name}"))?;
        }
        let words = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional"];
        run::quiet(&mut run::command_in(folder, "npm", words))
            .context("install the clients: look at the network, and at npm's registry (`npm ping`)")?;
        step.done("");
        Ok(())
    })
}
