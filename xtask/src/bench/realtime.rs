//! `cargo xtask bench realtime`: many connections on a local Nexus.

use super::load::Percentiles;
use super::table::Machine;
use super::{Ground, free_address, local, memory};
use crate::{output, run, store};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// Arguments of `cargo xtask bench realtime`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each run lasts.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Connections that are open at a time.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Where to write the table, as a file of the clone.
    #[arg(long, default_value = "docs/REALTIME.md")]
    table: PathBuf,
}

/// What the load generator measured.
#[derive(Deserialize)]
struct Figures {
    idle: Idle,
    fan_out: Vec<Flow>,
    one_to_all: OneToAll,
    own_topics: OwnTopics,
    socket_io: Idle,
}

/// Connections that get nothing.
#[derive(Serialize, Deserialize)]
pub(super) struct Idle {
    pub(super) clients: u32,
    pub(super) opened_per_second: f64,
    pub(super) resident_bytes_per_client: f64,
}

/// A rate of events, and how they arrived.
#[derive(Serialize, Deserialize)]
pub(super) struct Flow {
    pub(super) clients: u32,
    pub(super) events_per_second: u32,
    pub(super) deliveries_per_second: f64,
    pub(super) missing: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) server_cpu_seconds_per_million: f64,
}

#[derive(Deserialize)]
struct OwnTopics {
    #[serde(flatten)]
    flow: Flow,
    from_commit: Percentiles,
}

/// One event for every client.
#[derive(Serialize, Deserialize)]
pub(super) struct OneToAll {
    pub(super) clients: u32,
    pub(super) events: u32,
    pub(super) median_ms: f64,
}

/// Measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let Ground { program, generator, services, listen, token, key, folder: _folder } = Ground::prepare()?;
    let process = memory::process_of(&program, &[]).context("find the process of Nexus")?;

    let step = output::Step::start("many connections");
    let mut command = run::command(&generator, ["--url", &format!("http://{listen}"), "realtime"]);
    command.args(["--process", &process.to_string(), "--seconds", &args.seconds.to_string()]);
    command.args(["--clients", &args.clients.to_string()]).env("NEXUS_BENCH_TOKEN", &token);
    command.env("NEXUS_DATABASE_URL", &services.urls().postgres);
    let said = run::text(&mut command).context("run the load generator")?;
    step.done("");
    let mut all: Value = serde_json::from_str(&said).context("read the load generator's figures")?;

    let step = output::Step::start("many connections of Socket.IO, on a Nexus of their own");
    let other = free_address()?;
    local(&program, other, &services, &key).start(&services)?;
    let process = memory::process_of(&program, &[process]).context("find the process of the other Nexus")?;
    let mut command = run::command(&generator, ["--url", &format!("http://{other}"), "socket-io"]);
    command.args(["--process", &process.to_string(), "--clients", &args.clients.to_string()]);
    let socket_io = run::text(command.env("NEXUS_BENCH_TOKEN", &token)).context("run the load generator")?;
    step.done("");
    all["socket_io"] = serde_json::from_str(&socket_io).context("read the load generator's figures")?;
    let figures = Figures::deserialize(&all).context("read the load generator's figures")?;
    let file = store::clone_root().join(&args.table);
    let page = page(&Machine::here()?, args, &figures);
    fs::write(&file, page).with_context(|| format!("write {}", file.display()))?;
    output::result(&serde_json::to_string_pretty(&all).context("write the figures as JSON")?);
    Ok(())
}

/// The page, in Markdown. The goals are what the best of other servers showed on such a machine, and beyond.
fn page(machine: &Machine, args: &Args, figures: &Figures) -> String {
    let Figures { idle, fan_out, one_to_all, own_topics, socket_io } = figures;
    let mut page = format!(
        "# Many connections\n\n\
         Written by `cargo xtask bench realtime`; measure them again with the same command. One run on {}, each part \
         {} s. Generator and server share the cores, so the server's CPU seconds say more than the clock. Every event \
         is durable and travels from its HTTP publish to the clients' WebSockets.\n\n\
         | what | goal | measured |\n|---|---|---|\n",
        machine.words(),
        args.seconds,
    );
    let mut row = |what: &str, goal: &str, measured: &str| {
        writeln!(page, "| {what} | {goal} | {measured} |").expect("a string takes any text");
    };
    let idle_clients = format!("{} idle clients, authenticated, three subscriptions: memory of each", idle.clients);
    row(&idle_clients, "≤ 5 KB", &format!("{:.1} KB", idle.resident_bytes_per_client / 1_000.0));
    row("Opened a second, with a checked token", "≥ 3,000", &format!("{:.0}", idle.opened_per_second));
    let of_socket_io = format!("{} idle clients of Socket.IO, the same: memory of each", socket_io.clients);
    row(&of_socket_io, "≤ 7 KB", &format!("{:.1} KB", socket_io.resident_bytes_per_client / 1_000.0));
    row("Of these opened a second, one command after the other", "", &format!("{:.0}", socket_io.opened_per_second));
    for flow in fan_out {
        let what = format!("{} subscribers of one topic, {} events a second", flow.clients, flow.events_per_second);
        let goal = match flow.events_per_second {
            40 => "≤ 8 s of CPU per million",
            190 => "≤ 3 s of CPU per million",
            460 => "≥ 450,000 a second at p99 < 100 ms",
            _ => "",
        };
        row(&what, goal, &measured(flow));
    }
    let to_all =
        format!("One event to {} clients: the last has it (median of {})", one_to_all.clients, one_to_all.events);
    row(&to_all, "≤ 100 ms", &format!("{:.0} ms", one_to_all.median_ms));
    let OwnTopics { flow, from_commit } = own_topics;
    let own = format!("{} clients on topics of their own, {} a second", flow.clients, flow.events_per_second);
    row(&own, "", &measured(flow));
    let measured = format!("p50 {:.1} ms, p99 {:.1} ms", from_commit.p50_ms, from_commit.p99_ms);
    row("The same, from the commit", "p50 ≤ 4 ms, p99 ≤ 15 ms", &measured);
    page.push_str(
        "\nA latency runs from the moment an event was due to be published until a client holds it. That from the commit \
         begins earlier than it says: when the transaction began that logged the event, by the clock of Postgres.\n",
    );
    page
}

fn measured(flow: &Flow) -> String {
    let Flow { deliveries_per_second, missing, p50_ms, p99_ms, server_cpu_seconds_per_million, .. } = flow;
    format!(
        "{deliveries_per_second:.0} a second, {missing} missing, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, \
         {server_cpu_seconds_per_million:.1} s of CPU per million"
    )
}
