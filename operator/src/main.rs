//! The operator's command line. Parses arguments, calls, maps the result to an exit code.

use azora_operator::{api, controller, settings::Settings};
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Turns `AzoraDataLayer` resources into running Postgres, `MongoDB`, Redis and Nexus.
#[derive(Parser)]
#[command(name = "azora-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the `CustomResourceDefinition` as YAML.
    Crd,
    /// Watch the cluster and keep its data layers as their resources say.
    Run(Box<Settings>),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Crd => print_crd(),
        Command::Run(settings) => run(*settings),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout)] // The definition is this command's output.
fn print_crd() -> anyhow::Result<()> {
    print!("{}", api::crd_yaml()?);
    Ok(())
}

fn run(settings: Settings) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log)?;
    tracing_subscriber::fmt()
        .json()
        .with_current_span(false)
        .with_span_list(false)
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    // Two threads: the work is waiting for answers, and each thread costs memory at rest.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(cancel_on_signal(stop.clone())?);
        controller::run(settings, stop).await
    })
}

/// Cancels `stop` when Kubernetes, or a person at a terminal, asks the process to end.
fn cancel_on_signal(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    })
}
