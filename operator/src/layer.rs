//! A data layer as the plan sees it: every choice made, every default filled in. Plain data, made by `validate`;
//! whoever holds one holds a spec that was accepted.

use crate::api::{Amount, AzoraDataLayer, LimitsSpec, RetentionSpec, TracesSpec, WebhooksSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use std::collections::BTreeMap;

/// An accepted data layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Name of the resource; every object's name begins with it.
    pub name: String,
    /// Namespace of the resource and all its objects.
    pub namespace: String,
    /// Identity of this resource, as opposed to a later one of the same name.
    pub uid: String,
    /// Generation of the spec that this was made from.
    pub generation: i64,
    /// Domain of Services in the cluster.
    pub cluster_domain: String,
    /// Namespace of the operator, whose pods reach the stores.
    pub operator_namespace: String,
    /// Whether volumes and credentials go with the resource.
    pub delete_data: bool,
    /// Whether workloads stay as they are.
    pub paused: bool,
    /// Whether NetworkPolicies are made.
    pub network_enforced: bool,
    /// The PostgreSQL.
    pub postgres: Postgres,
    /// The MongoDB.
    pub mongo: Mongo,
    /// The Redis.
    pub redis: Redis,
    /// The Nexus.
    pub nexus: Nexus,
}

/// What every component runs with.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Pods that are wanted.
    pub count: i32,
    /// Container image.
    pub image: String,
    /// Compute resources of the main container.
    pub resources: Resources,
}

/// Compute resources, defaults filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// What is set aside.
    pub requests: BTreeMap<String, Amount>,
    /// What may not be exceeded.
    pub limits: BTreeMap<String, Amount>,
}

/// A persistent volume of each pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    /// Size.
    pub size: Amount,
    /// Class; `None` is the cluster's default.
    pub class: Option<String>,
}

/// The PostgreSQL of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Postgres {
    /// What it runs with.
    pub workload: Workload,
    /// The volume of each instance.
    pub storage: Storage,
    /// Major version; decides the folder of the binaries.
    pub version: String,
    /// Settings of the user.
    pub parameters: BTreeMap<String, String>,
    /// Whether a commit waits for a second instance.
    pub quorum: bool,
}

/// The MongoDB of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Mongo {
    /// What it runs with.
    pub workload: Workload,
    /// The volume of each member.
    pub storage: Storage,
    /// Expected major version.
    pub version: String,
}

/// The Redis of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Redis {
    /// What it runs with.
    pub workload: Workload,
    /// The volume.
    pub storage: Storage,
    /// Expected major version.
    pub version: String,
    /// Bytes for data.
    pub max_memory_bytes: u128,
}

/// The Nexus of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Nexus {
    /// What it runs with.
    pub workload: Workload,
    /// Where the keys that sign tokens are; `None` means the generated key.
    pub jwks_url: Option<String>,
    /// The `iss` of tokens, where it is checked.
    pub issuer: Option<String>,
    /// The `aud` of tokens, where it is checked.
    pub audience: Option<String>,
    /// Origins that a browser may call from.
    pub allowed_origins: Vec<String>,
    /// The ConfigMap with event types of the user, where there is one.
    pub event_types: Option<String>,
    /// Seconds that a token may live, where it is checked.
    pub token_seconds_max: Option<i64>,
    /// How much of the event log is kept.
    pub retention: RetentionSpec,
    /// Bounds on what may be sent, asked and held open.
    pub limits: LimitsSpec,
    /// Where webhooks may be delivered to.
    pub webhooks: WebhooksSpec,
    /// Where traces go.
    pub traces: TracesSpec,
}

impl Layer {
    /// The reference by which Kubernetes removes an object together with the resource.
    pub fn owner(&self) -> OwnerReference {
        use kube::Resource as _;
        OwnerReference {
            api_version: AzoraDataLayer::api_version(&()).into_owned(),
            kind: AzoraDataLayer::kind(&()).into_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}
