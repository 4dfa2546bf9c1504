//! A data layer of its own for each test, and instances of Nexus on it.

use std::net::SocketAddr;

use clap::Parser;
use nexus::config::Config;
use nexus::events::Registry;
use nexus::logging::LogFormat;
use nexus::serve::Nexus;
use nexus::store::postgres::migrate;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use super::client::{Client, HS256_KEY};
use super::receiver::allow_loopback;
use super::until;

/// One data layer: a migrated schema, a Redis prefix, a Mongo database.
pub(crate) struct World {
    /// Looks into the schema past Nexus.
    pub(crate) postgres: PgPool,
    /// The settings of an instance, to be changed before it is started.
    pub(crate) config: Config,
}

/// A running Nexus.
pub(crate) struct Instance {
    pub(crate) nexus: Nexus,
    /// May do everything.
    pub(crate) client: Client,
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    config: Config,
}

fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run the tests through `cargo xtask services`"))
}

impl World {
    /// A new, migrated and empty data layer.
    pub(crate) async fn new() -> Self {
        let filter = std::env::var("NEXUS_LOG").unwrap_or_else(|_| "off".to_owned());
        // Another test of this process may have done it.
        nexus::logging::start(&filter, LogFormat::Text).expect("NEXUS_LOG is a filter");
        let name = format!("test_{}", Uuid::new_v4().simple());
        let postgres_url = environment("AZORA_TEST_DATABASE_URL");
        let mongo_url = mongo_database(&environment("AZORA_TEST_MONGO_URL"), &name);
        let config = Settings::parse_from([
            "nexus",
            "--listen=127.0.0.1:0",
            &format!("--database-url={postgres_url}"),
            &format!("--database-schema={name}"),
            "--database-connections-max=8",
            &format!("--redis-url={}", environment("AZORA_TEST_REDIS_URL")),
            &format!("--redis-prefix={name}:"),
            &format!("--mongo-url={mongo_url}"),
            &format!("--auth-hs256-key={HS256_KEY}"),
            "--drain-seconds=0",
        ])
        .config;
        migrate(&config.database, &Registry::built_in()).await.expect("the migrations apply");
        let options: PgConnectOptions = postgres_url.parse().expect("the URL is one of Postgres");
        let options = options.options([("search_path", name.as_str())]);
        let postgres = PgPoolOptions::new().max_connections(3).connect_lazy_with(options);
        Self { postgres, config }
    }

    /// An instance that is ready.
    pub(crate) async fn nexus(&self) -> Instance {
        self.nexus_with(|_| {}).await
    }

    /// An instance with other settings, ready.
    pub(crate) async fn nexus_with(&self, change: impl FnOnce(&mut Config)) -> Instance {
        self.unready_nexus_with(change).await.ready().await
    }

    /// An instance that has these event types, ready.
    pub(crate) async fn nexus_of(&self, registry: Registry) -> Instance {
        migrate(&self.config.database, &registry).await.expect("the types are registered");
        let mut config = self.config.clone();
        allow_loopback(&mut config);
        let nexus = Nexus::start_with(config, registry).await.expect("the settings are right");
        Instance::of(nexus).ready().await
    }

    /// An instance that other ones are told of, with short heartbeats, ready.
    pub(crate) async fn pod(&self) -> Instance {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let change = |config: &mut Config| {
            config.listen = address;
            config.advertise = Some(address.to_string());
            config.stream.heartbeat_seconds = 1;
        };
        self.nexus_with(change).await
    }

    /// An instance that listens and may not be ready.
    pub(crate) async fn unready_nexus_with(&self, change: impl FnOnce(&mut Config)) -> Instance {
        let mut config = self.config.clone();
        change(&mut config);
        let nexus = Nexus::start(config).await.expect("the settings are right");
        Instance::of(nexus)
    }

    /// Sequence numbers and outbox numbers of the log, in order.
    pub(crate) async fn log(&self) -> Vec<(i64, i64)> {
        sqlx::query_as("SELECT seq, outbox_id FROM log ORDER BY seq").fetch_all(&self.postgres).await.expect("read")
    }
}

/// A port of this machine that nobody listens on. Below those that others are given, so that nobody takes it in between.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..30_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Instance {
    fn of(nexus: Nexus) -> Self {
        let client = Client::new(nexus.address(), "admin");
        Self { nexus, client }
    }

    async fn ready(self) -> Self {
        until("the instance to be ready", async || (self.client.get("/readyz").await.status == 200).then_some(()))
            .await;
        self
    }
}

/// Puts the database into the path of the URL.
fn mongo_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    format!("{}/{name}{query}", base.trim_end_matches('/'))
}
