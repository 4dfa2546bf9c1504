//! Redis as a local process.

use super::process::{Process, Program};
use crate::{packages, run};
use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;

/// Installs Debian's package when the program is missing.
pub(super) fn install() -> Result<()> {
    if run::exists("redis-server") { Ok(()) } else { packages::ensure(&["redis-server"]) }
}

/// Starts it with an append-only file, as in the cluster.
pub(super) fn start(folder: &Path, port: u16, password: &str) -> Result<Process> {
    let port = port.to_string();
    let words =
        ["--bind", "127.0.0.1", "--port", &port, "--requirepass", password, "--appendonly", "yes", "--save", ""];
    let file = &run::find("redis-server").context("find redis-server")?;
    let arguments = words.map(str::to_owned).to_vec();
    Process::server(&Program { name: "redis", stop_signal: "TERM", user: None, file, arguments }, folder)
}

/// Whether it answers a ping with this password.
pub(super) fn answers(port: u16, password: &str) -> bool {
    let ask = || -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(format!("AUTH {password}\r\nPING\r\nQUIT\r\n").as_bytes())?;
        Ok(BufReader::new(stream).lines().take(2).collect::<std::io::Result<Vec<String>>>()?.join(" "))
    };
    ask().is_ok_and(|answer| answer == "+OK +PONG")
}
