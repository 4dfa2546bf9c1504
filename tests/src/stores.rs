//! Clients of the three databases, from outside the cluster, with or without the credentials of the binding.
//! Must never use what the binding does not say, but the address: that is a node port of the test.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use mongodb::options::{AuthMechanism, ClientOptions, Credential, ServerAddress};
use redis::aio::MultiplexedConnection;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};

/// A database that does not answer by then is counted as unreachable, not as refusing.
const ANSWER: Duration = Duration::from_secs(10);

/// Who connects.
#[derive(Clone, Copy, Debug)]
pub enum Identity<'binding> {
    /// The application, as the binding Secret describes it.
    Application(&'binding BTreeMap<String, String>),
    /// The application's user name with a password that is wrong.
    WrongPassword(&'binding BTreeMap<String, String>),
    /// Nobody: no credentials at all.
    Nobody,
}

impl Identity<'_> {
    /// User and password for one store, from keys such as `postgres.username`.
    fn credentials(self, store: &str) -> anyhow::Result<Option<(String, String)>> {
        let (binding, wrong) = match self {
            Self::Application(binding) => (binding, false),
            Self::WrongPassword(binding) => (binding, true),
            Self::Nobody => return Ok(None),
        };
        let user = field(binding, &format!("{store}.username"))?;
        let password = field(binding, &format!("{store}.password"))?;
        Ok(Some((user, if wrong { format!("{password}-not") } else { password })))
    }
}

/// One value of the binding Secret.
pub fn field(binding: &BTreeMap<String, String>, key: &str) -> anyhow::Result<String> {
    binding.get(key).cloned().with_context(|| format!("the binding has no {key}"))
}

/// Opens a connection to Postgres' database `azora`.
pub async fn postgres(address: SocketAddr, identity: Identity<'_>) -> anyhow::Result<PgConnection> {
    let mut options = PgConnectOptions::new_without_pgpass().host(&address.ip().to_string()).port(address.port());
    options = options.database("azora").username("nexus");
    if let Some((user, password)) = identity.credentials("postgres")? {
        options = options.username(&user).password(&password);
    }
    let connection = tokio::time::timeout(ANSWER, PgConnection::connect_with(&options)).await;
    Ok(connection.context("Postgres did not answer in time")??)
}

/// The application's database in Mongo. Connects when it is first used.
pub fn mongo(address: SocketAddr, identity: Identity<'_>) -> anyhow::Result<mongodb::Database> {
    let mut options = ClientOptions::default();
    options.hosts = vec![ServerAddress::Tcp { host: address.ip().to_string(), port: Some(address.port()) }];
    // The members' own names are known inside the cluster only.
    options.direct_connection = Some(true);
    options.server_selection_timeout = Some(ANSWER);
    if let Some((user, password)) = identity.credentials("mongo")? {
        let mut credential = Credential::default();
        credential.username = Some(user);
        credential.password = Some(password);
        credential.source = Some("azora".to_owned());
        credential.mechanism = Some(AuthMechanism::ScramSha256);
        options.credential = Some(credential);
    }
    let client = mongodb::Client::with_options(options).context("build a Mongo client")?;
    Ok(client.database("azora"))
}

/// Opens a connection to Redis.
pub async fn redis(address: SocketAddr, identity: Identity<'_>) -> anyhow::Result<MultiplexedConnection> {
    let url = match identity.credentials("redis")? {
        Some((user, password)) => format!("redis://{user}:{password}@{address}/"),
        None => format!("redis://{address}/"),
    };
    let client = redis::Client::open(url).context("build a Redis client")?;
    let connection = tokio::time::timeout(ANSWER, client.get_multiplexed_async_connection()).await;
    Ok(connection.context("Redis did not answer in time")??)
}
