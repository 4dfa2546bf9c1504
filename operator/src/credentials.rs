//! The generated credentials of a layer: made once, kept for good. The Secret carries no owner, so that neither a
//! deletion nor a prune takes it; a resource that comes back under the same name finds it.

use crate::entropy::Entropy;
use crate::layer::Layer;
use crate::names;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use std::collections::BTreeMap;

/// Keys of the Secret, each with what it is for. A new one may be added; none may change its meaning.
const KEYS: [&str; 7] = [
    POSTGRES_SUPERUSER,
    POSTGRES_REPLICATION,
    POSTGRES_APPLICATION,
    MONGO_KEY_FILE,
    MONGO_APPLICATION,
    REDIS_PASSWORD,
    NEXUS_SIGNING_KEY,
];

/// Password of the role `postgres`.
pub const POSTGRES_SUPERUSER: &str = "postgres.superuser-password";
/// Password of the role that replicas stream with.
pub const POSTGRES_REPLICATION: &str = "postgres.replication-password";
/// Password of the application's role.
pub const POSTGRES_APPLICATION: &str = "postgres.nexus-password";
/// Content of the replica set's key file.
pub const MONGO_KEY_FILE: &str = "mongo.key-file";
/// Password of the application's user in `MongoDB`.
pub const MONGO_APPLICATION: &str = "mongo.nexus-password";
/// Password of Redis.
pub const REDIS_PASSWORD: &str = "redis.password";
/// Key that signs tokens in development.
pub const NEXUS_SIGNING_KEY: &str = "nexus.hs256-key";

/// Every generated credential of a layer.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(BTreeMap<String, String>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// What the Secret holds, completed by what it lacks. The second value says whether anything was lacking.
    pub fn complete(stored: Option<&Secret>, entropy: &Entropy) -> (Self, bool) {
        let mut values = stored.map(values).unwrap_or_default();
        let before = values.len();
        for key in KEYS {
            values.entry(key.to_owned()).or_insert_with(|| entropy.secret(key));
        }
        let lacking = values.len() != before;
        (Self(values), lacking)
    }

    /// One credential. The key is one of this module's constants.
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// The Secret to write. `stored` gives the resource version, so that a write over a change of another fails.
    pub fn secret(&self, layer: &Layer, stored: Option<&Secret>) -> Secret {
        let mut labels = names::layer_labels(&layer.name);
        labels.insert("app.kubernetes.io/name".to_owned(), "credentials".to_owned());
        Secret {
            metadata: ObjectMeta {
                name: Some(names::credentials(&layer.name)),
                namespace: Some(layer.namespace.clone()),
                labels: Some(labels),
                resource_version: stored.and_then(|secret| secret.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            data: Some(self.0.iter().map(|(key, text)| (key.clone(), ByteString(text.clone().into_bytes()))).collect()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
    }
}

fn values(secret: &Secret) -> BTreeMap<String, String> {
    let text = |bytes: &ByteString| String::from_utf8(bytes.0.clone()).ok().filter(|text| !text.is_empty());
    let data = secret.data.iter().flatten();
    data.filter_map(|(key, bytes)| Some((key.clone(), text(bytes)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_kept_and_what_is_lacking_is_made() {
        let data = BTreeMap::from([(REDIS_PASSWORD.to_owned(), ByteString(b"kept".to_vec()))]);
        let stored = Secret { data: Some(data), ..Secret::default() };
        let (credentials, lacking) = Credentials::complete(Some(&stored), &Entropy::new([7; 32]));
        assert!(lacking);
        assert_eq!(credentials.get(REDIS_PASSWORD), "kept");
        assert_eq!(credentials.get(MONGO_KEY_FILE).len(), 64);
        assert_ne!(credentials.get(MONGO_KEY_FILE), credentials.get(MONGO_APPLICATION));
    }

    #[test]
    fn a_complete_secret_needs_no_write_whatever_the_entropy() {
        let (made, _) = Credentials::complete(None, &Entropy::new([1; 32]));
        let data = made.0.iter().map(|(key, text)| (key.clone(), ByteString(text.clone().into_bytes()))).collect();
        let stored = Secret { data: Some(data), ..Secret::default() };
        assert_eq!(Credentials::complete(Some(&stored), &Entropy::new([2; 32])), (made, false));
    }
}
