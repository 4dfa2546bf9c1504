//! Every chore of the Azora data layer behind one command: `cargo xtask --help`.
//! Parses arguments, calls, maps the result to an exit code. No chore's logic lives here.
// A program has no public items; in its modules `pub` marks what other modules may use.
#![allow(unreachable_pub)]

mod ahead;
mod output;
mod run;
mod secret;
mod store;

mod cargo;
mod demo;
mod engine;
mod npm;
mod packages;
mod ports;
mod tools;

mod chart;
mod cluster;
mod node_image;

mod bench;
mod check;
mod down;
mod generate;
mod images;
mod nexus;
mod services;
mod status;
mod test;
mod up;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Every chore of the Azora data layer behind one command.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Bring up a cluster, the operator and a running data layer; safe to repeat and to interrupt.
    Up(up::Args),
    /// Remove what `up` made.
    Down(down::Args),
    /// Say what is there: engine, cluster, images, operator, data layers.
    Status(status::Args),
    /// Run every check and test; sets up what it needs.
    Test(test::Args),
    /// Let pods, stores, networks and clocks of this machine fail at random, and check what every client was given.
    Chaos(test::chaos::Args),
    /// Formatting, clippy, docs and generated files; needs no service.
    Check(check::Args),
    /// Write the generated files: CRD, chart copy, OpenAPI, schemas.
    Gen(generate::Args),
    /// Measure the figures; prints JSON and writes the table in `docs/`.
    Bench(bench::Args),
    /// Build the container images.
    Images(images::Args),
    /// Run Postgres, Redis and mongod as local processes until interrupted, or around a command.
    Services(services::Args),
    /// Run Nexus on local services at 127.0.0.1:4001.
    Nexus(nexus::Args),
}

fn main() -> ExitCode {
    if let Some(compiled) = cargo::lint::as_compiler() {
        return compiled;
    }
    let chore = Cli::parse().chore;
    let outcome = run::pass_on_sigterm().and_then(|()| execute(chore));
    run::end_all();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failure(&error),
    }
}

fn execute(chore: Chore) -> Result<()> {
    match chore {
        Chore::Up(args) => up::run(&args),
        Chore::Down(args) => down::run(&args),
        Chore::Status(args) => status::run(&args),
        Chore::Test(args) => test::run(&args),
        Chore::Chaos(args) => test::chaos::run(&args),
        Chore::Check(args) => check::run(&args),
        Chore::Gen(args) => generate::run(&args),
        Chore::Bench(args) => bench::run(&args),
        Chore::Images(args) => images::run(&args),
        Chore::Services(args) => services::run(&args),
        Chore::Nexus(args) => nexus::run(&args),
    }
}
