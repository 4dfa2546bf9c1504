//! Redis: a connection that comes back by itself, with deadlines so short that its absence costs little.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use crate::config::Secret;

/// Redis is a help and not the truth: a read that takes longer than this is better made from the database.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a new connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Why the client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareRedis {
    /// The URL is not one of Redis.
    #[error("read the Redis URL")]
    ReadUrl(#[source] redis::RedisError),
}

/// The client, for subscriptions of their own.
pub fn client(url: &Secret) -> Result<redis::Client, PrepareRedis> {
    redis::Client::open(url.expose()).map_err(PrepareRedis::ReadUrl)
}

/// The connection that all requests share; it connects when it is first used.
pub fn connection(client: &redis::Client) -> Result<ConnectionManager, PrepareRedis> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(PrepareRedis::ReadUrl)
}
