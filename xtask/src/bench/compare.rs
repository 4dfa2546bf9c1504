//! `cargo xtask bench compare`: Nexus beside the servers of others, and beside a bare loop of sends, one after the other
//! under the same load in the same run.

use super::realtime::{Flow, Idle, OneToAll};
use super::table::Machine;
use super::{Ground, free_address, load, memory};
use crate::cargo::BuildFolder;
use crate::services::Services;
use crate::{npm, output, run, store, tools};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Arguments of `cargo xtask bench compare`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each run lasts.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Connections that are open at a time.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Where to write the table, as a file of the clone.
    #[arg(long, default_value = "docs/COMPARED.md")]
    table: PathBuf,
}

/// What the load generator measured of one server.
#[derive(Serialize, Deserialize)]
struct Figures {
    idle: Idle,
    fan_out: Vec<Flow>,
    one_to_all: OneToAll,
    own_topics: Flow,
}

/// A server beside Nexus.
struct Other {
    name: &'static str,
    /// What its clients speak, as the load generator calls it.
    protocol: &'static str,
    command: Command,
    /// The argument that tells it where to listen, of no other process.
    listen: fn(SocketAddr) -> String,
}

/// Measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let Ground { program, generator, services, listen, token, key, folder } = Ground::prepare()?;
    let others = others(&generator, &folder, &key)?;
    let process = memory::process_of(&program, &[]).context("find the process of Nexus")?;
    let load = Load { generator: &generator, token: &token, args };
    let mut all = vec![("Nexus", load.measure("Nexus", "web-socket", listen, process)?)];
    for other in others {
        let name = other.name;
        let protocol = other.protocol;
        let (listen, process) = started(&services, other)?;
        all.push((name, load.measure(name, protocol, listen, process)?));
    }
    let file = store::clone_root().join(&args.table);
    fs::write(&file, page(&Machine::here()?, args, &all)).with_context(|| format!("write {}", file.display()))?;
    let all: serde_json::Map<_, _> = all
        .into_iter()
        .map(|(name, figures)| Ok((name.to_owned(), serde_json::to_value(figures)?)))
        .collect::<Result<_>>()?;
    output::result(&serde_json::to_string_pretty(&all).context("write the figures as JSON")?);
    Ok(())
}

/// Builds and installs them, as their documentation sets them up. Centrifugo checks tokens by this key; the others ask
/// nobody who they are.
fn others(generator: &Path, folder: &BuildFolder, key: &str) -> Result<[Other; 4]> {
    let root = store::clone_root().join("bench/compare");
    let step = output::Step::start("build socketioxide's server");
    let manifest = root.join("socketioxide/Cargo.toml");
    let mut build = folder.command(["build", "--release", "--locked", "--manifest-path"]);
    run::quiet(build.arg(&manifest)).context("build socketioxide's server")?;
    step.done("");
    let packages = npm::installed("bench/compare/socket-io", "npm-socket-io", "install Socket.IO from npm")?;
    fs::copy(root.join("socket-io/server.mjs"), packages.join("server.mjs")).context("copy Socket.IO's server")?;
    let mut socket_io = Command::new("node");
    socket_io.arg(packages.join("server.mjs"));
    let mut centrifugo = Command::new(tools::centrifugo()?);
    centrifugo.args(["--http_server.address=127.0.0.1", "--http_api.insecure", "--log.level=error"]);
    centrifugo.env("CENTRIFUGO_CLIENT_TOKEN_HMAC_SECRET_KEY", key);
    centrifugo.env("CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_SUBSCRIBE_FOR_CLIENT", "true");
    centrifugo.env("CENTRIFUGO_USAGE_STATS_DISABLED", "true");
    let address = |listen: SocketAddr| listen.to_string();
    let program = |name: &str| Command::new(store::target().join("release").join(name));
    Ok([
        Other {
            name: "Centrifugo 6.9.1",
            protocol: "centrifugo",
            command: centrifugo,
            listen: |listen| format!("--http_server.port={}", listen.port()),
        },
        Other { name: "Socket.IO 4.8.4", protocol: "socket-io", command: socket_io, listen: address },
        Other {
            name: "socketioxide 0.18.9",
            protocol: "socket-io",
            command: program("azora-compare-socketioxide"),
            listen: address,
        },
        Other {
            name: "bare loop of sends",
            protocol: "web-socket",
            command: Command::new(load::bare(generator)),
            listen: address,
        },
    ])
}

