//! The `postgres` block of the resource.

use super::{ResourcesSpec, StorageSpec};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The PostgreSQL of a layer. Patroni decides which instance is the primary.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PostgresSpec {
    /// How many instances hold the data. Default: 3 in `Production`, 1 in `Development`.
    /// Effect of a change: instances are added or removed; the volume of a removed one stays. A layer that began with
    /// fewer than three goes on acknowledging as `Asynchronous` in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub instances: Option<i32>,

    /// Major version. Default: `15`, the one version that this operator runs. Cannot be changed in this version.
    #[serde(default = "PostgresSpec::default_version")]
    #[schemars(regex(pattern = r"^15$"), length(max = 2))]
    pub version: String,

    /// The volume of each instance.
    #[serde(default)]
    pub storage: StorageSpec,

    /// Compute resources of each instance.
    #[serde(default)]
    pub resources: ResourcesSpec,

    /// Settings of `postgresql.conf`, as `{work_mem: 16MB}`. Default: none beyond the operator's own. Names that the
    /// operator or Patroni decides are refused. Effect of a change: rolling restart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new(PARAMETERS_RULE).message("must not hold a setting that the operator or Patroni decides (addresses, files, replication, archiving, authentication)"))]
    pub parameters: BTreeMap<String, String>,

    /// When a commit is acknowledged. `Quorum`: after a second instance has it on disk (with fewer than three
    /// instances it behaves as `Asynchronous`). `Asynchronous`: after the primary has it. Default: `Quorum`.
    /// Cannot be changed in this version: Patroni keeps what it was first started with.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed in this version: Patroni keeps what it was first started with"))]
    pub durability: Durability,

    /// Container image. Default: empty, which means the image that the operator was installed with.
    /// Effect of a change: rolling restart.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub image: String,
}

/// The settings that `PARAMETERS_RULE` refuses, once more for `validate`; a test holds them equal.
pub(super) const RESERVED_PARAMETERS: &[&str] = &[
    "archive_command",
    "archive_mode",
    "cluster_name",
    "config_file",
    "data_directory",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_wal_senders",
    "max_worker_processes",
    "password_encryption",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "restore_command",
    "synchronous_commit",
    "synchronous_standby_names",
    "track_commit_timestamp",
    "unix_socket_directories",
    "wal_level",
    "wal_log_hints",
];

const PARAMETERS_RULE: &str = "!['archive_command', 'archive_mode', 'cluster_name', \
    'config_file', 'data_directory', 'hba_file', 'hot_standby', 'ident_file', 'listen_addresses', 'max_connections', \
    'max_locks_per_transaction', 'max_prepared_transactions', 'max_replication_slots', 'max_wal_senders', \
    'max_worker_processes', 'password_encryption', 'port', 'primary_conninfo', 'primary_slot_name', \
    'restore_command', 'synchronous_commit', 'synchronous_standby_names', 'track_commit_timestamp', \
    'unix_socket_directories', 'wal_level', 'wal_log_hints'].exists(name, name in self)";

impl PostgresSpec {
    fn default_version() -> String {
        "15".to_owned()
    }
}

impl Default for PostgresSpec {
    fn default() -> Self {
        Self {
            instances: None,
            version: Self::default_version(),
            storage: StorageSpec::default(),
            resources: ResourcesSpec::default(),
            parameters: BTreeMap::new(),
            durability: Durability::default(),
            image: String::new(),
        }
    }
}

/// When a commit is acknowledged.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Durability {
    /// After a second instance has it.
    #[default]
    Quorum,
    /// After the primary has it.
    Asynchronous,
}

/// Kept beside the schema so that the two lists cannot drift apart unseen.
#[cfg(test)]
mod tests {
    use super::{PARAMETERS_RULE, RESERVED_PARAMETERS};

    #[test]
    fn the_schema_and_validate_refuse_the_same_parameters() {
        let named: Vec<&str> = PARAMETERS_RULE.split('\'').skip(1).step_by(2).collect();
        assert_eq!(named, RESERVED_PARAMETERS);
    }
}
