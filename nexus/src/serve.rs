//! Puts the parts together, runs them, and takes them apart in order. A store that is away never stops the process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{PrepareVerifier, Verifier};
use crate::config::Config;
use crate::consumers::follow;
use crate::event_types::ReadEventTypes;
use crate::events::Registry;
use crate::http::{AppState, Shared, forward, server};
use crate::log::publisher::Groups;
use crate::log::sequencer::Sequencer;
use crate::log::{Publisher, Tail, Wake, retention, standing};
use crate::metrics::Metrics;
use crate::realtime::{Hub, Presence, Sessions};
use crate::store::{self, mongo::PrepareMongo, postgres::PrepareDatabase, redis::PrepareRedis};
use crate::sync::Cache;
use crate::sync::documents::{self, Profiles};
use crate::throttle::Throttle;
use crate::traces::{PrepareTraces, Traces};
use crate::unfinished::Unfinished;
use crate::webhooks::{Receivers, push};

/// How long requests and background tasks may take to end after the drain.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Why Nexus could not start. All of these are mended by a change of settings.
#[derive(Debug, thiserror::Error)]
pub enum StartNexus {
    /// The event types of the deployment cannot be used.
    #[error("read the event types of the deployment")]
    ReadEventTypes(#[source] ReadEventTypes),
    /// The settings of Postgres cannot be used.
    #[error("prepare Postgres")]
    PreparePostgres(#[source] PrepareDatabase),
    /// The settings of Redis cannot be used.
    #[error("prepare Redis")]
    PrepareRedis(#[source] PrepareRedis),
    /// The settings of MongoDB cannot be used.
    #[error("prepare MongoDB")]
    PrepareMongo(#[source] PrepareMongo),
    /// The settings of the verifier cannot be used.
    #[error("prepare the verifier of tokens")]
    PrepareVerifier(#[source] PrepareVerifier),
    /// Traces cannot be sent.
    #[error("prepare traces")]
    PrepareTraces(#[source] PrepareTraces),
    /// Other pods cannot be called.
    #[error("prepare the client for other pods")]
    PreparePeers(#[source] reqwest::Error),
    /// Webhooks cannot be called.
    #[error("prepare the client for webhooks")]
    PrepareReceivers(#[source] reqwest::Error),
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A running Nexus.
#[derive(Debug)]
pub struct Nexus {
    address: SocketAddr,
    state: AppState,
    closing: CancellationToken,
    server: JoinHandle<()>,
}

impl Nexus {
    /// Starts everything. Returns as soon as the address is listened on; readiness tells when requests can be served.
    pub async fn start(config: Config) -> Result<Self, StartNexus> {
        let registry = config.event_types.registry().map_err(StartNexus::ReadEventTypes)?;
        Self::start_with(config, registry).await
    }

    /// The same, with these event types.
    pub async fn start_with(config: Config, registry: Registry) -> Result<Self, StartNexus> {
        let parts = Parts::prepare(config, Arc::new(registry)).await?;
        let state = parts.state.clone();
        let listen = state.config.listen;
        let listener =
            TcpListener::bind(listen).await.map_err(|source| StartNexus::Listen { address: listen, source })?;
        let address = listener.local_addr().map_err(|source| StartNexus::Listen { address: listen, source })?;
        parts.run();
        let closing = CancellationToken::new();
        let server = tokio::spawn(server::serve(listener, state.clone(), closing.clone()));
        tracing::info!(server.address = %address, "Nexus listens");
        Ok(Self { address, state, closing, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What handlers and followers share.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// Leaves in order: readiness off and clients told, then no new connections, then the background tasks.
    pub async fn stop(self, drain: Duration) {
        self.state.draining.cancel();
        tracing::info!(drain_seconds = drain.as_secs(), "Nexus drains");
        tokio::time::sleep(drain).await;
        self.closing.cancel();
        let mut server = self.server;
        if tokio::time::timeout(STOP_DEADLINE, &mut server).await.is_err() {
            server.abort();
        }
        self.state.stopping.cancel();
        self.state.tasks.close();
        if tokio::time::timeout(STOP_DEADLINE, self.state.tasks.wait()).await.is_err() {
            tracing::warn!("background tasks did not end in time");
        }
        // Waits for connections that are in use; one whose server vanished is not waited for.
        let _ = tokio::time::timeout(STOP_DEADLINE, self.state.postgres.close()).await;
        self.state.traces.stop().await;
        tracing::info!("Nexus has stopped");
    }
}

/// Everything that is prepared before anything runs.
struct Parts {
    state: AppState,
    groups: Groups,
    sequencer: Sequencer,
    redis_client: redis::Client,
}

impl Parts {
    async fn prepare(config: Config, registry: Arc<Registry>) -> Result<Self, StartNexus> {
        let postgres = store::postgres::pool(&config.database).map_err(StartNexus::PreparePostgres)?;
        let connect = store::postgres::connect_options(&config.database).map_err(StartNexus::PreparePostgres)?;
        let redis_client = store::redis::client(&config.redis_url).map_err(StartNexus::PrepareRedis)?;
        let redis = store::redis::Connection::new(&redis_client).map_err(StartNexus::PrepareRedis)?;
        let mongo = store::mongo::database(&config.mongo_url).await.map_err(StartNexus::PrepareMongo)?;
        let verifier = Verifier::new(&config.auth).map_err(StartNexus::PrepareVerifier)?;
        let types = registry.definitions().iter().map(|definition| &*definition.event_type);
        let metrics = Metrics::new(&types.collect::<Vec<_>>());
        let wake = Wake::new(&config.database.schema, &config.redis_prefix, metrics.clone());
        let tail = Tail::new(postgres.clone(), Arc::clone(&registry), wake.clone());
        let cache = Cache::new(redis.clone(), &config.redis_prefix, metrics.sync.clone());
        let profiles = Profiles::new(mongo.clone());
        let presence = Presence::new(redis.clone(), &config.redis_prefix);
        let throttle = Throttle::new(redis.clone(), &config.redis_prefix);
        let (publisher, groups) = Publisher::new(postgres.clone(), tail.clone(), wake.clone(), metrics.clone());
        let partition_entries = retention::partition_entries(config.limits.retention_events_min);
        let sessions = Sessions::default();
        let pod: Box<str> = config.pod.as_deref().unwrap_or_else(|| sessions.pod()).into();
        let connect = connect.application_name(&standing::connection_name(&pod));
        let traces = Traces::start(&config.traces, &pod).map_err(StartNexus::PrepareTraces)?;
        let sequencer = Sequencer {
            connect,
            partition_entries,
            groups: groups.clone(),
            tail: tail.clone(),
            wake: wake.clone(),
            metrics: metrics.clone(),
            traces: traces.clone(),
        };
        let unfinished = Unfinished::new(config.limits.unfinished_bytes_max, &metrics);
        let receivers = Receivers::new(&config.webhooks).map_err(StartNexus::PrepareReceivers)?;
        let state = AppState::new(Shared {
            config,
            pod,
            postgres,
            redis,
            mongo,
            tail,
            cache,
            profiles,
            wake,
            hub: Hub::new(Arc::clone(&registry), traces.clone()),
            presence,
            throttle,
            unfinished,
            sessions,
            peers: forward::peers().map_err(StartNexus::PreparePeers)?,
            receivers,
            publisher,
            registry,
            verifier,
            metrics,
            traces,
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        Ok(Self { state, groups, sequencer, redis_client })
    }

    /// Starts the background tasks. A new follower adds its line here.
    fn run(self) {
        let Self { state, groups, sequencer, redis_client } = self;
        let stopping = || state.stopping.clone();
        let tasks = &state.tasks;
        tasks.spawn(state.tail.clone().run(stopping()));
        tasks.spawn(state.hub.clone().dispatch(state.tail.clone(), stopping()));
        tasks.spawn(state.hub.clone().drain_with(state.draining.clone()));
        tasks.spawn(state.presence.clone().run(stopping()));
        let revocations = state.verifier.revocations().clone();
        tasks.spawn(revocations.follow(state.postgres.clone(), state.hub.clone(), stopping()));
        if let Some(address) = &state.config.advertise {
            tasks.spawn(state.sessions.clone().announce(address.clone(), state.clone()));
        }
        tasks.spawn(groups.run(stopping()));
        tasks.spawn(sequencer.run(stopping()));
        tasks.spawn(state.redis.clone().watch(stopping()));
        tasks.spawn(state.wake.clone().send_to_other_pods(state.redis.clone(), stopping()));
        tasks.spawn(state.wake.clone().receive_from_redis(redis_client, stopping()));
        tasks.spawn(state.wake.clone().receive_from_postgres(state.postgres.clone(), stopping()));
        tasks.spawn(state.cache.clone().follow(state.tail.clone(), state.postgres.clone(), stopping()));
        let (profiles, sync_metrics) = (state.profiles.clone(), state.metrics.sync.clone());
        tasks.spawn(documents::follow(profiles, state.postgres.clone(), state.tail.clone(), sync_metrics, stopping()));
        let (pool, bounds) = (state.postgres.clone(), state.config.consumers.clone());
        tasks.spawn(follow::follow((pool, state.tail.clone()), bounds, state.metrics.deliveries.clone(), stopping()));
        tasks.spawn(push::run(state.clone()));
        let limits = &state.config.limits;
        let keep = retention::Keep { events_min: limits.retention_events_min, hours_max: limits.retention_hours_max };
        tasks.spawn(retention::run(state.postgres.clone(), state.tail.clone(), keep, stopping()));
    }
}
