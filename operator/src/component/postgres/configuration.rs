//! Patroni's configuration file. Pure: one layer in, one text out.

use crate::layer::Layer;
use crate::names::{self, Component, PATRONI_PORT, PATRONI_ROLE_LABEL, PATRONI_SCOPE_LABEL, POSTGRES_PORT};
use serde_json::{Map, Value, json};

/// Seconds after which a primary that does not renew its lock has lost it. Patroni asks for
/// `ttl >= loop_wait + 2 * retry_timeout`; these were measured to fail over in 2 to 4 seconds when a primary goes,
/// and in `ttl` when it freezes.
const TTL_SECONDS: i32 = 20;
const LOOP_SECONDS: i32 = 2;
const RETRY_SECONDS: i32 = 5;

/// `patroni.yaml`.
pub fn patroni(layer: &Layer) -> String {
    let scope = names::of(layer, Component::Postgres);
    let binaries = format!("/usr/lib/postgresql/{}/bin", layer.postgres.version);
    let file = json!({
        "scope": scope,
        "bootstrap": {
            "dcs": dynamic(layer),
            "initdb": [{ "encoding": "UTF8" }, { "locale": "C.UTF-8" }, "data-checksums"],
        },
        "kubernetes": {
            "namespace": layer.namespace,
            "scope_label": PATRONI_SCOPE_LABEL,
            "role_label": PATRONI_ROLE_LABEL,
            "leader_label_value": "primary",
            "follower_label_value": "replica",
            // Its ConfigMaps carry these and not our labels, so that we neither watch nor prune them.
            "labels": { "app.kubernetes.io/instance": layer.name, "app.kubernetes.io/name": "postgres" },
        },
        "restapi": { "listen": format!("0.0.0.0:{PATRONI_PORT}") },
        "postgresql": {
            "listen": format!("0.0.0.0:{POSTGRES_PORT}"),
            "bin_dir": binaries,
            "data_dir": "/var/lib/postgresql/data/pgdata",
            "pgpass": "/tmp/pgpass",
            "use_unix_socket": true,
            "use_unix_socket_repl": true,
            "parameters": parameters(layer),
            "pg_hba": [
                "local all all scram-sha-256",
                "local replication replicator scram-sha-256",
                "host replication replicator all scram-sha-256",
                "host all all all scram-sha-256",
            ],
        },
    });
    serde_norway::to_string(&file).expect("a document of maps, lists and words is always YAML")
}

/// What all instances share, kept by Patroni in its own ConfigMap from the first start on.
fn dynamic(layer: &Layer) -> Value {
    json!({
        "ttl": TTL_SECONDS,
        "loop_wait": LOOP_SECONDS,
        "retry_timeout": RETRY_SECONDS,
        "synchronous_mode": if layer.postgres.quorum { json!("quorum") } else { json!(false) },
        "postgresql": { "use_pg_rewind": true, "use_slots": true, "parameters": { "max_connections": 200 } },
    })
}

/// Settings of Postgres, sorted by name: the operator's own, over them the user's.
fn parameters(layer: &Layer) -> Value {
    let memory = layer.postgres.workload.resources.limits.get("memory").and_then(crate::api::Amount::units);
    // A quarter of the memory limit, as the manual of Postgres advises; 128 MB is its own default.
    let shared_mebibytes = memory.map_or(128, |bytes| (bytes / 4 / (1 << 20)).max(32));
    let mut settings: std::collections::BTreeMap<String, String> = [
        // Each checkpoint has every page written whole once more; three times as many pages as with 15 minutes.
        ("checkpoint_timeout", "15min".to_owned()),
        ("password_encryption", "scram-sha-256".to_owned()),
        ("shared_buffers", format!("{shared_mebibytes}MB")),
        ("unix_socket_directories", "/run/postgresql".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    settings.extend(layer.postgres.parameters.clone());
    Value::Object(settings.into_iter().map(|(name, value)| (name, Value::String(value))).collect::<Map<_, _>>())
}
