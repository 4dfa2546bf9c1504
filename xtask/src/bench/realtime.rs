//! `cargo xtask bench realtime`: many connections on a local Nexus.

use super::{free_address, load, memory};
use crate::services::{Ports, Services};
use crate::{cargo, images, nexus, output, run, secret};
use anyhow::{Context as _, Result};

/// Arguments of `cargo xtask bench realtime`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each run lasts.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Connections that are open at a time.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
}

/// Measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let program = images::nexus()?;
    let folder = cargo::build_folder()?;
    let generator = load::build(&folder)?;
    let services = Services::start(Ports::Free)?;
    let listen = free_address()?;
    let key = secret::word()?;
    let local = nexus::Local { program: &program, listen, log: "warn", urls: services.urls(), key: &key };
    local.start(&services)?;
    let token = local.token("bench", "events:read events:write", super::TOKEN_SECONDS)?;
    let process = memory::process_of(&program).context("find the process of Nexus")?;

    let step = output::Step::start("many connections");
    let mut command = run::command(&generator, ["--url", &format!("http://{listen}"), "realtime"]);
    command.args(["--process", &process.to_string(), "--seconds", &args.seconds.to_string()]);
    command.args(["--clients", &args.clients.to_string()]).env("NEXUS_BENCH_TOKEN", &token);
    let said = run::text(&mut command).context("run the load generator")?;
    step.done("");
    output::result(&said);
    Ok(())
}
