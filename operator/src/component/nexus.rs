//! The Nexus of a layer: a Deployment. Its migrations run in an init container, so that they are done before the new
//! version serves. It reads the addresses of the stores from the binding Secret.

use crate::answer::{Answer, Working, brief, within};
use crate::component::{binding, metadata, pod};
use crate::credentials::Credentials;
use crate::http;
use crate::layer::{Layer, Nexus};
use crate::names::{self, Component, NEXUS_PORT};
use crate::reconcile::objects::Objects;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, EnvVar, PodSpec, PodTemplateSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use pod::Patience;
use std::convert::Infallible;

const COMPONENT: Component = Component::Nexus;

/// Where the user's event types are mounted.
const EVENT_TYPES_FOLDER: &str = "/etc/nexus/event-types";

/// The annotation on a pod that restarts it when the user's event types change, which Nexus reads at start only.
const EVENT_TYPES_ANNOTATION: &str = "azora.io/event-types";

/// Seconds in which clients are told to reconnect elsewhere before a pod stops.
const DRAIN_SECONDS: i64 = 10;

/// Everything that Nexus is made of, but for its Deployment.
pub fn surroundings(layer: &Layer, credentials: &Credentials) -> Objects {
    let port = pod::service_port("http", NEXUS_PORT);
    let selector = names::selector(layer, COMPONENT);
    Objects {
        secrets: vec![binding::secret(layer, credentials)],
        services: vec![pod::service(layer, COMPONENT, names::of(layer, COMPONENT), selector, port)],
        disruption_budgets: pod::disruption_budget(layer, COMPONENT, layer.nexus.workload.count),
        ..Objects::default()
    }
}

/// The Deployment, which waits for the stores when it is made the first time; `event_types` is the digest of those of the
/// user.
pub fn workload(layer: &Layer, credentials: &Credentials, event_types: Option<&str>) -> Objects {
    Objects { deployments: vec![deployment(layer, credentials, event_types)], ..Objects::default() }
}

/// Differs when a file of the ConfigMap does.
pub fn digest_of_event_types(map: &ConfigMap) -> String {
    let text = map.data.iter().flatten().flat_map(|(key, file)| [key.clone(), file.clone()]);
    let binary = map.binary_data.iter().flatten();
    let binary = binary.flat_map(|(key, file)| [key.clone(), String::from_utf8_lossy(&file.0).into_owned()]);
    let parts: Vec<String> = text.chain(binary).collect();
    pod::digest(parts.iter().map(String::as_str))
}

/// The digest with which the Deployment runs.
pub fn live_event_types(live: &Deployment) -> Option<String> {
    let annotations = live.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?;
    annotations.get(EVENT_TYPES_ANNOTATION).cloned()
}

/// Asks Nexus through its Service whether it serves.
pub async fn observe(layer: &Layer) -> Answer<Infallible> {
    let host = names::host(layer, &names::of(layer, COMPONENT));
    let port = NEXUS_PORT.unsigned_abs().try_into().unwrap_or(4001);
    match within(http::get(&host, port, "/readyz")).await {
        Ok(200) => Answer::Works(Working::default()),
        Ok(status) => Answer::Unreachable { cause: format!("/readyz answers {status}") },
        Err(cause) => Answer::Unreachable { cause: brief(&cause) },
    }
}

