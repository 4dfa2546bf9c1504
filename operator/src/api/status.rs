//! The status of the resource: what was seen, in the words of the conditions. It never repeats the spec.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator saw last.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AzoraDataLayerStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// One word for where the layer is in its life.
    #[serde(default)]
    pub phase: Phase,

    /// `Accepted`, `PostgresReady`, `MongoReady`, `RedisReady`, `NexusReady`, `Progressing`, `Degraded`, `Ready`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,

    /// The PostgreSQL of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<ComponentStatus>,

    /// The MongoDB of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mongo: Option<ComponentStatus>,

    /// The Redis of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<ComponentStatus>,

    /// The Nexus of the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nexus: Option<ComponentStatus>,

    /// What is waited for now, oldest first. Empty when nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,

    /// Name of the Secret that tells applications how to connect.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub binding: String,
}

/// Where a layer is in its life.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Phase {
    /// Seen, not yet worked on.
    #[default]
    Pending,
    /// The spec is refused; `Accepted` says why.
    Refused,
    /// On the way to its first Ready, or to a changed spec.
    Progressing,
    /// A write and a read through every Service succeed.
    Ready,
    /// It was ready, and a part of it is not.
    Degraded,
    /// Frozen by `spec.paused`.
    Paused,
    /// On the way out.
    Deleting,
}

impl Phase {
    /// The word as it stands in the status.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Refused => "Refused",
            Self::Progressing => "Progressing",
            Self::Ready => "Ready",
            Self::Degraded => "Degraded",
            Self::Paused => "Paused",
            Self::Deleting => "Deleting",
        }
    }
}

/// One statement about the layer, in the shape that Kubernetes gives conditions.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the statement is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word for the cause; the same in metrics and Events.
    pub reason: String,
    /// A sentence for a person.
    pub message: String,
    /// When `status` last changed, in RFC 3339.
    pub last_transition_time: String,
    /// The generation that the statement is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// What is known of one component.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// Where the component is in its life.
    #[serde(default)]
    pub phase: Phase,
    /// Ready instances of those wanted, as `3/3`.
    #[serde(default)]
    pub ready: String,
    /// The instance that takes writes, by pod name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub primary: String,
    /// All instances, by pod name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<String>,
    /// The version that runs, as the component itself says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Bytes by which the slowest replica is behind its primary, where the engine counts bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Host and port that applications connect to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
}

/// One thing that is waited for.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// What stands in the way, as one word.
    pub gate: String,
    /// Since when, in RFC 3339.
    pub since: String,
    /// A sentence for a person.
    pub message: String,
}
