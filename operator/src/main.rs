//! The operator's command line. Parses arguments, calls, maps the result to an exit code.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Turns `AzoraDataLayer` resources into running Postgres, `MongoDB`, Redis and Nexus.
#[derive(Parser)]
#[command(name = "azora-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the CustomResourceDefinition as YAML.
    Crd,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Crd => print_crd(),
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
    print!("{}", azora_operator::api::crd_yaml()?);
    Ok(())
}
