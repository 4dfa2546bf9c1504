//! Stores of this test's own, to be killed: Postgres with a standby that confirms every commit, and Redis.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use redis::AsyncConnectionConfig;
use sqlx::{Connection as _, PgConnection};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::support::free_port;

/// No start or promotion of a database comes near it.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often a value is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

fn environment(name: &str) -> Result<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set; run `cargo xtask chaos`"))
}

/// A program that ends with this one, however that ends.
pub(super) fn ends_with_us(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Waits until `look` finds a value.
pub(super) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = look().await {
            return Ok(value);
        }
        ensure!(begun.elapsed() < DEADLINE, "waited in vain for {what}");
        sleep(LOOK_PERIOD).await;
    }
}

/// The folder in which stores have theirs; it belongs to the user that Postgres runs as.
pub(super) struct Ground {
    pub(super) folder: PathBuf,
    binaries: PathBuf,
    owner: u32,
    group: u32,
}

impl Ground {
    /// A folder beside those of the services, which goes with them.
    pub(super) fn new() -> Result<Self> {
        let services = environment("AZORA_TEST_FOLDER")?;
        let postgres =
            fs::metadata(services.join("postgres")).context("look at the folder of the services' Postgres")?;
        let folder = services.join(format!("chaos-{}", Uuid::new_v4().simple()));
        fs::create_dir(&folder).context("make a folder")?;
        let (owner, group) = (postgres.uid(), postgres.gid());
        chown(&folder, Some(owner), Some(group)).context("give the folder to Postgres' user")?;
        Ok(Self { folder, binaries: environment("AZORA_TEST_POSTGRES_BINARIES")?, owner, group })
    }

    /// One of Postgres' programs, as its user.
    fn postgres(&self, program: &str) -> Command {
        let mut command = ends_with_us(&self.binaries.join(program));
        command.uid(self.owner).gid(self.group).current_dir(&self.folder).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// A primary, and a standby without which nothing is committed.
pub(super) struct Postgres {
    password: String,
    primary: Server,
    standby: Option<Server>,
}

struct Server {
    child: Child,
    port: u16,
    data: PathBuf,
}

impl Server {
    fn start(ground: &Ground, data: PathBuf, port: u16) -> Result<Self> {
        let mut command = ground.postgres("postgres");
        command.arg("-D").arg(&data);
        let settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "wal_retrieve_retry_interval=200ms"];
        for setting in settings.map(str::to_owned).into_iter().chain([format!("port={port}")]) {
            command.args(["-c", &setting]);
        }
        let log = data.with_extension("log");
        let log = fs::File::options().create(true).append(true).open(log).context("open a log")?;
        let child = command.stderr(log).spawn().context("start Postgres")?;
        Ok(Self { child, port, data })
    }

    /// As when the node loses its power: nothing is said to anybody.
    async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("kill Postgres")?;
        // Its children leave when they see that it has gone; until then they may still write.
        let children = || {
            let all = fs::read_dir("/proc").into_iter().flatten().flatten();
            let folders = all.filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
            folders.filter(|folder| *folder == self.data).count()
        };
        until("the children of Postgres to leave", async || (children() == 0).then_some(())).await
    }
}

