//! The binding Secret: how applications connect, in the shape of the Service Binding specification, one group of keys
//! per store. It follows from the credentials, so it may be removed and made again.

use crate::component::metadata;
use crate::credentials::{Credentials, MONGO_APPLICATION, NEXUS_SIGNING_KEY, POSTGRES_APPLICATION, REDIS_PASSWORD};
use crate::layer::Layer;
use crate::names::{
    self, APPLICATION_USER, Component, DATABASE, MONGO_PORT, NEXUS_PORT, POSTGRES_PORT, REDIS_PORT, REPLICA_SET,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

/// Address of Postgres' primary with login, as libpq reads it.
pub fn postgres_uri(layer: &Layer, credentials: &Credentials) -> String {
    let host = names::host(layer, &names::of(layer, Component::Postgres));
    let password = credentials.get(POSTGRES_APPLICATION);
    format!(
        "postgresql://{APPLICATION_USER}:{password}@{host}:{POSTGRES_PORT}/{DATABASE}?target_session_attrs=read-write"
    )
}

/// Address of the replica set with login.
pub fn mongo_uri(layer: &Layer, credentials: &Credentials) -> String {
    let hosts = names::mongo_members(layer).join(",");
    let password = credentials.get(MONGO_APPLICATION);
    format!("mongodb://{APPLICATION_USER}:{password}@{hosts}/{DATABASE}?authSource={DATABASE}&replicaSet={REPLICA_SET}")
}

/// Address of Redis with login.
pub fn redis_uri(layer: &Layer, credentials: &Credentials) -> String {
    let host = names::host(layer, &names::of(layer, Component::Redis));
    format!("redis://:{}@{host}:{REDIS_PORT}/0", credentials.get(REDIS_PASSWORD))
}

/// The binding Secret.
pub fn secret(layer: &Layer, credentials: &Credentials) -> Secret {
    let service = |component| names::host(layer, &names::of(layer, component));
    let mut entries: Vec<(&str, String)> = vec![
        ("postgres.type", "postgresql".to_owned()),
        ("postgres.provider", "azora".to_owned()),
        ("postgres.host", service(Component::Postgres)),
        ("postgres.port", POSTGRES_PORT.to_string()),
        ("postgres.username", APPLICATION_USER.to_owned()),
        ("postgres.password", credentials.get(POSTGRES_APPLICATION).to_owned()),
        ("postgres.database", DATABASE.to_owned()),
        ("postgres.uri", postgres_uri(layer, credentials)),
        ("mongo.type", "mongodb".to_owned()),
        ("mongo.provider", "azora".to_owned()),
        ("mongo.host", service(Component::Mongo)),
        ("mongo.port", MONGO_PORT.to_string()),
        ("mongo.username", APPLICATION_USER.to_owned()),
        ("mongo.password", credentials.get(MONGO_APPLICATION).to_owned()),
        ("mongo.database", DATABASE.to_owned()),
        ("mongo.uri", mongo_uri(layer, credentials)),
        ("redis.type", "redis".to_owned()),
        ("redis.provider", "azora".to_owned()),
        ("redis.host", service(Component::Redis)),
        ("redis.port", REDIS_PORT.to_string()),
        ("redis.username", "default".to_owned()),
        ("redis.password", credentials.get(REDIS_PASSWORD).to_owned()),
        ("redis.database", "0".to_owned()),
        ("redis.uri", redis_uri(layer, credentials)),
        ("nexus.uri", format!("http://{}:{NEXUS_PORT}", service(Component::Nexus))),
    ];
    if layer.nexus.jwks_url.is_none() {
        entries.push(("nexus.hs256-key", credentials.get(NEXUS_SIGNING_KEY).to_owned()));
    }
    Secret {
        metadata: metadata(layer, Component::Nexus, names::binding(layer)),
        data: Some(entries.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}
