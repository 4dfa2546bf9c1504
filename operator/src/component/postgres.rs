//! The Postgres of a layer: a StatefulSet whose pods Patroni governs. The operator never picks a primary; it sees to
//! the application's role and database, and asks through the Service whether they work.

pub mod configuration;
pub mod database;

use crate::component::{metadata, pod};
use crate::credentials::{POSTGRES_REPLICATION, POSTGRES_SUPERUSER};
use crate::layer::Layer;
use crate::names::{self, Component, PATRONI_PORT, PATRONI_ROLE_LABEL, PATRONI_SCOPE_LABEL, POSTGRES_PORT};
use crate::reconcile::objects::Objects;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, EnvVar, PodSpec, PodTemplateSpec, Service, ServiceAccount, Volume,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;
use pod::Patience;
use std::collections::BTreeMap;

const COMPONENT: Component = Component::Postgres;
/// Where the volume is mounted.
const VOLUME: &str = "/var/lib/postgresql/data";
/// Where the configuration file is mounted.
const CONFIGURATION: &str = "/etc/patroni";

/// Everything that Postgres is made of.
pub fn desired(layer: &Layer) -> Objects {
    let name = names::of(layer, COMPONENT);
    let file = configuration::patroni(layer);
    Objects {
        service_accounts: vec![ServiceAccount {
            metadata: metadata(layer, COMPONENT, name.clone()),
            ..ServiceAccount::default()
        }],
        roles: vec![role(layer)],
        role_bindings: vec![role_binding(layer)],
        config_maps: vec![ConfigMap {
            metadata: metadata(layer, COMPONENT, name.clone()),
            data: Some(BTreeMap::from([("patroni.yaml".to_owned(), file.clone())])),
            ..ConfigMap::default()
        }],
        services: services(layer),
        disruption_budgets: pod::disruption_budget(layer, COMPONENT, layer.postgres.workload.count),
        stateful_sets: vec![stateful_set(layer, &file)],
        ..Objects::default()
    }
}

/// The name of the headless Service of the members.
pub fn members_service(layer: &Layer) -> String {
    names::with(layer, COMPONENT, "members")
}

fn services(layer: &Layer) -> Vec<Service> {
    let with_role = |role: &str| {
        let mut selector = names::selector(layer, COMPONENT);
        selector.insert(PATRONI_ROLE_LABEL.to_owned(), role.to_owned());
        selector
    };
    let port = || pod::service_port("postgres", POSTGRES_PORT);
    let members = vec![port(), pod::service_port("patroni", PATRONI_PORT)];
    vec![
        pod::service(layer, COMPONENT, names::of(layer, COMPONENT), with_role("primary"), port()),
        pod::service(layer, COMPONENT, names::with(layer, COMPONENT, "replicas"), with_role("replica"), port()),
        pod::headless(layer, COMPONENT, members_service(layer), members),
    ]
}

/// What Patroni needs: its lock and configuration in ConfigMaps, and its role as a label on its pods.
fn role(layer: &Layer) -> Role {
    let rule = |resource: &str, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: pod::words(verbs),
        ..PolicyRule::default()
    };
    Role {
        metadata: metadata(layer, COMPONENT, names::of(layer, COMPONENT)),
        rules: Some(vec![
            rule("configmaps", &["get", "list", "watch", "create", "update", "patch"]),
            rule("pods", &["get", "list", "watch", "update", "patch"]),
        ]),
    }
}

fn role_binding(layer: &Layer) -> RoleBinding {
    let name = names::of(layer, COMPONENT);
    RoleBinding {
        metadata: metadata(layer, COMPONENT, name.clone()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name,
            namespace: Some(layer.namespace.clone()),
            ..Subject::default()
        }]),
    }
}

