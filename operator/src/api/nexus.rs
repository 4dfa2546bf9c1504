//! The `nexus` block of the resource.

use super::ResourcesSpec;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The service on top of the stores. It is stateless.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NexusSpec {
    /// How many replicas serve. Default: 2 in `Production`, 1 in `Development`.
    /// Effect of a change: replicas are added or removed; clients resume on another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub replicas: Option<i32>,

    /// Whose tokens are accepted.
    #[serde(default)]
    pub auth: AuthSpec,

    /// Web origins that a browser may call from, as `https://app.example.org`. Default: none.
    /// Effect of a change: rolling restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256), regex(pattern = r"^https?://[^/\s,]+$")))]
    pub allowed_origins: Vec<String>,

    /// Name of a ConfigMap in this namespace with event types of your own, one JSON file per key, whose name ends in
    /// `.json`. Default: empty, which means none. It must be there before Nexus is made.
    /// Effect of a change, also of the content: rolling restart within a minute. With a file that is wrong the new pods
    /// do not start, and say so in their log; the old ones go on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253), regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"))]
    pub event_types_config_map: String,

    /// How much of the event log is kept.
    #[serde(default)]
    pub retention: RetentionSpec,

    /// Bounds on what one request may send.
    #[serde(default)]
    pub limits: LimitsSpec,

    /// Compute resources of each replica.
    #[serde(default)]
    pub resources: ResourcesSpec,

    /// Container image. Default: empty, which means the image that the operator was installed with.
    /// Effect of a change: rolling restart; migrations run before the new version serves.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub image: String,
}

/// Whose tokens are accepted.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthSpec {
    /// Address of the JSON Web Key Set that signs tokens. Default: empty, which in `Development` means a generated
    /// HS256 key, told in the binding Secret as `nexus.hs256-key`. Effect of a change: rolling restart.
    #[serde(default)]
    #[schemars(length(max = 1024), regex(pattern = r"^(https?://\S+)?$"))]
    pub jwks_url: String,

    /// The `iss` that a token must carry. Default: empty, which means any. Effect of a change: rolling restart.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub issuer: String,

    /// The `aud` that a token must carry. Default: empty, which means any. Effect of a change: rolling restart.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub audience: String,
}

/// How much of the event log is kept.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionSpec {
    /// Events of history that are always kept, counted from the newest. Default: 100000. Never below 1000.
    /// Effect of a change: rolling restart; a lower number removes history.
    #[serde(default = "RetentionSpec::default_events_min")]
    #[schemars(range(min = 1000))]
    pub events_min: i64,
}

impl RetentionSpec {
    fn default_events_min() -> i64 {
        100_000
    }
}

impl Default for RetentionSpec {
    fn default() -> Self {
        Self { events_min: Self::default_events_min() }
    }
}

/// Bounds on what one request may send.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Bytes of an HTTP request body. Default: 1048576. Effect of a change: rolling restart.
    #[serde(default = "LimitsSpec::default_body_bytes_max")]
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub body_bytes_max: i64,

    /// Bytes of a WebSocket frame that a client sends. Default: 65536. Effect of a change: rolling restart.
    #[serde(default = "LimitsSpec::default_frame_bytes_max")]
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub frame_bytes_max: i64,
}

impl LimitsSpec {
    fn default_body_bytes_max() -> i64 {
        1_048_576
    }

    fn default_frame_bytes_max() -> i64 {
        65_536
    }
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self { body_bytes_max: Self::default_body_bytes_max(), frame_bytes_max: Self::default_frame_bytes_max() }
    }
}
