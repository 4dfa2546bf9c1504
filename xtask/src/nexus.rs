//! `cargo xtask nexus`: Nexus on local services, for work without a cluster.

use crate::services::{Ports, Services, Urls};
use crate::{cargo, demo, output, ports, run, secret};
use anyhow::{Context as _, Result};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Arguments of `cargo xtask nexus`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:4001")]
    listen: SocketAddr,
    /// The log filter, such as `debug` or `nexus=trace`.
    #[arg(long, default_value = "info")]
    log: String,
}

/// Builds Nexus and runs it until interrupted.
pub fn run(args: &Args) -> Result<()> {
    // Held only for a moment: a taken port is better said before the build than after.
    ports::hold(args.listen, "Nexus", "pass --listen for another").map(drop)?;
    let step = output::Step::start("build Nexus");
    let program = cargo::build("azora-nexus", "nexus")?;
    step.done("");
    let services = Services::start(Ports::Fixed)?;
    let key = secret::word()?;
    let nexus = |arguments: &[&str]| command(&program, arguments, args, services.urls(), &key);

    run::quiet(&mut nexus(&["migrate"])).context("migrate the database")?;
    services.add(&nexus(&["serve"]))?;
    services.until("Nexus", || ready(args.listen))?;
    let seconds = demo::TOKEN_SECONDS.to_string();
    let words = ["token", "--subject", demo::SUBJECT, "--scope", demo::SCOPE, "--ttl-seconds", &seconds];
    let token = run::text(&mut nexus(&words)).context("make a token")?;

    output::result(&demo::commands(&format!("http://{}", args.listen), &token));
    output::note(&services.urls().table());
    output::note("Ctrl-C stops Nexus and the stores, and removes their data.");
    services.wait()
}

fn command(program: &Path, arguments: &[&str], args: &Args, urls: &Urls, key: &str) -> Command {
    let mut command = run::command(program, arguments);
    command.env("NEXUS_LISTEN", args.listen.to_string());
    command.env("NEXUS_DATABASE_URL", &urls.postgres).env("NEXUS_REDIS_URL", &urls.redis);
    command.env("NEXUS_MONGO_URL", urls.mongo_database("azora"));
    command.env("NEXUS_AUTH_HS256_KEY", key).env("NEXUS_LOG", &args.log).env("NEXUS_LOG_FORMAT", "text");
    // Nobody here waits for clients to leave.
    command.env("NEXUS_DRAIN_SECONDS", "1");
    command
}

/// Whether `/readyz` answers 200.
fn ready(listen: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&listen, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}
