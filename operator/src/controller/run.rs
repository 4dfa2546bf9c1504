//! Starts the operator: endpoints, leader election, watches; ends it when it is told to, or when it no longer leads.

use super::visit::{Outcome, visit};
use super::{LEASE, next};
use crate::api::AzoraDataLayer;
use crate::context::Context;
use crate::endpoints::{self, Readiness};
use crate::error::Error;
use crate::lease::Election;
use crate::metrics::{Metrics, Outcome as Ending};
use crate::names::{FIELD_MANAGER, MANAGED_SELECTOR};
use crate::settings::Settings;
use anyhow::Context as _;
use futures::{Stream, StreamExt as _, TryStreamExt as _, future};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ObjectMeta, PartialObjectMeta};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Predicate as _, PredicateConfig, WatchStreamExt as _, predicates, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type LayerMeta = PartialObjectMeta<AzoraDataLayer>;

/// Changes of a layer's objects come in bursts; one visit answers them all.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Layers that are visited at once; each visit holds a few connections.
const CONCURRENCY: u16 = 8;

/// Runs the operator until `stop`. An error means that it could not start.
pub async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("cannot find the API server")?;
    let (readiness, metrics) = (Readiness::default(), Metrics::default());
    let listener = TcpListener::bind(settings.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", settings.listen))?;
    let finished = CancellationToken::new();
    let server = tokio::spawn(endpoints::serve(listener, readiness.clone(), metrics.clone(), finished.clone()));
    let outcome = lead(&settings, client, (readiness, metrics), stop).await;
    finished.cancel();
    server.await.context("the endpoints panicked")?.context("cannot serve the endpoints")?;
    outcome
}

/// Takes part in the election until `stop`, and works whenever it is won. Whoever loses the lead stands by again: a
/// process that ended instead would be restarted with an ever longer pause, while nobody works.
async fn lead(
    settings: &Settings,
    client: Client,
    (readiness, metrics): (Readiness, Metrics),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    client.apiserver_version().await.context("the API server does not answer")?;
    // A stand-by is ready as well: it is ready to take over.
    readiness.set(true);
    let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(settings.identity.clone()) };
    let ctx = Arc::new(Context {
        client: client.clone(),
        surroundings: settings.surroundings.clone(),
        metrics,
        recorder: Recorder::new(client.clone(), reporter),
        applied: crate::context::AppliedObjects::default(),
        failures: crate::context::Failures::default(),
        known: crate::context::Known::default(),
    });
    let leases = Api::namespaced(client, &settings.surroundings.operator_namespace);
    let mut election = Election::new(leases, LEASE, &settings.identity);
    loop {
        tokio::select! {
            () = election.win() => {}
            () = stop.cancelled() => return Ok(()),
        }
        tracing::info!(lease.name = LEASE, operator.identity = settings.identity, "leading");
        ctx.metrics.leader.set(1);
        // Dropped, the controller ends every visit under way at its next await.
        let lost = tokio::select! {
            () = control(&ctx, stop.clone()) => false,
            () = election.hold() => true,
        };
        ctx.metrics.leader.set(0);
        if !lost {
            election.release().await;
            tracing::info!(lease.name = LEASE, "stopped and released the lease");
            return Ok(());
        }
        tracing::warn!(lease.name = LEASE, "no longer leading; standing by");
    }
}

