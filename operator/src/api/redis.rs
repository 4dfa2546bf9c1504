//! The `redis` block of the resource.

use super::{Amount, ResourcesSpec, StorageSpec};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The Redis of a layer, with a password and an append-only file.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisSpec {
    /// How many instances there are. Default: 3 in `Production`, 1 in `Development`. This version of the operator
    /// runs one; more are not accepted until it brings Sentinel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7))]
    #[x_kube(validation = Rule::new("self % 2 == 1").message("must be odd"))]
    pub instances: Option<i32>,

    /// Major version that the image is expected to run. Default: `7`. A running version that differs is told by the
    /// condition `Degraded`. Effect of a change: none by itself; the image decides what runs.
    #[serde(default = "RedisSpec::default_version")]
    #[schemars(regex(pattern = r"^[78]$"), length(max = 2))]
    pub version: String,

    /// Memory for data, in bytes or with a suffix; when it is full the least recently used key goes.
    /// Default: `256Mi`. Effect of a change: restart.
    #[serde(default = "RedisSpec::default_max_memory")]
    #[x_kube(validation = Rule::new("quantity(self).isGreaterThan(quantity('15Mi'))").message("must be at least 16Mi"))]
    pub max_memory: Amount,

    /// The volume of each instance.
    #[serde(default)]
    pub storage: StorageSpec,

    /// Compute resources of each instance.
    #[serde(default)]
    pub resources: ResourcesSpec,

    /// Container image. Default: empty, which means the image that the operator was installed with.
    /// Effect of a change: restart.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub image: String,
}

impl RedisSpec {
    fn default_version() -> String {
        "7".to_owned()
    }

    fn default_max_memory() -> Amount {
        Amount::new("256Mi")
    }
}

impl Default for RedisSpec {
    fn default() -> Self {
        Self {
            instances: None,
            version: Self::default_version(),
            max_memory: Self::default_max_memory(),
            storage: StorageSpec::default(),
            resources: ResourcesSpec::default(),
            image: String::new(),
        }
    }
}
