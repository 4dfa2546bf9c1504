//! The Docker Engine that everything runs on: the one that answers, else one of our own.
//! Never touches an engine that it did not start.

mod mounts;
mod own;

use crate::{output, packages, run, store};
use anyhow::{Result, bail};
use own::Own;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seconds that an engine has to answer: a healthy one needs milliseconds, a busy one a few seconds.
const ANSWER_SECONDS: u32 = 20;

/// Free space that images, volumes and builds need: the whole stack takes about 8 GiB.
const FREE_BYTES_MIN: u64 = 10 << 30;

/// A Docker Engine that has answered.
#[derive(Clone, Debug)]
pub struct Engine {
    docker: PathBuf,
    /// What goes into `DOCKER_HOST`; none for the client's own default.
    host: Option<String>,
}

/// What an engine said when asked for its version.
enum Answer {
    Version,
    /// Nobody listens, or there is no client to ask with.
    Nobody,
    /// Somebody is there, but the answer was an error or did not come.
    Trouble(String),
}

/// How much all containers together count beside other processes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// As many: they keep their share beside a compile.
    Many,
    /// As one, as Docker has it.
    One,
}

impl Engine {
    /// The engine that answers; one that is installed and started where none does.
    ///
    /// # Errors
    /// No engine and no right to start one, an engine that hangs, too little disk: each says what to do.
    pub fn ready() -> Result<Self> {
        enough_disk(&store::root())?;
        if let Some(engine) = Self::existing()? {
            return Ok(engine);
        }
        let _lock = store::lock("engine")?;
        // Another xtask may have started it while this one waited.
        if let Some(engine) = Self::existing()? {
            return Ok(engine);
        }
        if !packages::is_root() {
            bail!(
                "no Docker Engine answers, and starting one needs root\n\
                 Start yours (`sudo systemctl start docker`) with yourself in its group (`sudo usermod -aG docker $USER`, \
                 then log in again), or run this command as root: it then installs and starts one of its own"
            );
        }
        if run::find("dockerd").is_none() || run::find("runc").is_none() {
            packages::ensure(&["docker.io", "iptables"])?;
            // Where systemd runs, the package starts its own engine.
            if let Some(engine) = Self::existing()? {
                return Ok(engine);
            }
        }
        let own = Own::new();
        own.start()?;
        Ok(Self::of(&own))
    }

    /// The engine that answers now, without installing or starting anything.
    ///
    /// # Errors
    /// When an engine is there but hangs or refuses.
    pub fn existing() -> Result<Option<Self>> {
        let own = Self::of(&Own::new());
        let chosen = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        if chosen.is_none() && matches!(own.ask(), Answer::Version) {
            return Ok(Some(own));
        }
        let default = Self { docker: client(), host: None };
        match (default.ask(), chosen) {
            (Answer::Version, _) => Ok(Some(default)),
            (Answer::Nobody, None) => Ok(None),
            (Answer::Nobody, Some(host)) => {
                bail!("DOCKER_HOST is {host}, and nobody answers there\nStart that engine, or unset DOCKER_HOST")
            }
            (Answer::Trouble(said), _) => bail!(
                "Docker Engine is there but does not answer as it should: {said}\n\
                 Restart it (`sudo systemctl restart docker`), or name another one in DOCKER_HOST"
            ),
        }
    }

    /// Our own engine, started again where it was killed: only so can what it left behind be removed, such as its
    /// containers' file systems and the bridge of the cluster.
    pub fn revived() -> Result<Option<Self>> {
        let _lock = store::lock("engine")?;
        let own = Own::new();
        if !own.was_killed() {
            return Ok(None);
        }
        own.start()?;
        Ok(Some(Self::of(&own)))
    }

