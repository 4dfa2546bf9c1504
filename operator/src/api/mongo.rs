//! The `mongo` block of the resource.

use super::{ResourcesSpec, StorageSpec};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The MongoDB of a layer: one replica set, whose own election decides the primary.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.members) == has(oldSelf.members) && (!has(self.members) || self.members == oldSelf.members)")
    .message("cannot be changed in this version: a replica set keeps the members it began with")
    .field_path(".members"))]
pub struct MongoSpec {
    /// How many members hold the data; an odd number, so that an election has a majority.
    /// Default: 3 in `Production`, 1 in `Development`. Cannot be changed in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7))]
    #[x_kube(validation = Rule::new("self % 2 == 1").message("must be odd"))]
    pub members: Option<i32>,

    /// Major version that the image is expected to run. Default: `7`. A running version that differs is told by the
    /// condition `Degraded`. Effect of a change: none by itself; the image decides what runs.
    #[serde(default = "MongoSpec::default_version")]
    #[schemars(regex(pattern = r"^[678]$"), length(max = 2))]
    pub version: String,

    /// The volume of each member.
    #[serde(default)]
    pub storage: StorageSpec,

    /// Compute resources of each member.
    #[serde(default)]
    pub resources: ResourcesSpec,

    /// Container image. Default: empty, which means the image that the operator was installed with.
    /// Effect of a change: rolling restart.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub image: String,
}

impl MongoSpec {
    fn default_version() -> String {
        "7".to_owned()
    }
}

impl Default for MongoSpec {
    fn default() -> Self {
        Self {
            members: None,
            version: Self::default_version(),
            storage: StorageSpec::default(),
            resources: ResourcesSpec::default(),
            image: String::new(),
        }
    }
}