/// Watches and visits until `stop`, then lets the visits under way end.
async fn control(ctx: &Arc<Context>, stop: CancellationToken) {
    let (reader, writer) = reflector::store();
    let layers: Api<LayerMeta> = Api::all(ctx.client.clone());
    let forgetful = Arc::clone(ctx);
    let watch = watcher::watcher(layers, watcher::Config::default())
        .inspect_ok(move |event| {
            if let watcher::Event::Delete(gone) = event {
                forget(&forgetful, gone);
            }
        })
        .reflect(writer)
        .default_backoff()
        .applied_objects()
        // Our own writes of the status change neither, so they wake nobody.
        .predicate_filter(predicates::generation.combine(predicates::finalizers), PredicateConfig::default());
    let config = Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY);
    Controller::for_stream(watch, reader)
        .with_config(config)
        .watches_stream(changes::<StatefulSet>(&ctx.client), layer_of)
        .watches_stream(changes::<Deployment>(&ctx.client), layer_of)
        // Patroni writes its position into its pod every other second; what matters here are the labels, its role.
        .watches_stream(
            changes::<Pod>(&ctx.client).predicate_filter(predicates::labels, PredicateConfig::default()),
            layer_of,
        )
        .watches_stream(changes::<Service>(&ctx.client), layer_of)
        .watches_stream(changes::<ConfigMap>(&ctx.client), layer_of)
        .watches_stream(changes::<Secret>(&ctx.client), layer_of)
        .watches_stream(changes::<NetworkPolicy>(&ctx.client), layer_of)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, on_error, Arc::clone(ctx))
        .for_each(|_| future::ready(()))
        .await;
}

/// What changes of a kind, of what carries our label; only metadata, and nothing is kept.
fn changes<K>(client: &Client) -> impl Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::all(client.clone());
    watcher::watcher(api, watcher::Config::default().labels(MANAGED_SELECTOR)).default_backoff().touched_objects()
}

fn layer_of<K>(object: PartialObjectMeta<K>) -> Option<ObjectRef<LayerMeta>>
where
    K: Resource<DynamicType = ()>,
{
    let ObjectMeta { labels, namespace, .. } = object.metadata;
    let layer = labels?.remove("app.kubernetes.io/instance")?;
    Some(ObjectRef::new(&layer).within(&namespace?))
}

async fn reconcile(layer: Arc<LayerMeta>, ctx: Arc<Context>) -> Result<Action, Failed> {
    let (namespace, name) = (layer.namespace().unwrap_or_default(), layer.name_any());
    let started = Instant::now();
    let outcome = visit(&ctx, &namespace, &name).await;
    ctx.metrics.visit_seconds.observe(started.elapsed().as_secs_f64());
    let reason = outcome.as_ref().err().map_or("ok", Error::reason);
    ctx.metrics.visits.get_or_create(&Ending { reason }).inc();
    let key = format!("{namespace}/{name}");
    let failures = match &outcome {
        Ok(_) => {
            ctx.failures.clear(&key);
            0
        }
        Err(_) => ctx.failures.add(&key),
    };
    if !matches!(outcome, Ok(Outcome::Gone)) {
        count_layers(&ctx, ctx.known.note(&key, Some(matches!(outcome, Ok(Outcome::Steady)))));
    }
    let action = next(&outcome, failures, rand::random());
    match outcome {
        Ok(_) => Ok(action),
        Err(error) => {
            tracing::error!(
                layer.name = name,
                layer.namespace = namespace,
                reason = error.reason(),
                error = error.chain(),
                "a visit failed"
            );
            Err(Failed(action))
        }
    }
}

/// A failed visit, already logged, and when the next is due.
#[derive(Debug, thiserror::Error)]
#[error("a visit failed")]
struct Failed(Action);

fn on_error(_layer: Arc<LayerMeta>, failed: &Failed, _ctx: Arc<Context>) -> Action {
    failed.0.clone()
}

fn forget(ctx: &Context, gone: &LayerMeta) {
    ctx.applied.forget(&gone.uid().unwrap_or_default());
    let key = format!("{}/{}", gone.namespace().unwrap_or_default(), gone.name_any());
    ctx.failures.clear(&key);
    count_layers(ctx, ctx.known.note(&key, None));
}

fn count_layers(ctx: &Context, (layers, ready): (i64, i64)) {
    ctx.metrics.layers.set(layers);
    ctx.metrics.layers_ready.set(ready);
}
