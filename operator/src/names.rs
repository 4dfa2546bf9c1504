//! Names, labels and addresses of every object of a layer. The only place that makes a name; `validate` bounds the
//! layer's own, so that none made here is too long.

use crate::layer::Layer;
use std::collections::BTreeMap;

/// Who wrote a field, as the API server records it.
pub const FIELD_MANAGER: &str = "azora-operator";
/// Keeps a resource until the operator has seen its deletion, and done what `deletionPolicy` asks for.
pub const FINALIZER: &str = "azora.io/deletion-policy";
/// The label by which Patroni finds its own pods and ConfigMaps. Its value is the scope.
pub const PATRONI_SCOPE_LABEL: &str = "azora.io/patroni-scope";
/// The label in which Patroni tells a pod's role: `primary` or `replica`.
pub const PATRONI_ROLE_LABEL: &str = "azora.io/role";
/// Port of Postgres.
pub const POSTGRES_PORT: i32 = 5432;
/// Port of Patroni's REST interface.
pub const PATRONI_PORT: i32 = 8008;
/// Port of `MongoDB`.
pub const MONGO_PORT: i32 = 27017;
/// Port of Redis.
pub const REDIS_PORT: i32 = 6379;
/// Port of Nexus.
pub const NEXUS_PORT: i32 = 4001;
/// Database of the application, in Postgres and in `MongoDB`.
pub const DATABASE: &str = "azora";
/// Role of the application in Postgres and user in `MongoDB`.
pub const APPLICATION_USER: &str = "nexus";
/// Name of the replica set.
pub const REPLICA_SET: &str = "rs0";

/// A part of a data layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// `PostgreSQL` under Patroni.
    Postgres,
    /// A `MongoDB` replica set.
    Mongo,
    /// Redis.
    Redis,
    /// Nexus.
    Nexus,
}

impl Component {
    /// All, in the order of the status.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::Mongo, Self::Redis, Self::Nexus];

    /// The word in names and labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mongo => "mongo",
            Self::Redis => "redis",
            Self::Nexus => "nexus",
        }
    }

    /// The word as it stands in a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres",
            Self::Mongo => "MongoDB",
            Self::Redis => "Redis",
            Self::Nexus => "Nexus",
        }
    }

    /// The condition that speaks of it.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Postgres => "PostgresReady",
            Self::Mongo => "MongoReady",
            Self::Redis => "RedisReady",
            Self::Nexus => "NexusReady",
        }
    }
}

/// The name of a component's workload, Service and configuration: `demo-postgres`.
pub fn of(layer: &Layer, component: Component) -> String {
    format!("{}-{}", layer.name, component.word())
}

/// A name with one more word: `demo-postgres-members`.
pub fn with(layer: &Layer, component: Component, word: &str) -> String {
    format!("{}-{}-{word}", layer.name, component.word())
}

/// The Secret of generated credentials.
pub fn credentials(layer_name: &str) -> String {
    format!("{layer_name}-credentials")
}

/// The Secret that tells applications how to connect.
pub fn binding(layer: &Layer) -> String {
    format!("{}-binding", layer.name)
}

/// Labels of everything of a layer; also the selector of what the operator watches and lists.
pub fn layer_labels(layer_name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/instance".to_owned(), layer_name.to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "azora-operator".to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), "azora-data-layer".to_owned()),
    ])
}

/// Labels of everything of a component.
pub fn labels(layer: &Layer, component: Component) -> BTreeMap<String, String> {
    let mut labels = layer_labels(&layer.name);
    labels.insert("app.kubernetes.io/name".to_owned(), component.word().to_owned());
    labels
}

/// What selects a component's pods. Never changes, because a workload's selector cannot.
pub fn selector(layer: &Layer, component: Component) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/instance".to_owned(), layer.name.clone()),
        ("app.kubernetes.io/name".to_owned(), component.word().to_owned()),
    ])
}

/// The selector of everything of one layer, in the form of a list request.
pub fn list_selector(layer_name: &str) -> String {
    format!("app.kubernetes.io/instance={layer_name},{MANAGED_SELECTOR}")
}

/// The selector of everything of every layer, in the form of a watch request.
pub const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=azora-operator";

/// The host name of a Service.
pub fn host(layer: &Layer, service: &str) -> String {
    format!("{service}.{}.svc.{}", layer.namespace, layer.cluster_domain)
}

/// The host name of the pod `ordinal` behind a headless Service.
pub fn member_host(layer: &Layer, component: Component, service: &str, ordinal: i32) -> String {
    format!("{}-{ordinal}.{}", of(layer, component), host(layer, service))
}

/// The replica set's members, as `host:port` each.
pub fn mongo_members(layer: &Layer) -> Vec<String> {
    let service = of(layer, Component::Mongo);
    (0..layer.mongo.workload.count)
        .map(|ordinal| format!("{}:{MONGO_PORT}", member_host(layer, Component::Mongo, &service, ordinal)))
        .collect()
}
