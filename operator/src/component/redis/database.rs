//! What only Redis itself can say: one write and one read through its Service.

use crate::answer::{Answer, Working, brief, within};
use crate::credentials::{Credentials, REDIS_PASSWORD};
use crate::layer::Layer;
use crate::names::{self, Component, REDIS_PORT};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo, RedisError};
use std::convert::Infallible;

/// The key of the probe; it goes by itself when the operator does.
const KEY: &str = "azora:operator:probe";

/// Asks as the application does.
pub async fn observe(layer: &Layer, credentials: &Credentials) -> Answer<Infallible> {
    match within(probe(layer, credentials)).await {
        Ok(version) => Answer::Works(Working { version, primary: String::new() }),
        Err(cause) => Answer::Unreachable { cause: brief(&cause) },
    }
}

async fn probe(layer: &Layer, credentials: &Credentials) -> Result<String, RedisError> {
    let host = names::host(layer, &names::of(layer, Component::Redis));
    let port = REDIS_PORT.unsigned_abs().try_into().unwrap_or(6379);
    let login = RedisConnectionInfo::default().set_password(credentials.get(REDIS_PASSWORD));
    let info: ConnectionInfo = ConnectionAddr::Tcp(host, port).into_connection_info()?.set_redis_settings(login);
    let mut connection = redis::Client::open(info)?.get_multiplexed_async_connection().await?;
    // Redis' own clock tells this write from the last one.
    let (seconds, microseconds): (u64, u64) = redis::cmd("TIME").query_async(&mut connection).await?;
    let written = format!("{seconds}.{microseconds:06}");
    let write = redis::cmd("SET").arg(KEY).arg(&written).arg("EX").arg(300).to_owned();
    let () = write.query_async(&mut connection).await?;
    let read: Option<String> = redis::cmd("GET").arg(KEY).query_async(&mut connection).await?;
    if read.as_ref() != Some(&written) {
        return Err(RedisError::from((redis::ErrorKind::Client, "a read did not see the write before it")));
    }
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    Ok(version.unwrap_or_default().trim().to_owned())
}
