//! Wake-ups between writers, the sequencer and the tails of all pods.
//! A wake-up carries no data: losing one costs latency until the next period, never an event.
//!
//! Redis carries them. The sequencer notifies through Postgres as well, but a pod listens there only from a wake-up that
//! it missed until Redis brings one again: a listener costs the database a signal and a message per batch.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sqlx::PgPool;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::metrics::{Metrics, WakeUp};
use crate::store::redis::Connection;

/// Pause before a lost subscription is tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// A subscription that was silent for so long is asked whether its server is still there.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Wake-ups of one pod; cheap to clone.
#[derive(Clone, Debug)]
pub struct Wake {
    signals: Arc<Signals>,
    /// Name of the Postgres channel and, behind the Redis prefix, of the Redis channels.
    channel: Arc<str>,
    redis_prefix: Arc<str>,
    metrics: Metrics,
}

/// `Notify` keeps at most one permit, so any number of wake-ups becomes one look at the state.
#[derive(Debug, Default)]
struct Signals {
    outbox: Notify,
    log: Notify,
    outbox_elsewhere: Notify,
    log_elsewhere: Notify,
    leading: watch::Sender<bool>,
    /// Whether a wake-up from Redis was missed and none has come since.
    missed: watch::Sender<bool>,
}

impl Wake {
    /// Wake-ups of the data layer that uses this schema and this Redis prefix.
    pub fn new(schema: &str, redis_prefix: &str, metrics: Metrics) -> Self {
        let (channel, redis_prefix) = (format!("{schema}_log").into(), redis_prefix.into());
        Self { signals: Arc::default(), channel, redis_prefix, metrics }
    }

    /// A transaction with an event was committed: the sequencer has work, wherever it leads.
    pub fn outbox_grew(&self) {
        self.signals.outbox.notify_one();
        if !self.is_leading() {
            self.signals.outbox_elsewhere.notify_one();
        }
    }

    /// A batch was stamped here: every other pod's tail has something to read.
    pub(super) fn log_grew(&self) {
        self.signals.log_elsewhere.notify_one();
    }

    /// Another pod's sequencer has stamped a batch; this pod's own hands its batches over.
    fn log_grew_elsewhere(&self, by: &'static str) {
        if !self.is_leading() {
            self.signals.log.notify_one();
            self.metrics.wake_ups.get_or_create(&WakeUp { by }).inc();
        }
    }

    /// The log had grown and nobody had told this pod.
    pub(super) fn log_had_grown(&self) {
        self.metrics.wake_ups.get_or_create(&WakeUp { by: "nobody" }).inc();
        self.set_missed(true);
    }

    fn set_missed(&self, missed: bool) {
        self.signals.missed.send_if_modified(|was| mem::replace(was, missed) != missed);
    }

    /// This pod's tail is behind.
    pub(super) fn read_log(&self) {
        self.signals.log.notify_one();
    }

    /// The Postgres channel that the sequencer notifies in the stamping transaction.
    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    /// Whether this pod's sequencer leads.
    pub fn is_leading(&self) -> bool {
        *self.signals.leading.borrow()
    }

    /// Tells when the lead is won or lost.
    pub(super) fn leading(&self) -> watch::Receiver<bool> {
        self.signals.leading.subscribe()
    }

    pub(super) fn set_leading(&self, leading: bool) {
        self.signals.leading.send_replace(leading);
    }

    /// Waits for work in the outbox, at most for `period`.
    pub(super) async fn outbox(&self, period: Duration) {
        let _ = timeout(period, self.signals.outbox.notified()).await;
    }

    /// Waits for a stamped batch, at most for `period`; whether there was a wake-up.
    pub(super) async fn log(&self, period: Duration) -> bool {
        timeout(period, self.signals.log.notified()).await.is_ok()
    }

    fn outbox_channel(&self) -> String {
        format!("{}wake:outbox", self.redis_prefix)
    }

    fn log_channel(&self) -> String {
        format!("{}wake:log", self.redis_prefix)
    }

