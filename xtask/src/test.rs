//! `cargo xtask test`: every check and every test, with what they need set up first, and one
//! summary at the end. A suite that fails does not keep the others from running.

pub mod chaos;
mod clients;
mod end_to_end;
mod libtest;
mod summary;

use crate::cargo::{
    self,
    binaries::{self, Binary, Needs},
};
use crate::check::CHECKS;
use crate::output::{self, Step};
use crate::services::{Ports, Services};
use crate::{ahead::Ahead, images, tools};
use anyhow::{Context as _, Result};
use end_to_end::Prepared;
use libtest::{Aside, Options};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;
use summary::{Counts, Suite, Summary};

/// Tests of one binary that run side by side when they mostly wait for databases or the cluster.
const THREADS_WAITING: usize = 4;

/// End-to-end tests share the cluster by places of their own; all of them must be able to queue for one.
const THREADS_QUEUEING: usize = 16;

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the tests that need a cluster.
    #[arg(long)]
    skip_e2e: bool,
    /// Run the end-to-end tests on the cluster of this kubeconfig context, instead of on kind.
    #[arg(long)]
    context: Option<String>,
    /// Run only the tests whose name contains this, and no checks.
    filter: Option<String>,
}

impl Args {
    /// Whether the cluster is needed whatever the tests are called.
    fn needs_cluster(&self) -> bool {
        self.filter.is_none() && !self.skip_e2e
    }
}

/// Runs everything; fails when something failed.
pub fn run(args: &Args) -> Result<()> {
    let mut summary = Summary::default();
    let ahead = if args.needs_cluster() { tools::build_ahead() } else { Ahead::default() };
    if args.filter.is_none() {
        checks(&mut summary);
    }
    if let Err(error) = tests(args, ahead, &mut summary) {
        summary.broken("build of the tests", &error);
    }
    output::result(&summary.table());
    // The summary's last line is the last word.
    if summary.failed() { Err(output::Said(1).into()) } else { Ok(()) }
}

fn checks(summary: &mut Summary) {
    output::note("Checks");
    for check in CHECKS {
        let started = Instant::now();
        let passed = u32::from(check.passes());
        let counts = Counts { passed, failed: 1 - passed, ignored: 0 };
        summary.add(Suite { name: check.name.to_owned(), counts, took: started.elapsed() });
    }
}

fn tests(args: &Args, ahead: Ahead, summary: &mut Summary) -> Result<()> {
    output::note("Tests");
    let step = Step::start("build the tests");
    // Kept until all have run: another clone would build others in their place.
    let folder = cargo::build_folder()?;
    let mut binaries = binaries::build(&folder)?.binaries;
    step.done(&format!("{} binaries", binaries.len()));
    if let Some(filter) = &args.filter {
        binaries.retain(|binary| libtest::has(binary, filter));
    }
    let of = |needs: Needs| binaries.iter().filter(move |binary| binary.needs == needs).collect::<Vec<_>>();

    let options = Options { filter: args.filter.as_deref(), ..Options::default() };
    run_each(&of(Needs::Nothing), &options, summary);
    if args.filter.is_none() {
        summary.attempt("documentation examples", || libtest::documentation_examples(&folder));
    }
    if args.needs_cluster() {
        // The tests below wait with deadlines, and would miss some beside a compiler that takes every processor.
        images::programs().context("compile the programs of the images")?;
        // Their programs lay where the tests look for theirs.
        binaries::build(&folder)?;
    }
    let services_of = of(Needs::Services);
    let cluster_of = of(Needs::Cluster);
    let make_cluster = || end_to_end::prepare(args.context.as_deref()).context("set up the cluster");
    thread::scope(|scope| {
        // Like the service tests, whoever makes a cluster mostly waits.
        let cluster = args.needs_cluster().then(|| {
            scope.spawn(move || {
                ahead.finish();
                make_cluster()
            })
        });
        // A filter may ask for anything, and then there is little beside it.
        let skip = args.filter.is_none().then_some(chaos::TESTS);
        within("service tests", services, &services_of, &Options { skip, ..options.clone() }, summary);

        let end_to_end = |summary: &mut Summary| {
            if args.skip_e2e {
                return summary.left_out("end to end", "--skip-e2e");
            }
            let cluster = || cluster.map_or_else(make_cluster, finished).map(Prepared::begin);
            let options = Options { threads: Some(THREADS_QUEUEING), ..options };
            within("end to end", cluster, &cluster_of, &options, summary);
        };
        if args.filter.is_some() {
            return end_to_end(summary);
        }
        match Services::start(Ports::Free).context("start the databases") {
            // Both mostly wait: the one for five minutes without a write, the other for pods that come back.
            Ok(services) => {
                let strike = |aside: &Aside| chaos::strike(&services, &services_of, aside);
                beside("faults at random", strike, end_to_end, summary);
            }
            Err(error) => {
                summary.broken("faults at random", &error);
                end_to_end(summary);
            }
        }
    });
    Ok(())
}

/// What a thread has made, once it has.
fn finished<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs a suite that mostly waits beside others that do.
fn beside(
    name: &str,
    suite: impl FnOnce(&Aside) -> Result<Counts> + Send,
    others: impl FnOnce(&mut Summary),
    summary: &mut Summary,
) {
    let aside = Aside::default();
    output::note(&format!("  … {name}, beside what follows"));
    let started = Instant::now();
    thread::scope(|scope| {
        let suite = scope.spawn(|| (suite(&aside), started.elapsed()));
        others(summary);
        let (result, took) = finished(suite);
        aside.show();
        summary.ended(name, result, took);
    });
}

/// Runs binaries in what `prepare` sets up: a guard that is dropped after them, and their environment.
/// Does not prepare when there is nothing to run.
fn within<Guard>(
    name: &str,
    prepare: impl FnOnce() -> Result<(Guard, Vec<(String, String)>)>,
    binaries: &[&Binary],
    options: &Options<'_>,
    summary: &mut Summary,
) {
    if binaries.is_empty() {
        return;
    }
    match prepare() {
        Ok((_guard, environment)) => {
            let threads = options.threads.or(Some(THREADS_WAITING));
            let options = Options { environment, threads, show_passed: true, ..options.clone() };
            run_each(binaries, &options, summary);
        }
        Err(error) => summary.broken(name, &error),
    }
}

/// The clients and databases of the service tests' own, which end before the cluster needs the memory.
fn services() -> Result<(Services, Vec<(String, String)>)> {
    let clients = clients::installed().context("install the clients that the service tests run")?;
    chaos::install()?;
    let services = Services::start(Ports::Free).context("start the databases of the service tests")?;
    let mut environment = services.environment();
    environment.push(("AZORA_TEST_NPM_CLIENTS".to_owned(), clients.display().to_string()));
    Ok((services, environment))
}

fn run_each(binaries: &[&Binary], options: &Options<'_>, summary: &mut Summary) {
    for binary in binaries {
        summary.attempt(&binary.name, || libtest::run(binary, options));
    }
}
