//! What handlers, connections and followers share.

use std::ops::Deref;
use std::sync::Arc;

use mongodb::Database;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Verifier;
use crate::config::Config;
use crate::events::Registry;
use crate::log::{Publisher, Tail, Wake};
use crate::metrics::Metrics;
use crate::realtime::{Hub, Presence, Sessions};
use crate::store::redis::Connection;
use crate::sync::Cache;
use crate::sync::documents::Profiles;
use crate::throttle::Throttle;
use crate::traces::Traces;
use crate::unfinished::Unfinished;
use crate::webhooks::Receivers;

/// What handlers, connections and followers share; a pointer to it, for each connection holds one.
#[derive(Clone, Debug)]
pub struct AppState(Arc<Shared>);

impl AppState {
    /// What is to be shared from now on.
    pub fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The parts. Each is cheap to clone.
#[derive(Debug)]
pub struct Shared {
    /// The settings.
    pub config: Config,
    /// The name of this pod.
    pub pod: Box<str>,
    /// The records and the log.
    pub postgres: PgPool,
    /// The shared cache.
    pub redis: Connection,
    /// Documents that follow the log.
    pub mongo: Database,
    /// This pod's view of the end of the log.
    pub tail: Tail,
    /// Records, read through the caches.
    pub cache: Cache,
    /// The profiles in `MongoDB`.
    pub profiles: Profiles,
    /// Wake-ups of the sequencer and the tails.
    pub wake: Wake,
    /// The live connections.
    pub hub: Hub,
    /// Who is in which room.
    pub presence: Presence,
    /// How often callers may ask.
    pub throttle: Throttle,
    /// Memory for what clients have begun to send.
    pub unfinished: Unfinished,
    /// The Socket.IO sessions of this pod whose clients poll.
    pub sessions: Sessions,
    /// Calls other pods.
    pub peers: reqwest::Client,
    /// Calls webhooks.
    pub receivers: Receivers,
    /// The way into the log for events that belong to no other write.
    pub publisher: Publisher,
    /// The event types.
    pub registry: Arc<Registry>,
    /// Verifies tokens.
    pub verifier: Verifier,
    /// What is counted.
    pub metrics: Metrics,
    /// What is traced.
    pub traces: Traces,
    /// Cancelled when the pod is asked to leave: readiness is off, sockets tell their clients when to come back.
    /// Requests are still served.
    pub draining: CancellationToken,
    /// Cancelled when the drain is over: followers and other background tasks end.
    pub stopping: CancellationToken,
    /// Tasks that are waited for at the end. Each of them ends by itself soon after `stopping`.
    pub tasks: TaskTracker,
}
