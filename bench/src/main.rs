//! The load generator behind `cargo xtask bench`: publishes to a running Nexus, listens on many sockets, and
//! prints what it measured as JSON. Speaks only the public protocol and shares no code with the service, so
//! it measures what a client sees.
#![allow(clippy::print_stdout)] // The figures go to standard output.

mod durable;
mod http;
mod insert;
mod latency;
mod percentiles;
mod realtime;
mod recovery;
mod socket;
mod target;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use serde::Serialize;
use target::Target;

#[derive(Parser)]
struct Arguments {
    /// Where Nexus answers, such as `http://127.0.0.1:4001`.
    #[arg(long)]
    url: String,
    /// A token with `events:read` and `events:write`.
    #[arg(long, env = "NEXUS_BENCH_TOKEN", hide_env_values = true)]
    token: String,
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// Publishing beside bare inserts, and the latency of some sockets.
    Publish(PublishArguments),
    /// Many connections.
    Realtime(realtime::Arguments),
    /// Idle clients of Socket.IO.
    SocketIo(realtime::SocketIoArguments),
    /// Clients that do not read, and clients whose pod is killed.
    Recovery(recovery::Arguments),
}

#[derive(clap::Args)]
struct PublishArguments {
    /// The Postgres under that Nexus, to compare with its bare inserts.
    #[arg(long, env = "NEXUS_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// How long each measurement runs.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
    /// Sockets that listen while latency is measured.
    #[arg(long, default_value_t = 100)]
    clients: u32,
    /// Events a second while latency is measured.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Publishers at a time while throughput is measured.
    #[arg(long, default_value_t = 32)]
    publishers: u32,
}

/// All that one run measured.
#[derive(Serialize)]
struct Figures {
    latency: latency::Latency,
    insert_single: insert::Rate,
    publish_single: durable::Rate,
    insert_batch: insert::Rate,
    insert_batch_as_log: insert::Rate,
    publish_batch: durable::Rate,
}

/// Events in a batch.
const BATCH_EVENTS: u32 = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let target = Target::new(&arguments.url, arguments.token)?;
    let figures = match &arguments.measurement {
        Measurement::Publish(arguments) => serde_json::to_string_pretty(&publish(&target, arguments).await?),
        Measurement::Realtime(arguments) => serde_json::to_string_pretty(&realtime::measure(&target, arguments).await?),
        Measurement::SocketIo(arguments) => {
            serde_json::to_string_pretty(&realtime::measure_socket_io(&target, arguments).await?)
        }
        Measurement::Recovery(arguments) => serde_json::to_string_pretty(&recovery::measure(&target, arguments).await?),
    };
    println!("{}", figures.context("write the figures as JSON")?);
    Ok(())
}

async fn publish(target: &Target, arguments: &PublishArguments) -> Result<Figures> {
    let load = latency::Load { clients: arguments.clients, rate: arguments.rate, seconds: arguments.seconds };
    let table = insert::Table::create(&arguments.database_url, arguments.publishers).await?;
    // Bare inserts right beside the publishes that they are compared with: a busy host slows both.
    let figures = Figures {
        latency: latency::measure(target, &load).await.context("measure the latency")?,
        insert_single: table.singles(arguments.publishers, arguments.seconds).await?,
        publish_single: durable::singles(target, arguments.publishers, arguments.seconds).await?,
        insert_batch: table.batches(arguments.publishers, BATCH_EVENTS, arguments.seconds).await?,
        insert_batch_as_log: table.batches_as_log(arguments.publishers, BATCH_EVENTS, arguments.seconds).await?,
        publish_batch: durable::batches(target, arguments.publishers, BATCH_EVENTS, arguments.seconds).await?,
    };
    table.drop().await?;
    Ok(figures)
}
