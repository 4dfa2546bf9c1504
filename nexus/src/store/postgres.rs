//! Postgres: the pool, its deadlines, and the migrations.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};

use super::migrations;
use crate::config::DatabaseConfig;
use crate::events::Registry;
use crate::log::sql;

/// How long a request waits for a connection: shorter than a client's patience, longer than a failover's hiccup.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections are renewed, so that load spreads again after a failover.
const CONNECTION_LIFETIME_MAX: Duration = Duration::from_mins(15);
/// A connection that slept longer than this is tried before it is used.
const IDLE_TRUSTED: Duration = Duration::from_millis(500);

/// No read takes this long unless the connection is dead: just longer than the server's own bound on a statement.
const READ_DEADLINE: Duration = Duration::from_secs(6);
/// How long a connection that is taken or given back may take to answer. One whose server vanished without a word
/// would otherwise keep its place in the pool until the kernel gives up, after a quarter of an hour.
const PING_TIMEOUT: Duration = Duration::from_millis(800);

/// Why the database could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareDatabase {
    /// The URL is not one of Postgres.
    #[error("read the database URL")]
    ReadUrl(#[source] sqlx::Error),
    /// The database could not be reached.
    #[error("connect to the database")]
    ConnectDatabase(#[source] sqlx::Error),
    /// The schema could not be made.
    #[error("create the database schema")]
    CreateSchema(#[source] sqlx::Error),
    /// A migration failed; those before it stand.
    #[error("apply the migrations")]
    ApplyMigrations(#[source] sqlx::migrate::MigrateError),
    /// The event types could not be written down for SQL writers.
    #[error("register the event types")]
    RegisterTypes(#[source] sqlx::Error),
}

/// How every connection is opened: our schema first, and deadlines that the server keeps by itself.
pub fn connect_options(config: &DatabaseConfig) -> Result<PgConnectOptions, PrepareDatabase> {
    let options: PgConnectOptions = config.url.expose().parse().map_err(PrepareDatabase::ReadUrl)?;
    Ok(options
        .application_name("nexus")
        .options([
            ("search_path", config.schema.as_str()),
            ("statement_timeout", "5s"),
            ("lock_timeout", "3s"),
            ("idle_in_transaction_session_timeout", "10s"),
            // Tables that were not analysed yet look large to the planner, and compiling takes longer than any of our
            // statements: three tenths of a second for the sequencer's, at each execution.
            ("jit", "off"),
            // A pod that vanished with its node gives up its locks within seconds.
            ("tcp_keepalives_idle", "5"),
            ("tcp_keepalives_interval", "2"),
            ("tcp_keepalives_count", "3"),
        ])
        .disable_statement_logging())
}

/// The pool; it connects when it is first used.
pub fn pool(config: &DatabaseConfig) -> Result<PgPool, PrepareDatabase> {
    let pool = PgPoolOptions::new()
        .max_connections(config.connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(CONNECTION_LIFETIME_MAX)
        .test_before_acquire(false)
        .before_acquire(|connection, idle| {
            Box::pin(async move {
                if idle.idle_for < IDLE_TRUSTED {
                    return Ok(true);
                }
                is_primary(connection).await
            })
        })
        .after_release(|connection, _| Box::pin(answers(connection)));
    Ok(pool.connect_lazy_with(connect_options(config)?))
}

/// Bounds a read that nobody else bounds: a connection that leads nowhere would be held for ever.
pub async fn in_time<T>(read: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = |_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(READ_DEADLINE, read).await.unwrap_or_else(late)
}

/// A demoted primary still answers: a connection to one is closed, so that the next goes to the new primary.
async fn is_primary(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let asked = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(connection);
    let in_recovery: bool =
        tokio::time::timeout(PING_TIMEOUT, asked).await.unwrap_or(Err(sqlx::Error::WorkerCrashed))?;
    Ok(!in_recovery)
}

/// Also waits for what a caller left unfinished, such as the roll-back of a dropped transaction.
async fn answers(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    tokio::time::timeout(PING_TIMEOUT, connection.ping())
        .await
        .unwrap_or(Err(sqlx::Error::WorkerCrashed))
        .map(|()| true)
}

/// Brings the schema to this build's version, and tells it the event types. Safe to run by several pods at once.
pub async fn migrate(config: &DatabaseConfig, registry: &Registry) -> Result<(), PrepareDatabase> {
    // A migration may rightly take longer than a request.
    let options = connect_options(config)?.options([("statement_timeout", "10min"), ("lock_timeout", "30s")]);
    let mut connection = PgConnection::connect_with(&options).await.map_err(PrepareDatabase::ConnectDatabase)?;
    // The schema is a plain identifier, see `config`. Looked for first: creating needs a right that using does not.
    let exists: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(&config.schema)
        .fetch_one(&mut connection)
        .await
        .map_err(PrepareDatabase::CreateSchema)?;
    if !exists {
        let create = format!("CREATE SCHEMA IF NOT EXISTS {}", config.schema);
        sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await.map_err(PrepareDatabase::CreateSchema)?;
    }
    migrations::migrator().run(&mut connection).await.map_err(PrepareDatabase::ApplyMigrations)?;
    sql::register_types(&mut connection, registry).await.map_err(PrepareDatabase::RegisterTypes)?;
    connection.close().await.map_err(PrepareDatabase::ConnectDatabase)
}