impl Postgres {
    /// Both, with nothing in them.
    pub(super) async fn start(ground: &Ground) -> Result<Self> {
        let password = Uuid::new_v4().simple().to_string();
        let file = ground.folder.join("password");
        fs::write(&file, &password).context("write the password")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).context("hide the password")?;
        chown(&file, Some(ground.owner), Some(ground.group)).context("give the password to Postgres' user")?;
        let data = ground.folder.join("postgres-0");
        let mut initdb = ground.postgres("initdb");
        initdb.args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        let made = initdb.arg("--pwfile").arg(&file).arg("--pgdata").arg(&data).status().await;
        ensure!(made.context("start initdb")?.success(), "initdb failed");
        let primary = Server::start(ground, data, free_port())?;
        let mut postgres = Self { password, primary, standby: None };
        postgres.until_it_answers().await?;
        postgres.add_standby(ground).await?;
        Ok(postgres)
    }

    /// Where the primary is, as a URL.
    pub(super) fn url(&self) -> String {
        format!("postgres://postgres:{}@{}/postgres", self.password, self.address())
    }

    /// Host and port of the primary.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.primary.port)
    }

    pub(super) async fn connect(&self) -> Result<PgConnection> {
        PgConnection::connect(&self.url()).await.context("connect to Postgres")
    }

    /// Kills the primary and starts it again on what it has on disk.
    pub(super) async fn crash(&mut self, ground: &Ground) -> Result<()> {
        self.primary.kill().await?;
        self.primary = Server::start(ground, self.primary.data.clone(), self.primary.port)?;
        self.until_it_answers().await?;
        self.until_in_step().await
    }

    /// Kills the primary and lets the standby take its place; there is no standby then.
    pub(super) async fn fail_over(&mut self) -> Result<()> {
        self.primary.kill().await?;
        self.primary = self.standby.take().context("there is a standby")?;
        let mut connection = self.connect().await?;
        let promoted: bool =
            sqlx::query_scalar("SELECT pg_promote()").fetch_one(&mut connection).await.context("promote")?;
        ensure!(promoted, "the standby was not promoted");
        // It has nobody to confirm its commits yet.
        configure(&mut connection, "RESET synchronous_standby_names").await
    }

    /// Makes a standby, and lets every commit wait for it from then on.
    pub(super) async fn add_standby(&mut self, ground: &Ground) -> Result<()> {
        let port = free_port();
        let data = ground.folder.join(format!("postgres-{port}"));
        let mut copy = ground.postgres("pg_basebackup");
        copy.args(["--write-recovery-conf", "--no-sync", "--checkpoint=fast", "--wal-method=stream"]);
        copy.arg("--pgdata").arg(&data).arg("--dbname").arg(self.url());
        ensure!(copy.status().await.context("start pg_basebackup")?.success(), "pg_basebackup failed");
        self.standby = Some(Server::start(ground, data, port)?);
        let mut connection = self.connect().await?;
        configure(&mut connection, "SET synchronous_standby_names = '*'").await?;
        self.until_in_step().await
    }

    async fn until_it_answers(&self) -> Result<()> {
        until("Postgres to answer", async || self.connect().await.ok()).await.map(drop)
    }

    /// Waits until the standby has everything, and confirms what comes.
    async fn until_in_step(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        let ask = "SELECT count(*) FROM pg_stat_replication
            WHERE state = 'streaming' AND sync_state = 'sync' AND flush_lsn >= pg_current_wal_flush_lsn() - 65536::numeric";
        let ready = async || {
            let count: Result<i64, _> = sqlx::query_scalar(ask).fetch_one(&mut connection).await;
            (count.ok()? == 1).then_some(())
        };
        until("the standby to be in step", ready).await
    }
}

async fn configure(connection: &mut PgConnection, change: &'static str) -> Result<()> {
    let change = sqlx::AssertSqlSafe(format!("ALTER SYSTEM {change}"));
    sqlx::query(change).execute(&mut *connection).await.context("change the settings")?;
    sqlx::query("SELECT pg_reload_conf()").execute(connection).await.context("load the settings").map(drop)
}

/// Redis with an append-only file.
pub(super) struct Redis {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Redis {
    pub(super) async fn start(ground: &Ground) -> Result<Self> {
        let folder = ground.folder.join("redis");
        fs::create_dir(&folder).context("make a folder")?;
        let port = free_port();
        let redis = Self { child: Self::spawn(&folder, port)?, folder, port };
        redis.until_it_answers().await?;
        Ok(redis)
    }

    fn spawn(folder: &Path, port: u16) -> Result<Child> {
        let mut command = ends_with_us(Path::new("redis-server"));
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--appendonly", "yes", "--save", ""]);
        command.current_dir(folder).stdout(Stdio::null()).spawn().context("start Redis")
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn connect(&self) -> Result<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.url()).context("read the address of Redis")?;
        // The client's own deadlines are those of a machine that has nothing else to do.
        let patience = AsyncConnectionConfig::new();
        let patience = patience.set_connection_timeout(Some(DEADLINE)).set_response_timeout(Some(DEADLINE));
        client.get_multiplexed_async_connection_with_config(&patience).await.context("connect to Redis")
    }

    async fn until_it_answers(&self) -> Result<()> {
        until("Redis to answer", async || {
            let mut connection = self.connect().await.ok()?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
        })
        .await
        .map(drop)
    }

    /// Forgets everything.
    pub(super) async fn flush(&self) -> Result<()> {
        redis::cmd("FLUSHALL").query_async(&mut self.connect().await?).await.context("flush Redis")
    }

    pub(super) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("kill Redis")
    }

    pub(super) async fn restart(&mut self) -> Result<()> {
        self.child = Self::spawn(&self.folder, self.port)?;
        self.until_it_answers().await
    }
}
