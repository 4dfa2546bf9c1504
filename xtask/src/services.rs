//! `cargo xtask services`: Postgres, Redis and mongod as plain local processes, for the service
//! tests, the benchmarks and quick work on Nexus without a cluster. They listen on 127.0.0.1 only,
//! keep their data in a folder of their own, and end with this program however it ends: on return,
//! Ctrl-C and SIGTERM in order, on SIGKILL by the parent-death signal.

mod folder;
mod mongo;
mod postgres;
mod process;
mod redis;
mod running;

use crate::{output, ports, run, secret};
use anyhow::{Context as _, Result, bail};
use folder::Folder;
use process::Process;
use running::Running;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

/// Arguments of `cargo xtask services`.
#[derive(clap::Args)]
pub struct Args {
    /// Take free ports instead of the fixed ones; a COMMAND always gets free ports.
    #[arg(long)]
    free: bool,
    /// Print the connection URLs as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Leave the data folder, with the logs, in place and say where it is.
    #[arg(long)]
    keep: bool,
    /// Run this command with the URLs in its environment, then stop; its exit code is ours.
    #[arg(last = true)]
    command: Vec<String>,
}

/// Which ports the services listen on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ports {
    /// The same on every run, far from the servers' usual ones, which may be in use.
    Fixed,
    /// Any that are free.
    Free,
}

/// The running services. Dropping them stops them and removes their data.
pub struct Services {
    running: Running,
    urls: Urls,
    /// The folder of Postgres' programs.
    postgres: PathBuf,
}

/// Where each service answers, as its superuser.
#[derive(serde::Serialize)]
pub struct Urls {
    /// `postgres://`, database `postgres`.
    pub postgres: String,
    /// `redis://`, database 0.
    pub redis: String,
    /// `mongodb://` without a database, a replica set of one member.
    pub mongo: String,
}

impl Urls {
    /// The URL of one MongoDB database.
    pub fn mongo_database(&self, name: &str) -> String {
        self.mongo.replacen("/?", &format!("/{name}?"), 1)
    }

    /// A line for each.
    pub fn table(&self) -> String {
        format!("Postgres  {}\nRedis     {}\nMongoDB   {}", self.postgres, self.redis, self.mongo)
    }
}

/// Runs the services until interrupted, or around a command.
pub fn run(args: &Args) -> Result<()> {
    // Said before seconds go into starting databases for nothing.
    let by_name = args.command.first().filter(|program| !program.contains('/'));
    if let Some(program) = by_name.filter(|program| !run::exists(program)) {
        bail!("the command `{program}` is not there");
    }
    let ports = if args.free || !args.command.is_empty() { Ports::Free } else { Ports::Fixed };
    let services = Services::start(ports)?;
    if args.keep {
        services.running.keep_folder();
    }
    let urls = services.urls();
    if args.json {
        output::result(&serde_json::to_string(urls).context("write the URLs as JSON")?);
    } else if args.command.is_empty() {
        output::result(&urls.table());
    }
    let Some((program, arguments)) = args.command.split_first() else {
        output::note("Ctrl-C stops them and removes their data.");
        return services.wait();
    };
    let mut command = Command::new(program);
    command.args(arguments).envs(services.environment());
    let status = services.run(&command)?;
    if status.success() {
        return Ok(());
    }
    // The command has said itself what was wrong: its exit code is the whole answer.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Err(output::Said(code.unwrap_or(1)).into())
}

impl Services {
    /// Starts the three and waits until each answers. To be called on the main thread: the servers
    /// get their parent-death signal when the thread that started them ends.
    pub fn start(ports: Ports) -> Result<Self> {
        let step = output::Step::start("start Postgres, Redis and mongod");
        let binaries = postgres::install()?;
        redis::install()?;
        let mongod = mongo::install()?;
        let running = Running::new(Folder::create()?)?;
        let folder = running.folder();
        let [at_postgres, at_redis, at_mongo] = choose(ports)?;

        let password = secret::word()?;
        running.add(postgres::start(&binaries, &folder, at_postgres, &password)?);
        running.add(redis::start(&folder, at_redis, &password)?);
        running.add(mongo::start(&mongod, &folder, at_mongo)?);
        running.until("Postgres", || postgres::answers(&binaries, at_postgres))?;
        running.until("Redis", || redis::answers(at_redis, &password))?;
        running.until("mongod", || mongo::answers(at_mongo))?;
        step.done("");

        let urls = Urls {
            postgres: format!("postgres://postgres:{password}@127.0.0.1:{at_postgres}/postgres"),
            redis: format!("redis://:{password}@127.0.0.1:{at_redis}"),
            mongo: format!("mongodb://127.0.0.1:{at_mongo}/?replicaSet={}", mongo::REPLICA_SET),
        };
        Ok(Self { running, urls, postgres: binaries })
    }

    /// Where each service answers.
    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// The variables that the service tests read.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AZORA_TEST_DATABASE_URL", self.urls.postgres.clone()),
            ("AZORA_TEST_REDIS_URL", self.urls.redis.clone()),
            ("AZORA_TEST_MONGO_URL", self.urls.mongo.clone()),
            // A test that lets stores fail has stores of its own, in this folder.
            ("AZORA_TEST_FOLDER", self.running.folder().display().to_string()),
            ("AZORA_TEST_POSTGRES_BINARIES", self.postgres.display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Runs a command beside the services; an interruption of this program ends it before them.
    pub fn run(&self, command: &Command) -> Result<ExitStatus> {
        self.add(command)?;
        self.running.wait_for_last()
    }

    /// Starts a command beside the services, to be stopped before them.
    pub fn add(&self, command: &Command) -> Result<()> {
        self.running.add(Process::foreground(command)?);
        Ok(())
    }

    /// Waits until what is called `name` answers. The end of anything that runs here is an error at once.
    pub fn until(&self, name: &str, answers: impl Fn() -> bool) -> Result<()> {
        self.running.until(name, answers)
    }

    /// Waits for an interruption. Returns only when a server ended by itself, which is an error.
    pub fn wait(&self) -> Result<()> {
        self.running.wait()
    }
}

/// The three ports, checked to be free.
fn choose(ports: Ports) -> Result<[u16; 3]> {
    let [postgres, redis, mongo] = match ports {
        Ports::Fixed => [15432, 16379, 17017],
        Ports::Free => [0, 0, 0],
    };
    // All are held until all are chosen, so that no port comes twice.
    let held = [hold("Postgres", postgres)?, hold("Redis", redis)?, hold("mongod", mongo)?];
    Ok(held.map(|(port, _listener)| port))
}

fn hold(name: &str, port: u16) -> Result<(u16, TcpListener)> {
    let listener = ports::hold(([127, 0, 0, 1], port).into(), name, "pass --free for other ports")?;
    let port = listener.local_addr().context("read the port that was given")?.port();
    Ok((port, listener))
}
