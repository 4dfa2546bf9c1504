//! Redis: a connection that comes back by itself, with deadlines so short that its absence costs little.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, Pipeline, RedisFuture, Value};
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::config::Secret;

/// Redis is a help and not the truth: a read that takes longer than this is better made from the database.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a new connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How often Redis is asked whether it is there.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

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

/// The connection that all requests share; it connects when it is first used. Cheap to clone.
///
/// The manager inside connects anew when a connection ends. It keeps one whose server vanished without a word, and an
/// answer to its greeting such as that the password is wrong: `watch` replaces the manager then.
#[derive(Clone, Debug)]
pub struct Connection {
    client: redis::Client,
    manager: Arc<Mutex<ConnectionManager>>,
}

impl Connection {
    /// A connection of the client.
    pub fn new(client: &redis::Client) -> Result<Self, PrepareRedis> {
        let manager = manager(client).map_err(PrepareRedis::ReadUrl)?;
        Ok(Self { client: client.clone(), manager: Arc::new(Mutex::new(manager)) })
    }

    /// Asks Redis whether it is there, until shutdown. One that does not answer is called on a new connection.
    pub(crate) async fn watch(self, shutdown: CancellationToken) {
        let mut period = tokio::time::interval(WATCH_PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut answered = true;
        loop {
            tokio::select! {
                _ = period.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let asked = redis::cmd("PING").exec_async(&mut self.manager()).await;
            match (mem::replace(&mut answered, asked.is_ok()), &asked) {
                (true, Err(error)) => tracing::warn!(error = %Chain(error), "Redis does not answer"),
                (false, Ok(())) => tracing::info!("Redis answers again"),
                _ => {}
            }
            if asked.is_err()
                && let Ok(new) = manager(&self.client)
            {
                *self.manager.lock().unwrap_or_else(PoisonError::into_inner) = new;
                // It connects while somebody waits for it.
                let _ = redis::cmd("PING").exec_async(&mut self.manager()).await;
            }
        }
    }

    fn manager(&self) -> ConnectionManager {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let mut manager = self.manager();
        async move { manager.send_packed_command(command).await }.boxed()
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let mut manager = self.manager();
        async move { manager.send_packed_commands(commands, offset, count).await }.boxed()
    }

    fn get_db(&self) -> i64 {
        self.manager().get_db()
    }
}

fn manager(client: &redis::Client) -> redis::RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}
