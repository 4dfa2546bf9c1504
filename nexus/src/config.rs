//! What Nexus is told by its environment, read once at start. Nothing else reads the environment.

use std::fmt;
use std::net::SocketAddr;

use clap::Args;

pub mod consumers;
pub mod webhooks;

pub use consumers::ConsumersConfig;
pub use webhooks::WebhooksConfig;

/// Fewest events that retention may leave: a client that was away for a short time must find its place.
pub const RETENTION_EVENTS_FLOOR: i64 = 1_000;

/// A value that must never be printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[secret]")
    }
}

/// The settings of `nexus serve`.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Address to serve on.
    #[arg(long, env = "NEXUS_LISTEN", default_value = "0.0.0.0:4001")]
    pub listen: SocketAddr,
    /// Address at which other pods reach this one, such as `10.0.0.7:4001`. Without it a client that polls has to reach
    /// the same pod with every request.
    #[arg(long, env = "NEXUS_ADVERTISE")]
    pub advertise: Option<String>,
    /// Where the records and the log are.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Redis: the shared cache and the wake-ups between pods.
    #[arg(long, env = "NEXUS_REDIS_URL", hide_env_values = true, value_parser = secret)]
    pub redis_url: Secret,
    /// Start of every Redis key and channel, so that several data layers or tests can share one Redis.
    #[arg(long, env = "NEXUS_REDIS_PREFIX", default_value = "nexus:")]
    pub redis_prefix: String,
    /// `MongoDB` with the database in the path: documents that follow the log.
    #[arg(long, env = "NEXUS_MONGO_URL", hide_env_values = true, value_parser = secret)]
    pub mongo_url: Secret,
    /// How tokens are verified.
    #[command(flatten)]
    pub auth: AuthConfig,
    /// Bounds on requests, history and shutdown.
    #[command(flatten)]
    pub limits: Limits,
    /// Bounds on real-time connections.
    #[command(flatten)]
    pub stream: StreamConfig,
    /// Bounds on durable consumers.
    #[command(flatten)]
    pub consumers: ConsumersConfig,
    /// Bounds on webhooks, and where they may deliver to.
    #[command(flatten)]
    pub webhooks: WebhooksConfig,
    /// Browser origins that may call Nexus, separated by commas; empty means none.
    #[arg(long, env = "NEXUS_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub allowed_origins: Vec<String>,
}

/// Where the records and the log are.
#[derive(Args, Clone, Debug)]
pub struct DatabaseConfig {
    /// `PostgreSQL` primary.
    #[arg(id = "database_url", long = "database-url", env = "NEXUS_DATABASE_URL", hide_env_values = true, value_parser = secret)]
    pub url: Secret,
    /// Schema that holds every table; `nexus migrate` creates it.
    #[arg(id = "database_schema", long = "database-schema", env = "NEXUS_DATABASE_SCHEMA", default_value = "nexus", value_parser = schema)]
    pub schema: String,
    /// Most connections of this pod's pool. Two more are held for the sequencer and the listener.
    #[arg(
        id = "database_connections_max",
        long = "database-connections-max",
        env = "NEXUS_DATABASE_CONNECTIONS_MAX",
        default_value_t = 16
    )]
    pub connections_max: u32,
}

/// How tokens are verified: by a shared key in development, by the issuer's published keys otherwise.
#[derive(Args, Clone, Debug)]
#[group(id = "auth")]
pub struct AuthConfig {
    /// Shared HS256 key of at least 32 bytes; development only.
    #[arg(long = "auth-hs256-key", env = "NEXUS_AUTH_HS256_KEY", hide_env_values = true, value_parser = secret)]
    pub hs256_key: Option<Secret>,
    /// Address of the issuer's JSON Web Key Set.
    #[arg(long = "auth-jwks-url", env = "NEXUS_AUTH_JWKS_URL")]
    pub jwks_url: Option<String>,
    /// Required `iss` claim.
    #[arg(long = "auth-issuer", env = "NEXUS_AUTH_ISSUER")]
    pub issuer: Option<String>,
    /// Required `aud` claim.
    #[arg(long = "auth-audience", env = "NEXUS_AUTH_AUDIENCE")]
    pub audience: Option<String>,
}

/// Bounds on requests, history and shutdown.
#[derive(Args, Clone, Debug)]
pub struct Limits {
    /// Events that the log keeps at least; never below 1,000.
    #[arg(long, env = "NEXUS_RETENTION_EVENTS_MIN", default_value_t = 100_000, value_parser = clap::value_parser!(i64).range(RETENTION_EVENTS_FLOOR..))]
    pub retention_events_min: i64,
    /// Largest request body, in bytes.
    #[arg(long, env = "NEXUS_BODY_BYTES_MAX", default_value_t = 1024 * 1024)]
    pub body_bytes_max: usize,
    /// Largest WebSocket message that a client may send, in bytes, all of its frames together.
    #[arg(long, env = "NEXUS_FRAME_BYTES_MAX", default_value_t = 64 * 1024)]
    pub frame_bytes_max: usize,
    /// Time that clients have to leave after SIGTERM, in seconds.
    #[arg(long, env = "NEXUS_DRAIN_SECONDS", default_value_t = 10)]
    pub drain_seconds: u64,
}

/// Bounds on real-time connections.
#[derive(Args, Clone, Debug)]
#[group(id = "stream")]
pub struct StreamConfig {
    /// Time between two pings of a connection, in seconds; a client that is silent for two of them is closed.
    /// Proxies cut connections that are idle for 30 to 60 s.
    #[arg(long = "stream-heartbeat-seconds", env = "NEXUS_STREAM_HEARTBEAT_SECONDS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..))]
    pub heartbeat_seconds: u64,
    /// How long a client may stay unauthenticated, in seconds. It has its token before it connects, so this covers
    /// the network only.
    #[arg(long = "stream-authentication-seconds", env = "NEXUS_STREAM_AUTHENTICATION_SECONDS", default_value_t = 10)]
    pub authentication_seconds: u64,
    /// How long a client may take nothing of what is sent, in seconds. Longer than the pause of a mobile network; what
    /// it misses is in the log.
    #[arg(long = "stream-send-seconds", env = "NEXUS_STREAM_SEND_SECONDS", default_value_t = 30)]
    pub send_seconds: u64,
    /// Connections that this pod may hold; each costs some 5 KiB at rest.
    #[arg(long = "stream-connections-max", env = "NEXUS_STREAM_CONNECTIONS_MAX", default_value_t = 10_000)]
    pub connections_max: usize,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that clap asks of a parser")]
fn secret(value: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::from(value))
}

/// A schema name is put into statements as it stands, so only a plain lower-case identifier is let in.
fn schema(name: &str) -> Result<String, String> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let starts_with_letter = name.starts_with(|first: char| first.is_ascii_lowercase());
    // Names of partitions and channels are made from it and must fit Postgres' 63 bytes.
    if plain && starts_with_letter && name.len() <= 40 {
        Ok(name.to_owned())
    } else {
        Err("a schema is at most 40 lower-case letters, digits and underscores, a letter first".to_owned())
    }
}
