//! The custom resource `AzoraDataLayer`: its fields are the user manual, so each says what it means,
//! its unit, its default and what a change of it does. No logic here but `validate`, which is pure.
#![allow(unreachable_pub)] // The derive of `KubeSchema` repeats each struct inside a function.

mod amount;
mod mongo;
mod nexus;
mod postgres;
mod redis;
mod schema;
mod status;
mod validate;

pub use amount::Amount;
pub use mongo::MongoSpec;
pub use nexus::{AuthSpec, LimitsSpec, NexusSpec, RetentionSpec, TracesSpec, WebhooksSpec};
pub use postgres::{Durability, PostgresSpec};
pub use redis::RedisSpec;
pub use schema::{crd, crd_yaml};
pub use status::{AzoraDataLayerStatus, ComponentStatus, Condition, Phase, Waiting};
pub use validate::{LAYER_NAME_LENGTH_MAX, Refusal, validate};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The data layer that a team asks for: a PostgreSQL, a MongoDB, a Redis and a Nexus that belong together.
/// An empty `spec` is a production layer; `profile: Development` is one small instance of each.
// Two columns of one type are two columns.
#[allow(clippy::duplicated_attributes)]
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "azora.io",
    version = "v1alpha1",
    kind = "AzoraDataLayer",
    plural = "azoradatalayers",
    shortname = "adl",
    category = "azora",
    namespaced,
    status = "AzoraDataLayerStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A PostgreSQL, a MongoDB, a Redis and a Nexus that belong together.",
    printcolumn(
        name = "READY",
        type_ = "string",
        description = "Whether a write and a read through every Service succeed.",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "PHASE",
        type_ = "string",
        description = "Where the layer is in its life.",
        json_path = ".status.phase"
    ),
    printcolumn(
        name = "POSTGRES",
        type_ = "string",
        description = "Ready instances of those wanted.",
        json_path = ".status.postgres.ready"
    ),
    printcolumn(
        name = "MONGO",
        type_ = "string",
        description = "Ready members of those wanted.",
        json_path = ".status.mongo.ready"
    ),
    printcolumn(
        name = "REDIS",
        type_ = "string",
        description = "Ready instances of those wanted.",
        json_path = ".status.redis.ready"
    ),
    printcolumn(
        name = "NEXUS",
        type_ = "string",
        description = "Ready replicas of those wanted.",
        json_path = ".status.nexus.ready"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.profile == 'Development' || size(self.nexus.auth.jwksUrl) > 0")
    .message("must name the key set that signs tokens when profile is Production; a generated key is for Development")
    .field_path(".nexus.auth.jwksUrl"))]
pub struct AzoraDataLayerSpec {
    /// What the layer is for. `Production`: three instances of each store, two of Nexus, tokens signed by your
    /// identity provider. `Development`: one small instance of each, on the same engines, and a generated key that
    /// signs tokens. Default: `Production`. Cannot be changed: it decides how the data is replicated.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed: make another data layer"))]
    pub profile: Profile,

    /// What happens to volumes and generated credentials when this resource is deleted. `Retain`: they stay, and a
    /// resource of the same name adopts them. `Delete`: they are removed with it. Default: `Retain`.
    /// A change has no effect until the deletion.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Whether changes of this resource wait. While `true`, workloads and their configuration stay as they are;
    /// credentials, health and status go on. Default: `false`. Effect of a change: none by itself.
    #[serde(default)]
    pub paused: bool,

    /// The PostgreSQL that holds the records and the event log.
    #[serde(default)]
    pub postgres: PostgresSpec,

    /// The MongoDB that holds the documents which follow the log.
    #[serde(default)]
    pub mongo: MongoSpec,

    /// The Redis that holds what is cached and carries wake-ups. It may lose everything without harm.
    #[serde(default)]
    pub redis: RedisSpec,

    /// The service on top: records, event bus, caches, real-time connections.
    #[serde(default)]
    pub nexus: NexusSpec,

    /// Who may open connections to the layer's pods.
    #[serde(default)]
    pub network: NetworkSpec,
}

/// What a layer is for; decides the counts that the resource leaves out.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Profile {
    /// Three instances with quorum commit.
    #[default]
    Production,
    /// One small instance of each.
    Development,
}

/// What becomes of volumes and credentials on deletion.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum DeletionPolicy {
    /// They stay and are adopted by a resource of the same name.
    #[default]
    Retain,
    /// They are removed with the resource.
    Delete,
}

/// Who may open connections to the layer's pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSpec {
    /// `Enforced`: NetworkPolicies let only Nexus, the operator and a store's own members reach a store; Nexus is
    /// open on its port. `Disabled`: no NetworkPolicy. Default: `Enforced`. Effect of a change: none on running pods.
    /// Needs a network plug-in that enforces NetworkPolicy.
    #[serde(default)]
    pub policy: NetworkPolicyMode,
}

/// Whether NetworkPolicies are made.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum NetworkPolicyMode {
    /// Closed but for what the layer itself needs.
    #[default]
    Enforced,
    /// No policy.
    Disabled,
}

/// A persistent volume of each instance.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Size of one volume, as `20Gi`. Default: `10Gi`. Cannot be changed in this version.
    #[serde(default = "StorageSpec::default_size")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed in this version: volumes are not resized"))]
    #[x_kube(validation = Rule::new("quantity(self).isGreaterThan(quantity('99Mi'))").message("must be at least 100Mi"))]
    pub size: Amount,

    /// Storage class of the volumes. Default: empty, which means the cluster's default class. Cannot be changed.
    #[serde(default)]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed: volumes stay in their class"))]
    pub class_name: String,
}

impl StorageSpec {
    fn default_size() -> Amount {
        Amount::new("10Gi")
    }
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self { size: Self::default_size(), class_name: String::new() }
    }
}

/// Compute resources of each instance's main container, in Kubernetes' own words.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// What is set aside, such as `{cpu: 500m, memory: 1Gi}`. Default: what suits the profile; a name given here
    /// replaces the default of that name. Effect of a change: rolling restart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, Amount>,

    /// What may not be exceeded. Default: a memory limit that suits the profile, no limit on cpu.
    /// Effect of a change: rolling restart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, Amount>,
}
