//! The pods: processes of the real program, each with a network to the stores and a clock of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::process::{Child, Command};

use super::stores::{Ground, Postgres, Redis, ends_with_us, until};
use crate::support::client::HS256_KEY;
use crate::support::{Proxy, free_port};

/// Pods side by side.
pub(super) const PODS: usize = 3;
/// How far a pod's clock may be from the others', in seconds: what clocks of a cluster without time service show.
const SKEW_SECONDS: i32 = 30;
/// Debian's places for the library that bends a program's clock.
const CLOCKS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/// One pod.
pub(super) struct Pod {
    pub(super) address: SocketAddr,
    /// Its network to Postgres.
    pub(super) postgres: Proxy,
    /// Its network to Redis.
    pub(super) redis: Proxy,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Pod {
    /// A pod that is not running yet.
    pub(super) async fn new(number: usize, stores: (&Postgres, &Redis), mongo_url: &str) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (postgres, postgres_url) = Proxy::before(&stores.0.url()).await;
        let (redis, redis_url) = Proxy::before(&stores.1.url()).await;
        let arguments = [
            format!("--listen={address}"),
            format!("--advertise={address}"),
            format!("--pod=pod-{number}"),
            format!("--database-url={postgres_url}"),
            "--database-connections-max=8".to_owned(),
            format!("--redis-url={redis_url}"),
            format!("--mongo-url={mongo_url}"),
            format!("--auth-hs256-key={HS256_KEY}"),
            "--stream-heartbeat-seconds=2".to_owned(),
            "--person-requests-per-second=0".to_owned(),
            "--webhook-allow-http".to_owned(),
            "--webhook-allow-network=127.0.0.0/8".to_owned(),
            "--webhook-attempt-seconds=3".to_owned(),
            "--drain-seconds=1".to_owned(),
        ];
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
        fs::create_dir_all(&folder).context("make the folder of the logs")?;
        let log = folder.join(format!("pod-{number}.log"));
        File::create(&log).context("empty the log of the last run")?;
        Ok(Self { address, postgres, redis, arguments: arguments.to_vec(), log, child: None })
    }

    /// Starts it, with a clock that is right or wrong.
    pub(super) fn start(&mut self, clock: &Clock, rng: &mut StdRng) -> Result<()> {
        let mut command = ends_with_us(Path::new(env!("CARGO_BIN_EXE_nexus")));
        command.arg("serve").args(&self.arguments);
        command.envs([("NEXUS_LOG", "info"), ("NEXUS_LOG_FORMAT", "text")]);
        clock.bend(&mut command, rng.random_range(-SKEW_SECONDS..=SKEW_SECONDS));
        let log = File::options().append(true).open(&self.log).context("open the log")?;
        command.stderr(log.try_clone().context("share the log")?).stdout(log);
        self.child = Some(command.spawn().context("start Nexus")?);
        Ok(())
    }

    /// Whether it serves.
    pub(super) async fn is_ready(&self) -> bool {
        reqwest::get(format!("http://{}/readyz", self.address)).await.is_ok_and(|answer| answer.status() == 200)
    }

    /// Ends it without a word.
    pub(super) async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it runs")?;
        child.kill().await.context("kill Nexus")
    }

    /// Asks it to leave, and waits until it has.
    pub(super) async fn leave(&mut self) -> Result<()> {
        self.signal("TERM").await?;
        let mut child = self.child.take().context("it runs")?;
        let ended = until("Nexus to leave", async || child.try_wait().ok().flatten()).await?;
        ensure!(ended.success(), "Nexus left with {ended}");
        Ok(())
    }

    /// Sends a signal, such as `STOP` or `CONT`.
    pub(super) async fn signal(&self, name: &str) -> Result<()> {
        let id = self.child.as_ref().and_then(Child::id).context("it runs")?;
        let status = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &id.to_string()]).status().await;
        ensure!(status.context("start a shell")?.success(), "Nexus could not be sent {name}");
        Ok(())
    }
}

/// What bends the clock of a program.
pub(super) struct Clock(PathBuf);

impl Clock {
    pub(super) fn find() -> Result<Self> {
        let files = CLOCKS.map(|folder| Path::new(folder).join("faketime/libfaketime.so.1"));
        let file = files.into_iter().find(|file| file.exists());
        Ok(Self(file.context("there is no libfaketime: `apt-get install libfaketime`")?))
    }

    fn bend(&self, command: &mut Command, seconds: i32) {
        command.env("LD_PRELOAD", &self.0).env("FAKETIME", format!("{seconds:+}s"));
        // What measures time is right on every machine.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

/// Brings the database to this build's version.
pub(super) async fn migrate(ground: &Ground, postgres: &Postgres) -> Result<()> {
    let mut command = ends_with_us(Path::new(env!("CARGO_BIN_EXE_nexus")));
    command.arg("migrate").arg(format!("--database-url={}", postgres.url())).current_dir(&ground.folder);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await.context("start Nexus")?;
    ensure!(output.status.success(), "Nexus did not migrate: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
