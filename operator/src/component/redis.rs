//! The Redis of a layer: one instance with a password and an append-only file. It may lose everything without harm.

pub mod database;

use crate::component::{metadata, pod};
use crate::credentials::{Credentials, REDIS_PASSWORD};
use crate::layer::Layer;
use crate::names::{self, Component, REDIS_PORT};
use crate::reconcile::objects::Objects;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, PodSpec, PodTemplateSpec, Secret, SecretVolumeSource, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;
use pod::Patience;
use std::collections::BTreeMap;

const COMPONENT: Component = Component::Redis;

/// Everything that Redis is made of.
pub fn desired(layer: &Layer, credentials: &Credentials) -> Objects {
    let name = names::of(layer, COMPONENT);
    let (open, closed) = (configuration(layer), secret_configuration(credentials));
    let digest = pod::digest([open.as_str(), closed.as_str()]);
    Objects {
        config_maps: vec![ConfigMap {
            metadata: metadata(layer, COMPONENT, name.clone()),
            data: Some(BTreeMap::from([("redis.conf".to_owned(), open)])),
            ..ConfigMap::default()
        }],
        secrets: vec![Secret {
            metadata: metadata(layer, COMPONENT, name.clone()),
            data: Some(BTreeMap::from([("password.conf".to_owned(), ByteString(closed.into_bytes()))])),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }],
        services: vec![
            pod::service(
                layer,
                COMPONENT,
                name,
                names::selector(layer, COMPONENT),
                pod::service_port("redis", REDIS_PORT),
            ),
            pod::headless(layer, COMPONENT, members_service(layer), vec![pod::service_port("redis", REDIS_PORT)]),
        ],
        disruption_budgets: pod::disruption_budget(layer, COMPONENT, layer.redis.workload.count),
        stateful_sets: vec![stateful_set(layer, digest)],
        ..Objects::default()
    }
}

fn members_service(layer: &Layer) -> String {
    names::with(layer, COMPONENT, "members")
}

/// `redis.conf`, without secrets.
pub fn configuration(layer: &Layer) -> String {
    let settings = BTreeMap::from([
        ("appendfsync", "everysec".to_owned()),
        ("appendonly", "yes".to_owned()),
        ("bind", "* -::*".to_owned()),
        ("dir", "/data".to_owned()),
        ("include", "/etc/redis-password/password.conf".to_owned()),
        ("maxmemory", layer.redis.max_memory_bytes.to_string()),
        // It holds what can be read again: the least recently used goes first.
        ("maxmemory-policy", "allkeys-lru".to_owned()),
        ("port", REDIS_PORT.to_string()),
        // The append-only file is enough; a snapshot would fork a second time.
        ("save", "\"\"".to_owned()),
        ("tcp-keepalive", "60".to_owned()),
    ]);
    let lines: Vec<String> = settings.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    lines.join("\n") + "\n"
}

fn secret_configuration(credentials: &Credentials) -> String {
    format!("requirepass {}\n", credentials.get(REDIS_PASSWORD))
}

fn stateful_set(layer: &Layer, digest: String) -> StatefulSet {
    StatefulSet {
        metadata: metadata(layer, COMPONENT, names::of(layer, COMPONENT)),
        spec: Some(StatefulSetSpec {
            replicas: Some(layer.redis.workload.count),
            service_name: Some(members_service(layer)),
            selector: LabelSelector {
                match_labels: Some(names::selector(layer, COMPONENT)),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(names::labels(layer, COMPONENT)),
                    annotations: Some(BTreeMap::from([(pod::CONFIGURATION_ANNOTATION.to_owned(), digest)])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(layer)),
            },
            volume_claim_templates: Some(vec![pod::data_claim(layer, COMPONENT, &layer.redis.storage)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn pod_spec(layer: &Layer) -> PodSpec {
    let name = names::of(layer, COMPONENT);
    PodSpec {
        automount_service_account_token: Some(false),
        security_context: Some(pod::security()),
        termination_grace_period_seconds: Some(30),
        containers: vec![container(layer)],
        volumes: Some(vec![
            Volume {
                name: "configuration".to_owned(),
                config_map: Some(ConfigMapVolumeSource { name: name.clone(), ..ConfigMapVolumeSource::default() }),
                ..Volume::default()
            },
            Volume {
                name: "password".to_owned(),
                secret: Some(SecretVolumeSource { secret_name: Some(name), ..SecretVolumeSource::default() }),
                ..Volume::default()
            },
            pod::scratch("tmp", "16Mi"),
        ]),
        ..PodSpec::default()
    }
}

fn container(layer: &Layer) -> Container {
    let probe = |test, period_seconds, failures| {
        Some(pod::exec_probe(&["sh", "-c", test], &Patience { period_seconds, failures }))
    };
    let answers = "redis-cli ping | grep -qE 'PONG|LOADING|MASTERDOWN'";
    Container {
        command: Some(pod::words(&["redis-server", "/etc/redis/redis.conf"])),
        env: Some(vec![pod::env_secret("REDISCLI_AUTH", &names::credentials(&layer.name), REDIS_PASSWORD)]),
        ports: Some(vec![pod::port("redis", REDIS_PORT)]),
        volume_mounts: Some(vec![
            pod::mount("data", "/data"),
            pod::mount_read_only("configuration", "/etc/redis"),
            pod::mount_read_only("password", "/etc/redis-password"),
            pod::mount("tmp", "/tmp"),
        ]),
        // Started: it answers, be it that it still loads its file.
        startup_probe: probe(answers, 1, 300),
        // Ready: it serves.
        readiness_probe: probe("[ \"$(redis-cli ping)\" = PONG ]", 5, 2),
        // Alive: it answers. Loading is no reason for a restart, which would only begin it again.
        liveness_probe: probe(answers, 20, 6),
        ..pod::container("redis", &layer.redis.workload.image, &layer.redis.workload.resources)
    }
}
