//! Postgres as a local process. It refuses to run as root, so then it becomes the user that
//! Debian's package made for it.

use super::process::{Process, Program, become_user};
use crate::{packages, run};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The user that Debian's package makes.
const USER: &str = "postgres";

/// Where Debian puts each major version's programs.
const VERSIONS: &str = "/usr/lib/postgresql";

/// The folder of Postgres' programs, installed when there are none: the newest version there is.
pub(super) fn install() -> Result<PathBuf> {
    if let Some(found) = newest() {
        return Ok(found);
    }
    packages::ensure(&["postgresql-15"])?;
    newest().with_context(|| format!("find Postgres' programs below {VERSIONS}"))
}

/// Makes a database cluster whose superuser `postgres` has `password`, and starts it.
pub(super) fn start(binaries: &Path, folder: &Path, port: u16, password: &str) -> Result<Process> {
    let own = folder.join("postgres");
    fs::create_dir(&own).with_context(|| format!("create {}", own.display()))?;
    let password_file = own.join("password");
    fs::write(&password_file, password).with_context(|| format!("write {}", password_file.display()))?;
    if packages::is_root() {
        let mut chown = run::command("chown", ["--recursive", &format!("{USER}:{USER}")]);
        run::quiet(chown.arg(&own)).context("give Postgres its folder")?;
    }
    let data = own.join("data").display().to_string();
    let mut initdb = become_user(Some(USER));
    initdb.arg(binaries.join("initdb")).args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"]);
    initdb.args(["--locale=C.UTF-8", "--pgdata", &data]).arg("--pwfile").arg(&password_file);
    run::quiet(initdb.current_dir(&own)).context("create the Postgres data folder")?;
    fs::remove_file(&password_file).with_context(|| format!("remove {}", password_file.display()))?;

    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        // No socket file: Debian's default folder for it may not be there.
        "unix_socket_directories=".to_owned(),
        // A pool for each of many tests at a time.
        "max_connections=400".to_owned(),
    ];
    let mut arguments = vec!["-D".to_owned(), data];
    arguments.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
    let file = &binaries.join("postgres");
    // SIGINT is the fast shutdown; on SIGTERM Postgres would wait for its clients to leave.
    Process::server(&Program { name: "postgres", stop_signal: "INT", user: Some(USER), file, arguments }, folder)
}

/// Whether it accepts connections.
pub(super) fn answers(binaries: &Path, port: u16) -> bool {
    let mut ask = run::command(binaries.join("pg_isready"), ["--quiet", "--host=127.0.0.1"]);
    run::succeeds(ask.arg(format!("--port={port}")))
}

fn newest() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).ok()?;
    let numbers = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let folders = numbers.map(|number| (number, Path::new(VERSIONS).join(number.to_string()).join("bin")));
    // A client package alone leaves a folder without the server.
    folders.filter(|(_, folder)| folder.join("postgres").is_file()).max().map(|(_, folder)| folder)
}