fn deployment(layer: &Layer, credentials: &Credentials, event_types: Option<&str>) -> Deployment {
    let addresses = [
        binding::postgres_uri(layer, credentials),
        binding::mongo_uri(layer, credentials),
        binding::redis_uri(layer, credentials),
        credentials.get(crate::credentials::NEXUS_SIGNING_KEY).to_owned(),
    ];
    let digest = pod::digest(addresses.iter().map(String::as_str));
    let types = event_types.map(|digest| (EVENT_TYPES_ANNOTATION.to_owned(), digest.to_owned()));
    let annotations = [(pod::CONFIGURATION_ANNOTATION.to_owned(), digest)].into_iter().chain(types).collect();
    Deployment {
        metadata: metadata(layer, COMPONENT, names::of(layer, COMPONENT)),
        spec: Some(DeploymentSpec {
            replicas: Some(layer.nexus.workload.count),
            selector: LabelSelector {
                match_labels: Some(names::selector(layer, COMPONENT)),
                ..LabelSelector::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                // A new pod serves before an old one goes.
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(names::labels(layer, COMPONENT)),
                    annotations: Some(annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(layer)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod_spec(layer: &Layer) -> PodSpec {
    let program = |name: &str, command: &str| Container {
        command: Some(pod::words(&["/usr/local/bin/nexus", command])),
        env: Some(environment(layer)),
        volume_mounts: Some(mounts(layer)),
        ..pod::container(name, &layer.nexus.workload.image, &layer.nexus.workload.resources)
    };
    let probe =
        |path, period_seconds, failures| Some(pod::http_probe(path, "http", &Patience { period_seconds, failures }));
    PodSpec {
        automount_service_account_token: Some(false),
        security_context: Some(pod::security()),
        // The drain, and a little for what is under way when it ends.
        termination_grace_period_seconds: Some(DRAIN_SECONDS + 20),
        init_containers: Some(vec![program("migrate", "migrate")]),
        containers: vec![Container {
            ports: Some(vec![pod::port("http", NEXUS_PORT)]),
            startup_probe: probe("/livez", 1, 120),
            readiness_probe: probe("/readyz", 2, 2),
            liveness_probe: probe("/livez", 10, 6),
            ..program("nexus", "serve")
        }],
        volumes: Some(volumes(layer)),
        ..PodSpec::default()
    }
}

fn mounts(layer: &Layer) -> Vec<VolumeMount> {
    let types = layer.nexus.event_types.iter().map(|_| pod::mount_read_only("event-types", EVENT_TYPES_FOLDER));
    [pod::mount("tmp", "/tmp")].into_iter().chain(types).collect()
}

fn volumes(layer: &Layer) -> Vec<Volume> {
    let types = layer.nexus.event_types.iter().map(|name| Volume {
        name: "event-types".to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: name.clone(), ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    });
    [pod::scratch("tmp", "64Mi")].into_iter().chain(types).collect()
}

fn environment(layer: &Layer) -> Vec<EnvVar> {
    let (nexus, binding) = (&layer.nexus, names::binding(layer));
    let mut variables = vec![
        pod::env("NEXUS_LISTEN", format!("0.0.0.0:{NEXUS_PORT}")),
        pod::env_field("POD_IP", "status.podIP"),
        pod::env("NEXUS_ADVERTISE", format!("$(POD_IP):{NEXUS_PORT}")),
        pod::env_secret("NEXUS_DATABASE_URL", &binding, "postgres.uri"),
        pod::env_secret("NEXUS_MONGO_URL", &binding, "mongo.uri"),
        pod::env_secret("NEXUS_REDIS_URL", &binding, "redis.uri"),
        pod::env("NEXUS_RETENTION_EVENTS_MIN", nexus.retention.events_min.to_string()),
        pod::env("NEXUS_BODY_BYTES_MAX", nexus.limits.body_bytes_max.to_string()),
        pod::env("NEXUS_FRAME_BYTES_MAX", nexus.limits.frame_bytes_max.to_string()),
        pod::env("NEXUS_DRAIN_SECONDS", DRAIN_SECONDS.to_string()),
        pod::env("NEXUS_LOG_FORMAT", "json"),
    ];
    variables.push(match &nexus.jwks_url {
        Some(address) => pod::env("NEXUS_AUTH_JWKS_URL", address),
        None => pod::env_secret("NEXUS_AUTH_HS256_KEY", &binding, "nexus.hs256-key"),
    });
    let optional = [("NEXUS_AUTH_ISSUER", &nexus.issuer), ("NEXUS_AUTH_AUDIENCE", &nexus.audience)];
    variables.extend(optional.into_iter().filter_map(|(name, value)| Some(pod::env(name, value.as_ref()?))));
    variables.extend(nexus.event_types.iter().map(|_| pod::env("NEXUS_EVENT_TYPES", EVENT_TYPES_FOLDER)));
    if !nexus.allowed_origins.is_empty() {
        variables.push(pod::env("NEXUS_ALLOWED_ORIGINS", nexus.allowed_origins.join(",")));
    }
    variables.extend(numbers(nexus).into_iter().filter_map(|(name, value)| Some(pod::env(name, value?.to_string()))));
    if !nexus.webhooks.allow_networks.is_empty() {
        variables.push(pod::env("NEXUS_WEBHOOK_ALLOW_NETWORKS", nexus.webhooks.allow_networks.join(",")));
    }
    if nexus.webhooks.allow_http {
        variables.push(pod::env("NEXUS_WEBHOOK_ALLOW_HTTP", "true"));
    }
    if !nexus.traces.otlp_endpoint.is_empty() {
        variables.push(pod::env("OTEL_EXPORTER_OTLP_ENDPOINT", &nexus.traces.otlp_endpoint));
    }
    if let Some(percent) = nexus.traces.sample_percent {
        variables.push(pod::env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"));
        variables.push(pod::env("OTEL_TRACES_SAMPLER_ARG", format!("{}.{:02}", percent / 100, percent % 100)));
    }
    variables
}

/// The numbers that Nexus has a default of its own for.
fn numbers(nexus: &Nexus) -> [(&'static str, Option<i64>); 10] {
    let limits = &nexus.limits;
    [
        ("NEXUS_AUTH_TOKEN_SECONDS_MAX", nexus.token_seconds_max),
        ("NEXUS_RETENTION_HOURS_MAX", nexus.retention.hours_max),
        ("NEXUS_STREAM_CONNECTIONS_MAX", limits.connections_max),
        ("NEXUS_PERSON_REQUESTS_PER_SECOND", limits.person_requests_per_second),
        ("NEXUS_SERVICE_REQUESTS_PER_SECOND", limits.service_requests_per_second),
        ("NEXUS_ADDRESS_REQUESTS_PER_SECOND", limits.address_requests_per_second),
        ("NEXUS_CONNECTION_COMMANDS_PER_SECOND", limits.connection_commands_per_second),
        ("NEXUS_PERSON_CONNECTIONS_MAX", limits.person_connections_max),
        ("NEXUS_ADDRESS_CONNECTIONS_MAX", limits.address_connections_max),
        ("NEXUS_PROXIES", limits.proxies),
    ]
}
