//! The clients from the npm registry, the browser and `curl`, which the service tests run against Nexus.

use crate::{npm, packages, run};
use anyhow::Result;
use std::path::PathBuf;

/// The folder with the clients, installed if they are not there.
pub fn installed() -> Result<PathBuf> {
    if !run::exists("chromium-headless-shell") {
        packages::ensure(&["chromium-headless-shell"])?;
    }
    if !run::exists("curl") {
        packages::ensure(&["curl"])?;
    }
    npm::installed("nexus/tests/clients", "npm-clients", "install the clients from npm")
}
