//! The `nexus` command: parses arguments, calls, and maps the result to an exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    nexus::command::run(nexus::command::Command::parse())
}