    /// Carries wake-ups to the other pods through Redis, one publish for all that came meanwhile.
    pub(crate) async fn send_to_other_pods(self, mut redis: Connection, shutdown: CancellationToken) {
        let (outbox, log) = (self.outbox_channel(), self.log_channel());
        loop {
            let channel = tokio::select! {
                () = self.signals.outbox_elsewhere.notified() => &outbox,
                () = self.signals.log_elsewhere.notified() => &log,
                () = shutdown.cancelled() => return,
            };
            let sent: redis::RedisResult<()> = redis::cmd("PUBLISH").arg(channel).arg("").query_async(&mut redis).await;
            if let Err(error) = sent {
                tracing::debug!(error = %Chain(&error), "a wake-up was not sent through Redis");
            }
        }
    }

    /// Receives the wake-ups of the other pods from Redis.
    pub(crate) async fn receive_from_redis(self, client: redis::Client, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let lost = tokio::select! {
                lost = self.follow_redis(&client) => lost,
                () = shutdown.cancelled() => return,
            };
            self.set_missed(true);
            if let Err(error) = lost {
                tracing::debug!(error = %Chain(&error), "the wake-ups from Redis are away");
            }
            pause(&shutdown).await;
        }
    }

    async fn follow_redis(&self, client: &redis::Client) -> redis::RedisResult<()> {
        let (outbox, log) = (self.outbox_channel(), self.log_channel());
        let subscribe = async {
            let mut subscription = client.get_async_pubsub().await?;
            subscription.subscribe(&[&outbox, &log]).await?;
            Ok(subscription)
        };
        let (mut sink, mut messages) = answered(subscribe).await?.split();
        loop {
            match timeout(SILENCE_MAX, messages.next()).await {
                Ok(Some(message)) if message.get_channel_name() == outbox => self.signals.outbox.notify_one(),
                Ok(Some(_)) => {
                    self.log_grew_elsewhere("redis");
                    self.set_missed(false);
                }
                Ok(None) => return Ok(()),
                Err(_) => answered(sink.ping()).await?,
            }
        }
    }

    /// Receives the notification that the sequencer sends with each stamped batch, while Redis does not bring them.
    pub(crate) async fn receive_from_postgres(self, pool: PgPool, shutdown: CancellationToken) {
        let (mut missed, mut leading) = (self.signals.missed.subscribe(), self.leading());
        while !shutdown.is_cancelled() {
            let needed = *missed.borrow_and_update() && !*leading.borrow_and_update();
            tokio::select! {
                lost = self.follow_postgres(&pool), if needed => {
                    if let Err(error) = lost {
                        tracing::debug!(error = %Chain(&error), "the wake-ups from Postgres are away");
                    }
                    pause(&shutdown).await;
                }
                _ = missed.changed() => {}
                _ = leading.changed() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn follow_postgres(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        // A pool of its own for each attempt: a listener whose server vanished never gives its connection back.
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(SILENCE_MAX);
        let own = own.connect_lazy_with(pool.connect_options().as_ref().clone());
        let mut listener = PgListener::connect_with(&own).await?;
        listener.listen(&self.channel).await?;
        // What was stamped before this subscription stood is read now.
        self.read_log();
        loop {
            match timeout(SILENCE_MAX, listener.try_recv()).await {
                Ok(Ok(Some(_))) => self.log_grew_elsewhere("postgres"),
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => still_there(&mut listener).await?,
            }
        }
    }
}

async fn still_there(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    let asked = timeout(RETRY_PERIOD, sqlx::query("SELECT 1").execute(listener)).await;
    asked.unwrap_or(Err(sqlx::Error::WorkerCrashed)).map(|_| ())
}

/// What Redis answers, unless it takes too long.
async fn answered<T>(answer: impl Future<Output = redis::RedisResult<T>>) -> redis::RedisResult<T> {
    let late = |_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    timeout(RETRY_PERIOD, answer).await.unwrap_or_else(late)
}

async fn pause(shutdown: &CancellationToken) {
    let _ = timeout(RETRY_PERIOD, shutdown.cancelled()).await;
}
