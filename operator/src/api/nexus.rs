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

    /// Bounds on what may be sent, asked and held open.
    #[serde(default)]
    pub limits: LimitsSpec,

    /// Where webhooks may be delivered to.
    #[serde(default)]
    pub webhooks: WebhooksSpec,

    /// Where traces go.
    #[serde(default)]
    pub traces: TracesSpec,

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

    /// Longest life of a token in seconds, from its `iat` to its `exp`. Tokens that live longer, or have no `iat`, are
    /// refused, and revocations are forgotten when no token that they concern can count any more. Default: absent, which
    /// means any life. Effect of a change: rolling restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub token_seconds_max: Option<i64>,
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

    /// Age in hours after which events go although fewer than `eventsMin` are left; the newest 1000 always stay.
    /// Default: absent, which means that the number alone decides. Effect of a change: rolling restart; a lower number
    /// removes history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 876_000))]
    pub hours_max: Option<i64>,
}

impl RetentionSpec {
    fn default_events_min() -> i64 {
        100_000
    }
}

impl Default for RetentionSpec {
    fn default() -> Self {
        Self { events_min: Self::default_events_min(), hours_max: None }
    }
}

/// Bounds on what may be sent, asked and held open. Those on persons, services and addresses count over all replicas, and
/// 0 is no bound. A person is a caller whose scopes all end with `:own`; every other one is a service. Whoever is above a
/// bound is told when to come back. Effect of any change: rolling restart.
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

    /// Real-time connections that one replica holds, each some 5 KiB of memory at rest. Default: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: Option<i64>,

    /// Requests and commands of one person a second, twice as many at once. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub person_requests_per_second: Option<i64>,

    /// Requests and commands of one service a second, twice as many at once. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub service_requests_per_second: Option<i64>,

    /// Requests and commands from one address a second, with whatever token, twice as many at once. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub address_requests_per_second: Option<i64>,

    /// Commands on one real-time connection a second, twice as many at once. Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub connection_commands_per_second: Option<i64>,

    /// Open real-time connections of one person. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub person_connections_max: Option<i64>,

    /// Open real-time connections from one address. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub address_connections_max: Option<i64>,

    /// Proxies before Nexus, such as an ingress, each of which adds its client's address to `X-Forwarded-For`. Without the
    /// right number all clients share the address of the last proxy. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub proxies: Option<i64>,
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
        Self {
            body_bytes_max: Self::default_body_bytes_max(),
            frame_bytes_max: Self::default_frame_bytes_max(),
            connections_max: None,
            person_requests_per_second: None,
            service_requests_per_second: None,
            address_requests_per_second: None,
            connection_commands_per_second: None,
            person_connections_max: None,
            address_connections_max: None,
            proxies: None,
        }
    }
}

/// Where webhooks may be delivered to: public addresses over https, and what is allowed here.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhooksSpec {
    /// Networks that webhooks may reach although they are not public, as `10.1.0.0/16`, on any port. Default: none.
    /// Effect of a change: rolling restart, and another network policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 64), regex(pattern = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")))]
    pub allow_networks: Vec<String>,

    /// Whether webhooks may be delivered without TLS: everybody on the way can read them then. Default: `false`.
    /// Effect of a change: rolling restart.
    #[serde(default)]
    pub allow_http: bool,
}

/// Where traces go. Whether a trace that somebody else began is kept, is for them to say in `traceparent`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TracesSpec {
    /// Address of a collector that takes OpenTelemetry's OTLP over HTTP, as `http://collector.tracing:4318`. Default:
    /// empty, which means that nothing is traced. Effect of a change: rolling restart, and another network policy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024), regex(pattern = r"^(https?://\S+)?$"))]
    pub otlp_endpoint: String,

    /// How many of a hundred traces that begin here are kept. Default: 100. Effect of a change: rolling restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub sample_percent: Option<i64>,
}
