//! What every pod of a layer has in common: the `restricted` Pod Security Standard, a read-only root file system,
//! probes, volumes. Pure.

use crate::component::metadata;
use crate::layer::{Layer, Resources, Storage};
use crate::names::{self, Component};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, ExecAction, HTTPGetAction,
    ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSecurityContext, Probe,
    ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext, Service, ServicePort, ServiceSpec,
    Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// User and group of every pod: the official images of the stores have it as theirs.
const USER: i64 = 999;

/// The annotation on a pod that restarts it when its configuration changes.
pub(crate) const CONFIGURATION_ANNOTATION: &str = "azora.io/configuration";

/// What a probe does and how patient it is.
pub(crate) struct Patience {
    /// Seconds between two tries.
    pub(crate) period_seconds: i32,
    /// Tries that may fail in a row.
    pub(crate) failures: i32,
}

pub(crate) fn security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        // Walking a large volume to change owners takes minutes; once it fits, it is left alone.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..PodSecurityContext::default()
    }
}

pub(crate) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        ..SecurityContext::default()
    }
}

/// A container with what all have: image, security, resources.
pub(crate) fn container(name: &str, image: &str, resources: &Resources) -> Container {
    let quantities = |amounts: &BTreeMap<String, crate::api::Amount>| {
        let quantity =
            |(name, amount): (&String, &crate::api::Amount)| (name.clone(), Quantity(amount.text().to_owned()));
        Some(amounts.iter().map(quantity).collect())
    };
    Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        security_context: Some(container_security()),
        resources: Some(ResourceRequirements {
            requests: quantities(&resources.requests),
            limits: quantities(&resources.limits),
            ..ResourceRequirements::default()
        }),
        ..Container::default()
    }
}

pub(crate) fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort { name: Some(name.to_owned()), container_port: number, ..ContainerPort::default() }
}

pub(crate) fn http_probe(path: &str, port: &str, patience: &Patience) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            ..HTTPGetAction::default()
        }),
        ..probe(patience)
    }
}

pub(crate) fn exec_probe(command: &[&str], patience: &Patience) -> Probe {
    Probe { exec: Some(ExecAction { command: Some(words(command)) }), ..probe(patience) }
}

fn probe(patience: &Patience) -> Probe {
    Probe {
        period_seconds: Some(patience.period_seconds),
        failure_threshold: Some(patience.failures),
        // A node under load starts a process slowly; a probe that gives up sooner tells of the node, not of the store.
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

pub(crate) fn env(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), ..EnvVar::default() }
}

pub(crate) fn env_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value_from: Some(source), ..EnvVar::default() }
}

pub(crate) fn env_secret(name: &str, secret: &str, key: &str) -> EnvVar {
    let key = SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), ..SecretKeySelector::default() };
    let source = EnvVarSource { secret_key_ref: Some(key), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value_from: Some(source), ..EnvVar::default() }
}

pub(crate) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

pub(crate) fn mount_read_only(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(volume, path) }
}

/// A folder that lives as long as the pod, for what a program insists on writing.
pub(crate) fn scratch(name: &str, size_max: &str) -> Volume {
    let folder =
        EmptyDirVolumeSource { size_limit: Some(Quantity(size_max.to_owned())), ..EmptyDirVolumeSource::default() };
    Volume { name: name.to_owned(), empty_dir: Some(folder), ..Volume::default() }
}

/// The claim template of the one data volume.
pub(crate) fn data_claim(layer: &Layer, component: Component, storage: &Storage) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        // No owner: a claim outlives the resource.
        metadata: ObjectMeta {
            name: Some("data".to_owned()),
            labels: Some(names::labels(layer, component)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(storage.size.text().to_owned()))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

pub(crate) fn service_port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}

/// A Service with a cluster address.
pub(crate) fn service(
    layer: &Layer,
    component: Component,
    name: String,
    selector: BTreeMap<String, String>,
    port: ServicePort,
) -> Service {
    Service {
        metadata: metadata(layer, component, name),
        spec: Some(ServiceSpec { selector: Some(selector), ports: Some(vec![port]), ..ServiceSpec::default() }),
        ..Service::default()
    }
}

/// A headless Service that gives each pod a name, also before it is ready: members find each other by it.
pub(crate) fn headless(layer: &Layer, component: Component, name: String, ports: Vec<ServicePort>) -> Service {
    Service {
        metadata: metadata(layer, component, name),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(names::selector(layer, component)),
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// A budget that lets one pod be evicted at a time. With one pod there is none: it would only block a node's drain.
pub(crate) fn disruption_budget(layer: &Layer, component: Component, count: i32) -> Vec<PodDisruptionBudget> {
    if count < 2 {
        return Vec::new();
    }
    vec![PodDisruptionBudget {
        metadata: metadata(layer, component, names::of(layer, component)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(names::selector(layer, component)),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }]
}

/// A short digest of configuration, for the annotation that restarts a pod when it changes.
pub(crate) fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    for part in parts {
        // The length first, so that "ab" + "c" and "a" + "bc" differ.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
