//! The Nexus of a layer: a Deployment. Its migrations run in an init container, so that they are done before the new
//! version serves. It reads the addresses of the stores from the binding Secret.

use crate::answer::{Answer, Working, brief, within};
use crate::component::{binding, metadata, pod};
use crate::credentials::Credentials;
use crate::http;
use crate::layer::Layer;
use crate::names::{self, Component, NEXUS_PORT};
use crate::reconcile::objects::Objects;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use pod::Patience;
use std::collections::BTreeMap;
use std::convert::Infallible;

const COMPONENT: Component = Component::Nexus;

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

/// The Deployment, which waits for the stores when it is made the first time.
pub fn workload(layer: &Layer, credentials: &Credentials) -> Objects {
    Objects { deployments: vec![deployment(layer, credentials)], ..Objects::default() }
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

fn deployment(layer: &Layer, credentials: &Credentials) -> Deployment {
    let addresses = [
        binding::postgres_uri(layer, credentials),
        binding::mongo_uri(layer, credentials),
        binding::redis_uri(layer, credentials),
        credentials.get(crate::credentials::NEXUS_SIGNING_KEY).to_owned(),
    ];
    let digest = pod::digest(addresses.iter().map(String::as_str));
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
                    annotations: Some(BTreeMap::from([(pod::CONFIGURATION_ANNOTATION.to_owned(), digest)])),
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
        volume_mounts: Some(vec![pod::mount("tmp", "/tmp")]),
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
        volumes: Some(vec![pod::scratch("tmp", "64Mi")]),
        ..PodSpec::default()
    }
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
        pod::env("NEXUS_RETENTION_EVENTS_MIN", nexus.retention_events_min.to_string()),
        pod::env("NEXUS_BODY_BYTES_MAX", nexus.body_bytes_max.to_string()),
        pod::env("NEXUS_FRAME_BYTES_MAX", nexus.frame_bytes_max.to_string()),
        pod::env("NEXUS_DRAIN_SECONDS", DRAIN_SECONDS.to_string()),
        pod::env("NEXUS_LOG_FORMAT", "json"),
    ];
    variables.push(match &nexus.jwks_url {
        Some(address) => pod::env("NEXUS_AUTH_JWKS_URL", address),
        None => pod::env_secret("NEXUS_AUTH_HS256_KEY", &binding, "nexus.hs256-key"),
    });
    let optional = [("NEXUS_AUTH_ISSUER", &nexus.issuer), ("NEXUS_AUTH_AUDIENCE", &nexus.audience)];
    variables.extend(optional.into_iter().filter_map(|(name, value)| Some(pod::env(name, value.as_ref()?))));
    if !nexus.allowed_origins.is_empty() {
        variables.push(pod::env("NEXUS_ALLOWED_ORIGINS", nexus.allowed_origins.join(",")));
    }
    variables
}
