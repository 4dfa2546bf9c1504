//! `cargo xtask chaos`: random faults of pods, stores, networks and clocks on this machine, and whether every client was given
//! the log exactly. `cargo xtask test` does the same for two minutes.

use super::libtest::{self, Aside, Options};
use super::summary::Counts;
use crate::cargo::binaries::{self, Binary, Needs};
use crate::services::{Ports, Services};
use crate::{cargo, output, packages};
use anyhow::{Context as _, Result};

/// What the names of its tests contain, and no other's.
pub(super) const TESTS: &str = "chaos::";

/// Arguments of `cargo xtask chaos`.
#[derive(clap::Args)]
pub struct Args {
    /// What chooses the events, the faults and their order; a run that failed has printed its own.
    #[arg(long)]
    seed: Option<u64>,
    /// For how long faults strike, in seconds.
    #[arg(long, default_value_t = 1_200, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Builds what it needs, and strikes.
pub fn run(args: &Args) -> Result<()> {
    let step = output::Step::start("build the tests");
    // Kept until the end: another clone would build others in their place.
    let folder = cargo::build_folder()?;
    let binaries = binaries::build(&folder)?.binaries;
    step.done("");
    install()?;
    let binaries: Vec<&Binary> = binaries.iter().filter(|binary| binary.needs == Needs::Services).collect();
    let mut settings = vec![("AZORA_CHAOS_SECONDS".to_owned(), args.seconds.to_string())];
    settings.extend(args.seed.map(|seed| ("AZORA_CHAOS_SEED".to_owned(), seed.to_string())));
    let services = Services::start(Ports::Free).context("start the databases")?;
    let counts = strike_with(&services, &binaries, Options { environment: settings, ..Options::default() })?;
    // What was wrong has been said.
    if counts.failed > 0 { Err(output::Said(1).into()) } else { Ok(()) }
}

/// Runs the tests that strike, beside others, for as long as they do by themselves.
pub(super) fn strike(services: &Services, binaries: &[&Binary], aside: &Aside) -> Result<Counts> {
    strike_with(services, binaries, Options { aside: Some(aside), ..Options::default() })
}

fn strike_with(services: &Services, binaries: &[&Binary], options: Options<'_>) -> Result<Counts> {
    let environment = [services.environment(), options.environment].concat();
    let options = Options { filter: Some(TESTS), environment, threads: Some(1), show_output: true, ..options };
    let mut counts = Counts::default();
    for binary in binaries {
        counts.add(libtest::run(binary, &options)?);
    }
    Ok(counts)
}

/// Installs what gives pods clocks of their own.
pub(super) fn install() -> Result<()> {
    packages::ensure(&["libfaketime"])
}
