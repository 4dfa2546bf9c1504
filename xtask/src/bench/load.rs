//! Builds and runs the load generator (the package `azora-bench`), and knows what it prints.

use crate::cargo::BuildFolder;
use crate::services::Urls;
use crate::{run, store};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The package and its program.
const PROGRAM: &str = "azora-bench";

/// Its least of servers.
const BARE: &str = "azora-bench-bare";

/// What the load is sent to.
pub(super) struct Target<'a> {
    pub(super) listen: SocketAddr,
    pub(super) token: &'a str,
    pub(super) urls: &'a Urls,
}

/// What the generator measured.
#[derive(Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) latency: Latency,
    pub(super) insert_single: Insert,
    pub(super) publish_single: Publish,
    pub(super) insert_batch: Insert,
    pub(super) insert_batch_as_log: Insert,
    pub(super) publish_batch: Publish,
}

/// From due to be published until held by a client.
#[derive(Serialize, Deserialize)]
pub(super) struct Latency {
    pub(super) clients: u32,
    pub(super) events_per_second: u32,
    pub(super) seconds: u32,
    pub(super) deliveries: u64,
    pub(super) missing: u64,
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

/// Bare inserts into a table of the same Postgres.
#[derive(Serialize, Deserialize)]
pub(super) struct Insert {
    pub(super) connections: u32,
    pub(super) rows_per_transaction: u32,
    pub(super) rows_per_second: f64,
}

/// Publishes that were acknowledged.
#[derive(Serialize, Deserialize)]
pub(super) struct Publish {
    pub(super) publishers: u32,
    pub(super) events_per_request: u32,
    pub(super) events_per_second: f64,
    pub(super) request: Percentiles,
}

/// A distribution of durations.
#[derive(Serialize, Deserialize)]
#[allow(clippy::struct_field_names)] // The unit belongs into each name, in JSON above all.
pub(super) struct Percentiles {
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

/// The generator, in the release profile. The others are named too, so that cargo compiles what they share
/// with the same features as for the images, and not once more.
pub(super) fn build(folder: &BuildFolder) -> Result<PathBuf> {
    let mut build =
        folder.command(["build", "--release", "--locked", "--bin", PROGRAM, "--bin", BARE, "--package", PROGRAM]);
    build.args(["--package", "azora-nexus", "--package", "azora-operator"]);
    run::shown(&mut build).context("build the load generator")?;
    Ok(store::target().join("release").join(PROGRAM))
}

/// The bare server, which is built with the generator.
pub(super) fn bare(generator: &Path) -> PathBuf {
    generator.with_file_name(BARE)
}

/// Runs it for about seven times `seconds`.
pub(super) fn run(generator: &Path, target: &Target, seconds: u32) -> Result<Figures> {
    let mut command = run::command(generator, ["--url", &format!("http://{}", target.listen)]);
    command.args(["publish", "--seconds", &seconds.to_string()]);
    command.env("NEXUS_BENCH_TOKEN", target.token).env("NEXUS_DATABASE_URL", &target.urls.postgres);
    let said = run::text(&mut command).context("run the load generator")?;
    serde_json::from_str(&said).context("read the load generator's figures")
}