/// Starts a server; where it listens, and which process it is.
fn started(services: &Services, mut other: Other) -> Result<(SocketAddr, u32)> {
    let Other { name, .. } = other;
    let listen = free_address()?;
    let argument = (other.listen)(listen);
    services.add(other.command.arg(&argument)).with_context(|| format!("start {name}"))?;
    services.until(name, || TcpStream::connect(listen).is_ok())?;
    let process = memory::process_with(&argument).with_context(|| format!("find the process of {name}"))?;
    Ok((listen, process))
}

/// What each server is measured with.
struct Load<'a> {
    generator: &'a Path,
    token: &'a str,
    args: &'a Args,
}

impl Load<'_> {
    fn measure(&self, name: &str, protocol: &str, listen: SocketAddr, process: u32) -> Result<Figures> {
        let step = output::Step::start(format!("measure {name}"));
        let mut command = run::command(self.generator, ["--url", &format!("http://{listen}"), "realtime"]);
        command.args(["--process", &process.to_string(), "--protocol", protocol]);
        command.args(["--seconds", &self.args.seconds.to_string(), "--clients", &self.args.clients.to_string()]);
        let said = run::text(command.env("NEXUS_BENCH_TOKEN", self.token)).context("run the load generator")?;
        step.done("");
        serde_json::from_str(&said).context("read the load generator's figures")
    }
}

/// The page, in Markdown: a column for each server.
fn page(machine: &Machine, args: &Args, all: &[(&str, Figures)]) -> String {
    let mut page = format!(
        "# Beside others\n\n\
         Written by `cargo xtask bench compare`; measure them again with the same command. One run on {}, each part {} s, \
         one server after the other under the same load. Generator and server share the cores, so the server's CPU \
         seconds say more than the clock. Nexus checks a token of each client and answers a publish when the event is \
         durable in Postgres; its stores take their part of the same cores and are not counted. Centrifugo checks a \
         token too; Socket.IO and socketioxide ask nobody who they are. None of them keeps anything. The bare loop sends the same bytes to one client after the other and does nothing \
         else: what it takes, the kernel takes.\n\n| what |",
        machine.words(),
        args.seconds,
    );
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    writeln!(page, " {} |\n|---|{}", names.join(" | "), "---|".repeat(all.len())).expect("a string takes any text");
    let Some((_, first)) = all.first() else { return page };
    let mut row = |what: &str, measured: &dyn Fn(&Figures) -> String| {
        let cells: Vec<String> = all.iter().map(|(_, figures)| measured(figures)).collect();
        writeln!(page, "| {what} | {} |", cells.join(" | ")).expect("a string takes any text");
    };
    let clients = first.idle.clients;
    row(&format!("{clients} idle clients, three subscriptions: memory of each"), &|figures| {
        format!("{:.1} KB", figures.idle.resident_bytes_per_client / 1_000.0)
    });
    row("Opened a second", &|figures| format!("{:.0}", figures.idle.opened_per_second));
    for (number, flow) in first.fan_out.iter().enumerate() {
        let what = format!("{} subscribers of one topic, {} events a second", flow.clients, flow.events_per_second);
        row(&what, &|figures| figures.fan_out.get(number).map_or_else(String::new, measured));
    }
    let OneToAll { clients, events, .. } = first.one_to_all;
    row(&format!("One event to {clients} clients: the last has it (median of {events})"), &|figures| {
        format!("{:.0} ms", figures.one_to_all.median_ms)
    });
    let what = format!("{clients} clients on topics of their own, {} a second", first.own_topics.events_per_second);
    row(&what, &|figures| measured(&figures.own_topics));
    page.push_str("\nA latency runs from the moment an event was due to be published until a client holds it.\n");
    page
}

fn measured(flow: &Flow) -> String {
    let Flow { deliveries_per_second, missing, p50_ms, p99_ms, server_cpu_seconds_per_million: cpu, .. } = flow;
    let missing = if *missing > 0 { format!(", {missing} missing") } else { String::new() };
    format!("{deliveries_per_second:.0}/s{missing}, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, {cpu:.1} s CPU per million")
}