fn stateful_set(layer: &Layer, file: &str) -> StatefulSet {
    let name = names::of(layer, COMPONENT);
    let mut labels = names::labels(layer, COMPONENT);
    labels.insert(PATRONI_SCOPE_LABEL.to_owned(), name.clone());
    StatefulSet {
        metadata: metadata(layer, COMPONENT, name.clone()),
        spec: Some(StatefulSetSpec {
            replicas: Some(layer.postgres.workload.count),
            service_name: Some(members_service(layer)),
            // Patroni sorts out who begins; waiting for each other would only cost time, and after a full stop the
            // pod that must become primary may not be the first.
            pod_management_policy: Some("Parallel".to_owned()),
            selector: LabelSelector {
                match_labels: Some(names::selector(layer, COMPONENT)),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(BTreeMap::from([(
                        pod::CONFIGURATION_ANNOTATION.to_owned(),
                        pod::digest([file]),
                    )])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(layer)),
            },
            volume_claim_templates: Some(vec![pod::data_claim(layer, COMPONENT, &layer.postgres.storage)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn pod_spec(layer: &Layer) -> PodSpec {
    let name = names::of(layer, COMPONENT);
    PodSpec {
        service_account_name: Some(name.clone()),
        security_context: Some(pod::security()),
        // Patroni hands the lock over and stops Postgres; a checkpoint of a large cache takes its time.
        termination_grace_period_seconds: Some(60),
        containers: vec![container(layer)],
        volumes: Some(vec![
            Volume {
                name: "configuration".to_owned(),
                config_map: Some(ConfigMapVolumeSource { name, ..ConfigMapVolumeSource::default() }),
                ..Volume::default()
            },
            pod::scratch("run", "16Mi"),
            pod::scratch("tmp", "1Gi"),
            pod::scratch("shm", "256Mi"),
        ]),
        ..PodSpec::default()
    }
}

fn container(layer: &Layer) -> Container {
    let probe =
        |path, period_seconds, failures| Some(pod::http_probe(path, "patroni", &Patience { period_seconds, failures }));
    Container {
        command: Some(pod::words(&["patroni", "/etc/patroni/patroni.yaml"])),
        env: Some(environment(layer)),
        ports: Some(vec![pod::port("postgres", POSTGRES_PORT), pod::port("patroni", PATRONI_PORT)]),
        volume_mounts: Some(vec![
            pod::mount("data", VOLUME),
            pod::mount_read_only("configuration", CONFIGURATION),
            pod::mount("run", "/run/postgresql"),
            pod::mount("tmp", "/tmp"),
            pod::mount("shm", "/dev/shm"),
        ]),
        // Started: Postgres runs. Ten minutes, for a crash recovery or the copy of a large primary.
        startup_probe: probe("/health", 1, 600),
        // Ready: a primary that holds the lock, or a replica that streams.
        readiness_probe: probe("/readiness", 2, 2),
        // Alive: Patroni's loop turns. It answers 503 by itself only when the loop has stood still beyond its ttl.
        liveness_probe: probe("/liveness", 10, 6),
        ..pod::container("postgres", &layer.postgres.workload.image, &layer.postgres.workload.resources)
    }
}

fn environment(layer: &Layer) -> Vec<EnvVar> {
    let secret = names::credentials(&layer.name);
    vec![
        pod::env_field("PATRONI_NAME", "metadata.name"),
        pod::env_field("PATRONI_KUBERNETES_POD_IP", "status.podIP"),
        pod::env("PATRONI_POSTGRESQL_CONNECT_ADDRESS", format!("$(PATRONI_KUBERNETES_POD_IP):{POSTGRES_PORT}")),
        pod::env("PATRONI_RESTAPI_CONNECT_ADDRESS", format!("$(PATRONI_KUBERNETES_POD_IP):{PATRONI_PORT}")),
        pod::env("PATRONI_SUPERUSER_USERNAME", "postgres"),
        pod::env_secret("PATRONI_SUPERUSER_PASSWORD", &secret, POSTGRES_SUPERUSER),
        pod::env("PATRONI_REPLICATION_USERNAME", "replicator"),
        pod::env_secret("PATRONI_REPLICATION_PASSWORD", &secret, POSTGRES_REPLICATION),
    ]
}
