//! What Nexus is told by its environment, read once at start. Nothing else reads the environment.

use std::fmt;
use std::net::SocketAddr;

use clap::Args;

use crate::event_types::EventTypes;

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
    /// Name of this pod, by which people know it from the others; made up when there is none. Kubernetes sets it.
    #[arg(long, env = "HOSTNAME")]
    pub pod: Option<String>,
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
    /// How often a caller may ask, and how many connections it may have.
    #[command(flatten)]
    pub throttle: ThrottleConfig,
    /// The event types that the deployment adds.
    #[command(flatten)]
    pub event_types: EventTypes,
    /// Bounds on durable consumers.
    #[command(flatten)]
    pub consumers: ConsumersConfig,
    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceConfig,
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
    /// Longest life of a token, from `iat` to `exp`, in seconds. Tokens that live longer, or do not say when they were
    /// issued, are refused then, and a revocation is forgotten when no token that it concerns can count any more.
    #[arg(long = "auth-token-seconds-max", env = "NEXUS_AUTH_TOKEN_SECONDS_MAX", value_parser = clap::value_parser!(u32).range(1..))]
    pub token_seconds_max: Option<u32>,
}

/// Bounds on requests, history and shutdown.
#[derive(Args, Clone, Debug)]
pub struct Limits {
    /// Events that the log keeps at least, unless they are too old; never below 1,000.
    #[arg(long, env = "NEXUS_RETENTION_EVENTS_MIN", default_value_t = 100_000, value_parser = clap::value_parser!(i64).range(RETENTION_EVENTS_FLOOR..))]
    pub retention_events_min: i64,
    /// Age after which events go although fewer than those are left, in hours; never the newest 1,000. Events that follow
    /// one another go together, so one may stay until it is a quarter and a minute older. By number alone when absent.
    #[arg(long, env = "NEXUS_RETENTION_HOURS_MAX", value_parser = clap::value_parser!(u32).range(1..))]
    pub retention_hours_max: Option<u32>,
    /// How long the head of a request may take, and how long a connection may be idle before the next one, in seconds.
    #[arg(long, env = "NEXUS_HEAD_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub head_seconds: u64,
    /// Largest request body, in bytes.
    #[arg(long, env = "NEXUS_BODY_BYTES_MAX", default_value_t = 1024 * 1024)]
    pub body_bytes_max: usize,
    /// Largest WebSocket message that a client may send, in bytes, all of its frames together.
    #[arg(long, env = "NEXUS_FRAME_BYTES_MAX", default_value_t = 64 * 1024)]
    pub frame_bytes_max: usize,
    /// Memory of this pod for what callers have begun to send and it has not worked off, in bytes; clients without a
    /// token have as much besides, and each connection 4 KiB. What is more is refused.
    #[arg(long, env = "NEXUS_UNFINISHED_BYTES_MAX", default_value_t = 32 * 1024 * 1024)]
    pub unfinished_bytes_max: usize,
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

/// How often a caller may ask, and how many connections it may have, over all pods. 0 is no bound. A person is a caller whose
/// scopes all end with `:own`; every other one is a service.
#[derive(Args, Clone, Debug)]
#[group(id = "throttle")]
pub struct ThrottleConfig {
    /// Requests and commands of one person a second; twice as many at once. A page makes a handful.
    #[arg(long = "person-requests-per-second", env = "NEXUS_PERSON_REQUESTS_PER_SECOND", default_value_t = 100)]
    pub person_requests_per_second: u32,
    /// Requests and commands of one service a second; twice as many at once.
    #[arg(long = "service-requests-per-second", env = "NEXUS_SERVICE_REQUESTS_PER_SECOND", default_value_t = 0)]
    pub service_requests_per_second: u32,
    /// Requests and commands from one address a second, with whatever token; twice as many at once. Behind one address
    /// there may be a whole office, or every client when a proxy is not named in `--proxies`.
    #[arg(long = "address-requests-per-second", env = "NEXUS_ADDRESS_REQUESTS_PER_SECOND", default_value_t = 0)]
    pub address_requests_per_second: u32,
    /// Commands on one connection a second; twice as many at once.
    #[arg(
        long = "connection-commands-per-second",
        env = "NEXUS_CONNECTION_COMMANDS_PER_SECOND",
        default_value_t = 1_000
    )]
    pub connection_commands_per_second: u32,
    /// Open connections of one person.
    #[arg(long = "person-connections-max", env = "NEXUS_PERSON_CONNECTIONS_MAX", default_value_t = 100)]
    pub person_connections_max: u32,
    /// Open connections from one address.
    #[arg(long = "address-connections-max", env = "NEXUS_ADDRESS_CONNECTIONS_MAX", default_value_t = 0)]
    pub address_connections_max: u32,
    /// Proxies before Nexus, each of which adds the address of its client to `X-Forwarded-For`. The client is as many places
    /// from its end; what stands before that anybody may have written.
    #[arg(long = "proxies", env = "NEXUS_PROXIES", default_value_t = 0)]
    pub proxies: u8,
}

/// Where traces go, and which. Names and meanings are those of OpenTelemetry.
#[derive(Args, Clone, Debug)]
#[group(id = "traces")]
pub struct TraceConfig {
    /// Address of a collector that takes OTLP over HTTP, such as `http://collector:4318`; without it nothing is traced.
    #[arg(id = "otlp_endpoint", long = "otlp-endpoint", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub endpoint: Option<String>,
    /// Which traces are kept. The parent-based ones do as the caller does who sends a `traceparent`.
    #[arg(
        id = "traces_sampler",
        long = "traces-sampler",
        env = "OTEL_TRACES_SAMPLER",
        value_enum,
        default_value = "parentbased_always_on"
    )]
    pub sampler: TraceSampler,
    /// Share of the traces that a ratio keeps, from 0 to 1.
    #[arg(
        id = "traces_sampler_arg",
        long = "traces-sampler-arg",
        env = "OTEL_TRACES_SAMPLER_ARG",
        default_value_t = 1.0,
        value_parser = share
    )]
    pub ratio: f64,
}

/// Which traces are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[clap(rename_all = "snake_case")]
pub enum TraceSampler {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// A share.
    Traceidratio,
    /// As the caller does; all that begin here.
    ParentbasedAlwaysOn,
    /// As the caller does; none that begins here.
    ParentbasedAlwaysOff,
    /// As the caller does; a share of those that begin here.
    ParentbasedTraceidratio,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share is a number from 0 to 1".to_owned())
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
