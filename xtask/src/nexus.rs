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
    let program = cargo::build_folder()?.build("nexus")?;
    step.done("");
    let services = Services::start(Ports::Free)?;
    let key = secret::word()?;
    let nexus = Local {
        program: &program,
        listen: args.listen,
        log: &args.log,
        urls: services.urls(),
        key: &key,
        kept_events: 100_000,
    };
    nexus.start(&services)?;
    let token = nexus.token(demo::SUBJECT, demo::SCOPE, demo::TOKEN_SECONDS)?;

    output::result(&demo::commands(&format!("http://{}", args.listen), &token));
    output::note(&services.urls().table());
    output::note("Ctrl-C stops Nexus and the stores, and removes their data.");
    services.wait()
}

/// Nexus as a local process on local services.
pub(crate) struct Local<'a> {
    /// The program.
    pub(crate) program: &'a Path,
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// The log filter.
    pub(crate) log: &'a str,
    /// The stores.
    pub(crate) urls: &'a Urls,
    /// What signs tokens; 32 bytes at least.
    pub(crate) key: &'a str,
    /// Events that the log keeps at least.
    pub(crate) kept_events: u32,
}

impl Local<'_> {
    /// Migrates the database, starts the process and waits until it answers. It ends with the services.
    pub(crate) fn start(&self, services: &Services) -> Result<()> {
        run::quiet(&mut self.command(&["migrate"])).context("migrate the database")?;
        services.add(&self.command(&["serve"]))?;
        services.until("Nexus", || ready(self.listen))
    }

    /// A token for `subject`.
    pub(crate) fn token(&self, subject: &str, scope: &str, seconds: u32) -> Result<String> {
        let seconds = seconds.to_string();
        let words = ["token", "--subject", subject, "--scope", scope, "--ttl-seconds", &seconds];
        run::text(&mut self.command(&words)).context("make a token")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = run::command(self.program, arguments);
        command.env("NEXUS_LISTEN", self.listen.to_string());
        command.env("NEXUS_DATABASE_URL", &self.urls.postgres).env("NEXUS_REDIS_URL", &self.urls.redis);
        command.env("NEXUS_MONGO_URL", self.urls.mongo_database("azora"));
        command.env("NEXUS_AUTH_HS256_KEY", self.key).env("NEXUS_LOG", self.log).env("NEXUS_LOG_FORMAT", "text");
        command.env("NEXUS_RETENTION_EVENTS_MIN", self.kept_events.to_string());
        // Nobody here waits for clients to leave.
        command.env("NEXUS_DRAIN_SECONDS", "1");
        command
    }
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