    /// A `docker` command that talks to this engine.
    pub fn docker<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = run::command(&self.docker, arguments);
        self.address(&mut command);
        command
    }

    /// Makes `command`, a program that itself runs `docker` from `PATH`, talk to this engine.
    pub fn address(&self, command: &mut Command) {
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        if let Some(folder) = self.docker.parent().filter(|folder| folder.is_absolute()) {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&path));
            if let Ok(joined) = std::env::join_paths(folders) {
                command.env("PATH", joined);
            }
        }
    }

    /// Whether it is the engine that xtask starts and stops.
    pub fn is_own(&self) -> bool {
        self.host.is_some()
    }

    /// Gives running containers, where the engine is our own, their weight beside what else runs on this machine.
    pub fn weigh_containers(&self, weight: Weight) {
        if self.is_own() {
            Own::new().weigh_containers(weight);
        }
    }

    /// The engine's version, and whether it is our own, for a person.
    pub fn describe(&self) -> String {
        let version = run::text(&mut self.docker(["version", "--format", "{{.Server.Version}}"]));
        let whose = if self.is_own() { "started by xtask" } else { "found running" };
        format!("Docker Engine {} ({whose})", version.unwrap_or_else(|_| "?".into()))
    }

    /// Stops the engine if it is our own; leaves any other alone. Whether it was ours.
    pub fn stop() -> Result<bool> {
        let _lock = store::lock("engine")?;
        Own::new().stop()
    }

    /// Deletes what our own, stopped engine holds: images, containers and volumes.
    pub fn purge() -> Result<()> {
        Own::new().purge()
    }

    fn of(own: &Own) -> Self {
        // Debian's client first: it matches the engine that was installed with it, while a newer one
        // earlier in PATH may want build plug-ins that are not there.
        let debian = PathBuf::from("/usr/bin/docker");
        Self { docker: if debian.is_file() { debian } else { client() }, host: Some(own.host()) }
    }

    fn ask(&self) -> Answer {
        let mut command = Command::new("timeout");
        command.arg(ANSWER_SECONDS.to_string()).arg(&self.docker);
        command.args(["version", "--format", "{{.Server.Version}}"]).stdin(std::process::Stdio::null());
        self.address(&mut command);
        match command.output() {
            Ok(output) => understand(output.status.code(), &String::from_utf8_lossy(&output.stderr)),
            Err(error) => Answer::Trouble(error.to_string()),
        }
    }
}

fn client() -> PathBuf {
    run::find("docker").unwrap_or_else(|| "docker".into())
}

/// What the answer of `timeout N docker version` means.
fn understand(code: Option<i32>, said: &str) -> Answer {
    let nobody = ["Cannot connect to the Docker daemon", "connection refused", "no such file"];
    match code {
        Some(0) => Answer::Version,
        Some(124) => Answer::Trouble(format!("no answer within {ANSWER_SECONDS} s")),
        // 126 and 127 are `timeout`'s words for a program that is not there or cannot run.
        Some(126 | 127) => Answer::Nobody,
        _ if said.contains("permission denied") => {
            Answer::Trouble("permission denied: add yourself to the group `docker`, or run as root".into())
        }
        _ if nobody.iter().any(|words| said.contains(words)) => Answer::Nobody,
        _ => Answer::Trouble(said.trim().lines().next_back().unwrap_or("it said nothing").to_owned()),
    }
}

/// Refuses to begin where the disk would fill up midway.
fn enough_disk(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|each| each.exists()).unwrap_or(Path::new("/"));
    let mut df = Command::new("df");
    df.args(["--output=avail", "--block-size=1"]).arg(there);
    let Some(free) = run::text(&mut df).ok().and_then(|text| available(&text)) else {
        return Ok(()); // An odd file system that does not say; the build will tell.
    };
    if free < FREE_BYTES_MIN {
        bail!(
            "only {} are free at {}, and {} are needed\n\
             Free some space (`cargo xtask down --purge` drops the caches), or name a folder on another disk in AZORA_CACHE",
            output::size(free),
            there.display(),
            output::size(FREE_BYTES_MIN)
        );
    }
    Ok(())
}

/// The figure in the answer of `df --output=avail`.
fn available(text: &str) -> Option<u64> {
    text.lines().last()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_the_figure_below_the_heading() {
        assert_eq!(available("     Avail\n81234567890"), Some(81_234_567_890));
        assert_eq!(available("     Avail\n-"), None);
    }

    #[test]
    fn an_engine_that_hangs_differs_from_one_that_is_not_there() {
        let refused =
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?";
        assert!(matches!(understand(Some(0), ""), Answer::Version));
        assert!(matches!(understand(Some(1), refused), Answer::Nobody));
        assert!(matches!(understand(Some(127), "timeout: failed to run command 'docker'"), Answer::Nobody));
        assert!(matches!(understand(Some(124), ""), Answer::Trouble(said) if said.contains("no answer within")));
        let denied = "Got permission denied while trying to connect: permission denied";
        assert!(matches!(understand(Some(1), denied), Answer::Trouble(said) if said.contains("group")));
    }
}
