//! `cargo xtask bench recovery`: clients that do not read, tokens that are revoked, and clients whose Nexus is killed, on
//! two local Nexus.

use super::load::Percentiles;
use super::table::Machine;
use super::{Ground, TOKEN_SECONDS, free_address, local, memory};
use crate::{output, run, store};
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// Arguments of `cargo xtask bench recovery`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to write the table, as a file of the clone.
    #[arg(long, default_value = "docs/RECOVERY.md")]
    table: PathBuf,
    /// Clients whose Nexus is killed.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// For how long clients do not read, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// Tokens that are revoked one after the other.
const REVOKED_TOKENS: u32 = 20;

/// What the load generator measured.
#[derive(Deserialize)]
struct Figures {
    stalled: Stalled,
    revoked: Revoked,
    killed: Killed,
}

#[derive(Deserialize)]
struct Stalled {
    clients: u32,
    events_per_second: f64,
    seconds: f64,
    resident_bytes_before: u64,
    resident_bytes: Vec<u64>,
    read_seconds: f64,
    deliveries: u64,
    lost: u64,
    twice: u64,
}

#[derive(Deserialize)]
struct Revoked {
    tokens: u32,
    connections: u32,
    closed: Percentiles,
    closed_elsewhere: Percentiles,
}

#[derive(Deserialize)]
struct Killed {
    clients: u32,
    events_behind: u32,
    p50_seconds: f64,
    p99_seconds: f64,
    all_seconds: f64,
    lost: u64,
    twice: u64,
    retries: u64,
}

/// Measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let Ground { program, generator, services, listen, token, key, folder: _folder } = Ground::prepare()?;
    let process = memory::process_of(&program, &[]).context("find the process of Nexus")?;
    let other = free_address()?;
    let local = local(&program, other, &services, &key);
    local.start(&services)?;
    let admin = local.token("administrator", "admin", TOKEN_SECONDS)?;
    let to_revoke = |number| local.token(&format!("revoked-{number}"), "events:read", TOKEN_SECONDS);
    let revoked = (0..REVOKED_TOKENS).map(to_revoke).collect::<Result<Vec<_>>>()?;

    let step = output::Step::start("clients that were away");
    let mut command = run::command(&generator, ["--url", &format!("http://{listen}"), "recovery"]);
    command.args(["--process", &process.to_string(), "--other-url", &format!("http://{other}")]);
    command.args(["--killed-clients", &args.clients.to_string(), "--stalled-seconds", &args.seconds.to_string()]);
    command.env("NEXUS_BENCH_TOKEN", &token).env("NEXUS_BENCH_ADMIN_TOKEN", &admin);
    let said =
        run::text(command.env("NEXUS_BENCH_REVOKED_TOKENS", revoked.join(","))).context("run the load generator")?;
    step.done("");
    let figures: Figures = serde_json::from_str(&said).context("read the load generator's figures")?;
    let file = store::clone_root().join(&args.table);
    let page = page(&Machine::here()?, &figures);
    fs::write(&file, page).with_context(|| format!("write {}", file.display()))?;
    output::result(&said);
    Ok(())
}

/// The page, in Markdown.
fn page(machine: &Machine, Figures { stalled, revoked, killed }: &Figures) -> String {
    let mut page = format!(
        "# Clients that were away\n\n\
         Written by `cargo xtask bench recovery`; measure them again with the same command. One run on {}. Two Nexus, \
         their stores and the load generator share the machine. Each client counts what it gets: the events of its \
         subject are numbered.\n\n\
         | what | goal | measured |\n|---|---|---|\n",
        machine.words(),
    );
    let mut row = |what: &str, goal: &str, measured: &str| {
        writeln!(page, "| {what} | {goal} | {measured} |").expect("a string takes any text");
    };
    let Stalled { clients, events_per_second, seconds, read_seconds, deliveries, .. } = stalled;
    let what = format!("{clients} clients that never read, {events_per_second:.0} events a second for {seconds:.0} s");
    let sizes: Vec<String> = stalled.resident_bytes.iter().map(|bytes| output::size(*bytes)).collect();
    let before = output::size(stalled.resident_bytes_before);
    row(
        &format!("{what}: memory of Nexus"),
        "flat once bounds are reached",
        &format!("{before}, then {}", sizes.join(", ")),
    );
    let told = format!("{deliveries} events in {read_seconds:.0} s, {} lost, {} twice", stalled.lost, stalled.twice);
    row("They then read", "none lost, none twice", &told);
    let Revoked { tokens, connections, closed, closed_elsewhere } = revoked;
    let each = connections / tokens;
    let what =
        format!("{tokens} tokens are revoked, one after the other, each with {each} connections, half of them at");
    let told = |closed: &Percentiles| format!("half after {:.0} ms, all after {:.0} ms", closed.p50_ms, closed.max_ms);
    row(&format!("{what} the Nexus that is asked: closed there"), "all within 1 s", &told(closed));
    row("Closed at the other Nexus", "all within 1 s", &told(closed_elsewhere));
    let Killed { clients, events_behind, p50_seconds, p99_seconds, all_seconds, lost, twice, retries } = killed;
    let what =
        format!("{clients} clients of a Nexus that is killed come to the other at once, {events_behind} events behind");
    let told = format!(
        "half after {p50_seconds:.1} s, 99 of 100 after {p99_seconds:.1} s, all after {all_seconds:.1} s; \
         {lost} lost, {twice} twice, {retries} connections tried again"
    );
    row(&what, "all caught up within 10 s, none lost, none twice", &told);
    page
}
