//! The `nexus` command: parses arguments, calls, and maps the result to an exit code.

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

/// With the system's own allocator a delivery costs up to a half more, and each client 5 % more memory.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    nexus::command::run(nexus::command::Command::parse())
}
