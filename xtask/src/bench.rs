//! `cargo xtask bench`: measures the figures on this machine, prints them as JSON and writes the table in
//! `docs/`. It asserts nothing: a figure is for reading, and a busy machine is no failure.

mod cluster;
mod compare;
mod load;
mod memory;
mod realtime;
mod recovery;
mod table;

use crate::cargo::BuildFolder;
use crate::nexus::Local;
use crate::services::{Ports, Services};
use crate::{cargo, images, output, secret, store};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the token of the load is valid: longer than any run.
const TOKEN_SECONDS: u32 = 3_600;

/// More events than any run publishes: whoever comes back is to find all that it missed.
const KEPT_EVENTS: u32 = 10_000_000;

/// Nexus is at rest when this long nobody has asked it anything.
const REST: Duration = Duration::from_secs(10);

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    only: Option<Only>,
    /// How long each measurement under load runs.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Leave out what is measured on the cluster, which is brought up for it where none is.
    #[arg(long)]
    local: bool,
    /// Where to write the table, as a file of the clone.
    #[arg(long, default_value = "docs/FIGURES.md")]
    table: PathBuf,
}

/// What is measured instead.
#[derive(clap::Subcommand)]
enum Only {
    /// Many connections: memory, fan-out, events on topics of their own.
    Realtime(realtime::Args),
    /// Clients that do not read, tokens that are revoked, and ten thousand clients whose Nexus is killed.
    Recovery(recovery::Args),
    /// Nexus beside Centrifugo, Socket.IO, socketioxide and a bare loop of sends.
    Compare(compare::Args),
}

/// All figures of a run.
#[derive(Serialize)]
struct Figures {
    machine: table::Machine,
    /// Whether the nodes of a cluster shared the cores with the load.
    load_beside_cluster: bool,
    /// As the load generator printed it.
    load: load::Figures,
    nexus_local: memory::Nexus,
    /// None when they were left out.
    cluster: Option<cluster::Figures>,
}

/// Measures, prints and writes the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.only {
        Some(Only::Realtime(args)) => realtime::run(args),
        Some(Only::Recovery(args)) => recovery::run(args),
        Some(Only::Compare(args)) => compare::run(args),
        None => everything(args),
    }
}

/// A release Nexus on databases of its own, and the load generator for it.
struct Ground {
    program: PathBuf,
    generator: PathBuf,
    services: Services,
    listen: SocketAddr,
    token: String,
    /// What signs tokens.
    key: String,
    /// Held, so that no other clone builds in the place of what is measured.
    folder: BuildFolder,
}

impl Ground {
    fn prepare() -> Result<Self> {
        let program = images::nexus()?;
        let folder = cargo::build_folder()?;
        let generator = load::build(&folder)?;
        let services = Services::start(Ports::Free)?;
        let listen = free_address()?;
        let key = secret::word()?;
        let local = local(&program, listen, &services, &key);
        local.start(&services)?;
        let token = local.token("bench", "events:read events:write", TOKEN_SECONDS)?;
        Ok(Self { program, generator, services, listen, token, key, folder })
    }
}

fn everything(args: &Args) -> Result<()> {
    let Ground { program, generator, services, listen, token, folder, .. } = Ground::prepare()?;

    let step = output::Step::start("Nexus at rest");
    std::thread::sleep(REST);
    let at_rest_bytes = memory::of_program(&program).context("read the memory of Nexus")?;
    step.done(&output::size(at_rest_bytes));
    let load_beside_cluster = crate::cluster::existing()?.is_some();
    let step = output::Step::start("publish, receive and insert");
    let load = load::run(&generator, &load::Target { listen, token: &token, urls: services.urls() }, args.seconds)?;
    step.done("");
    let after_load_bytes = memory::of_program(&program).context("read the memory of Nexus")?;
    drop((services, folder));

    let cluster = (!args.local).then(cluster::measure).transpose()?;
    let nexus_local = memory::Nexus { at_rest_bytes, after_load_bytes };
    let figures = Figures { machine: table::Machine::here()?, load_beside_cluster, load, nexus_local, cluster };
    let file = store::clone_root().join(&args.table);
    fs::write(&file, table::markdown(&figures)).with_context(|| format!("write {}", file.display()))?;
    output::result(&serde_json::to_string_pretty(&figures).context("write the figures as JSON")?);
    Ok(())
}

/// A Nexus at this address that keeps whatever a run publishes.
fn local<'a>(program: &'a Path, listen: SocketAddr, services: &'a Services, key: &'a str) -> Local<'a> {
    Local { program, listen, log: "warn", urls: services.urls(), key, kept_events: KEPT_EVENTS }
}

/// An address that nobody listens on.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    listener.local_addr().context("read the free port")
}
