//! The `MongoDB` of a layer: a StatefulSet of one replica set's members, whose own election decides the primary. The
//! operator initiates the set and makes the application's user, from outside, as the members' own identity.

pub mod configuration;
pub mod database;

use crate::component::{metadata, pod};
use crate::credentials::MONGO_KEY_FILE;
use crate::layer::Layer;
use crate::names::{self, Component, MONGO_PORT};
use crate::reconcile::objects::Objects;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, KeyToPath, PodSpec, PodTemplateSpec, SecretVolumeSource, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;
use pod::Patience;
use std::collections::BTreeMap;

const COMPONENT: Component = Component::Mongo;

/// mongod wants a key file of its own that nobody else can read. A projected Secret belongs to root and is readable
/// by the group, so it is copied with the right mode before mongod takes the shell's place.
const START: &str =
    "install -m 0400 /etc/mongo-key/key /run/mongodb/key && exec mongod --config /etc/mongo/mongod.conf";

/// Everything that `MongoDB` is made of.
pub fn desired(layer: &Layer) -> Objects {
    let name = names::of(layer, COMPONENT);
    let files = BTreeMap::from([
        ("mongod.conf".to_owned(), configuration::mongod(layer)),
        ("hello.sh".to_owned(), configuration::HELLO.to_owned()),
    ]);
    let digest = pod::digest(files.values().map(String::as_str));
    Objects {
        config_maps: vec![ConfigMap {
            metadata: metadata(layer, COMPONENT, name.clone()),
            data: Some(files),
            ..ConfigMap::default()
        }],
        services: vec![pod::headless(layer, COMPONENT, name, vec![pod::service_port("mongo", MONGO_PORT)])],
        disruption_budgets: pod::disruption_budget(layer, COMPONENT, layer.mongo.workload.count),
        stateful_sets: vec![stateful_set(layer, digest)],
        ..Objects::default()
    }
}

fn stateful_set(layer: &Layer, digest: String) -> StatefulSet {
    let name = names::of(layer, COMPONENT);
    StatefulSet {
        metadata: metadata(layer, COMPONENT, name.clone()),
        spec: Some(StatefulSetSpec {
            replicas: Some(layer.mongo.workload.count),
            service_name: Some(name),
            // All must be there before the set is initiated.
            pod_management_policy: Some("Parallel".to_owned()),
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
            volume_claim_templates: Some(vec![pod::data_claim(layer, COMPONENT, &layer.mongo.storage)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn pod_spec(layer: &Layer) -> PodSpec {
    PodSpec {
        automount_service_account_token: Some(false),
        security_context: Some(pod::security()),
        // A primary steps down and mongod writes a checkpoint.
        termination_grace_period_seconds: Some(60),
        containers: vec![container(layer)],
        volumes: Some(vec![
            Volume {
                name: "configuration".to_owned(),
                config_map: Some(ConfigMapVolumeSource {
                    name: names::of(layer, COMPONENT),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            },
            Volume {
                name: "key".to_owned(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(names::credentials(&layer.name)),
                    items: Some(vec![KeyToPath {
                        key: MONGO_KEY_FILE.to_owned(),
                        path: "key".to_owned(),
                        ..KeyToPath::default()
                    }]),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            },
            pod::scratch("run", "1Mi"),
            pod::scratch("tmp", "64Mi"),
        ]),
        ..PodSpec::default()
    }
}

fn container(layer: &Layer) -> Container {
    let probe = |expected, period_seconds, failures| {
        let command = ["bash", "/etc/mongo/hello.sh", expected];
        Some(pod::exec_probe(&command, &Patience { period_seconds, failures }))
    };
    Container {
        command: Some(pod::words(&["sh", "-c", START])),
        ports: Some(vec![pod::port("mongo", MONGO_PORT)]),
        volume_mounts: Some(vec![
            pod::mount("data", "/data/db"),
            pod::mount_read_only("configuration", "/etc/mongo"),
            pod::mount_read_only("key", "/etc/mongo-key"),
            pod::mount("run", "/run/mongodb"),
            pod::mount("tmp", "/tmp"),
        ]),
        // Started: it answers at all. Ten minutes, for the recovery of a large journal.
        startup_probe: probe("any", 1, 600),
        // Ready: a primary or a secondary.
        readiness_probe: probe("member", 5, 2),
        // Alive: it answers. A member that cannot find a majority is alive: a restart would not help it.
        liveness_probe: probe("any", 20, 6),
        ..pod::container("mongo", &layer.mongo.workload.image, &layer.mongo.workload.resources)
    }
}
