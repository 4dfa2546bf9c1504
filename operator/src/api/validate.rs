//! From a resource to an accepted `Layer`, or to the reasons why not. Pure. Holds the rules of the schema once more,
//! for a cluster whose definition is older than the operator, and those that only the operator can tell.

mod nexus;
mod resources;

use super::postgres::RESERVED_PARAMETERS;
use super::{Amount, AzoraDataLayer, DeletionPolicy, Durability, Profile, StorageSpec};
use crate::layer::{Layer, Mongo, Postgres, Redis, Storage, Workload};
use crate::settings::Surroundings;
use resources::{Defaults, resolve};

/// Longest name of a resource, in bytes. The longest name made from it is a Patroni pod's
/// `NAME-postgres-members` with a revision hash in a label of at most 63 bytes.
pub const LAYER_NAME_LENGTH_MAX: usize = 40;

/// Smallest volume, in bytes: below it Postgres does not even begin.
const STORAGE_BYTES_MIN: u128 = 100 << 20;

/// Smallest memory of Redis for data, in bytes.
const REDIS_BYTES_MIN: u128 = 16 << 20;

/// Why a resource is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word, the same in the condition, the metric and the Event.
    pub reason: &'static str,
    /// The field, as a path from the root of the resource.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Collects refusals, so that a user sees all of them at once.
#[derive(Default)]
struct Refusals(Vec<Refusal>);

impl Refusals {
    fn unless(&mut self, holds: bool, reason: &'static str, field: &'static str, message: impl Into<String>) {
        if !holds {
            self.0.push(Refusal { reason, field, message: message.into() });
        }
    }
}

/// Accepts a resource, or says everything that stands against it.
pub fn validate(azora: &AzoraDataLayer, surroundings: &Surroundings) -> Result<Layer, Vec<Refusal>> {
    let mut refusals = Refusals::default();
    check_name(&mut refusals, azora.metadata.name.as_deref().unwrap_or_default());
    check_counts(&mut refusals, azora);
    check_versions(&mut refusals, azora);
    check_storage(&mut refusals, azora);
    check_postgres_parameters(&mut refusals, azora);
    check_redis_memory(&mut refusals, azora);
    nexus::check(&mut refusals, azora);
    let layer = layer(&mut refusals, azora, surroundings);
    if refusals.0.is_empty() { Ok(layer) } else { Err(refusals.0) }
}

fn check_name(refusals: &mut Refusals, name: &str) {
    let field = "metadata.name";
    let long =
        format!("has {} characters; at most {LAYER_NAME_LENGTH_MAX} leave room for the names made from it", name.len());
    refusals.unless(name.len() <= LAYER_NAME_LENGTH_MAX, "NameTooLong", field, long);
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let message =
        "must begin with a letter and hold only lower-case letters, digits and '-': Services are named after it";
    refusals.unless(letters && starts && !name.ends_with('-'), "NameInvalid", field, message);
}

fn check_counts(refusals: &mut Refusals, azora: &AzoraDataLayer) {
    let counts = Counts::of(azora);
    let range = "OutOfRange";
    refusals.unless((1..=9).contains(&counts.postgres), range, "spec.postgres.instances", "must be from 1 to 9");
    refusals.unless((1..=7).contains(&counts.mongo), range, "spec.mongo.members", "must be from 1 to 7");
    refusals.unless(counts.mongo % 2 == 1, range, "spec.mongo.members", "must be odd");
    refusals.unless((1..=20).contains(&counts.nexus), range, "spec.nexus.replicas", "must be from 1 to 20");
    let message = "this version of the operator runs one Redis and no Sentinel; set it to 1";
    refusals.unless(counts.redis == 1, "RedisInstancesUnsupported", "spec.redis.instances", message);
}

fn check_versions(refusals: &mut Refusals, azora: &AzoraDataLayer) {
    let spec = &azora.spec;
    let reason = "VersionUnsupported";
    refusals.unless(spec.postgres.version == "15", reason, "spec.postgres.version", "must be 15");
    let mongo = ["6", "7", "8"].contains(&spec.mongo.version.as_str());
    refusals.unless(mongo, reason, "spec.mongo.version", "must be 6, 7 or 8");
    let redis = ["7", "8"].contains(&spec.redis.version.as_str());
    refusals.unless(redis, reason, "spec.redis.version", "must be 7 or 8");
}

fn check_storage(refusals: &mut Refusals, azora: &AzoraDataLayer) {
    let spec = &azora.spec;
    for (field, storage) in [
        ("spec.postgres.storage.size", &spec.postgres.storage),
        ("spec.mongo.storage.size", &spec.mongo.storage),
        ("spec.redis.storage.size", &spec.redis.storage),
    ] {
        let enough = storage.size.units().is_some_and(|bytes| bytes >= STORAGE_BYTES_MIN);
        refusals.unless(enough, "QuantityInvalid", field, "must be a quantity of at least 100Mi, such as 20Gi");
    }
}

fn check_postgres_parameters(refusals: &mut Refusals, azora: &AzoraDataLayer) {
    for (name, value) in &azora.spec.postgres.parameters {
        let free = !RESERVED_PARAMETERS.contains(&name.to_lowercase().as_str());
        let message = format!("{name} is decided by the operator or Patroni");
        refusals.unless(free, "ParameterReserved", "spec.postgres.parameters", message);
        let word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte));
        let plain = !value.contains(['\n', '\r', '\0']);
        let message =
            format!("{name:?} is no setting of Postgres: letters, digits, '_' and '.', and a value of one line");
        refusals.unless(word && plain, "ParameterInvalid", "spec.postgres.parameters", message);
    }
}

fn check_redis_memory(refusals: &mut Refusals, azora: &AzoraDataLayer) {
    let redis = &azora.spec.redis;
    let bytes = redis.max_memory.units().unwrap_or_default();
    let message = "must be a quantity of at least 16Mi";
    refusals.unless(bytes >= REDIS_BYTES_MIN, "QuantityInvalid", "spec.redis.maxMemory", message);
    let limit = redis.resources.limits.get("memory").and_then(Amount::units);
    let message = "must be above spec.redis.maxMemory, or Redis is killed before it is full";
    let fits = limit.is_none_or(|limit| limit > bytes);
    refusals.unless(fits, "MemoryBelowMaxMemory", "spec.redis.resources.limits.memory", message);
}

/// How many pods of each component there are to be.
struct Counts {
    postgres: i32,
    mongo: i32,
    redis: i32,
    nexus: i32,
}

impl Counts {
    fn of(azora: &AzoraDataLayer) -> Self {
        let spec = &azora.spec;
        let (stores, replicas) = match spec.profile {
            Profile::Production => (3, 2),
            Profile::Development => (1, 1),
        };
        Self {
            postgres: spec.postgres.instances.unwrap_or(stores),
            mongo: spec.mongo.members.unwrap_or(stores),
            redis: spec.redis.instances.unwrap_or(stores),
            nexus: spec.nexus.replicas.unwrap_or(replicas),
        }
    }
}

fn layer(refusals: &mut Refusals, azora: &AzoraDataLayer, surroundings: &Surroundings) -> Layer {
    let (meta, spec, counts) = (&azora.metadata, &azora.spec, Counts::of(azora));
    let images = &surroundings.images;
    let defaults = Defaults::of(spec.profile, spec.redis.max_memory.units().unwrap_or_default());
    let mut workload = |count, image: &(&'static str, &String, &String), resources, defaults| Workload {
        count,
        image: choose_image(refusals, image),
        resources: resolve(refusals, resources, defaults),
    };
    Layer {
        name: meta.name.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        cluster_domain: surroundings.cluster_domain.clone(),
        operator_namespace: surroundings.operator_namespace.clone(),
        delete_data: spec.deletion_policy == DeletionPolicy::Delete,
        paused: spec.paused,
        network_enforced: spec.network.policy == super::NetworkPolicyMode::Enforced,
        postgres: Postgres {
            workload: workload(
                counts.postgres,
                &("spec.postgres.image", &spec.postgres.image, &images.postgres),
                ("spec.postgres.resources", &spec.postgres.resources),
                defaults.postgres,
            ),
            storage: storage(&spec.postgres.storage),
            version: spec.postgres.version.clone(),
            parameters: spec.postgres.parameters.clone(),
            quorum: spec.postgres.durability == Durability::Quorum && counts.postgres >= 3,
        },
        mongo: Mongo {
            workload: workload(
                counts.mongo,
                &("spec.mongo.image", &spec.mongo.image, &images.mongo),
                ("spec.mongo.resources", &spec.mongo.resources),
                defaults.mongo,
            ),
            storage: storage(&spec.mongo.storage),
            version: spec.mongo.version.clone(),
        },
        redis: Redis {
            workload: workload(
                counts.redis,
                &("spec.redis.image", &spec.redis.image, &images.redis),
                ("spec.redis.resources", &spec.redis.resources),
                defaults.redis,
            ),
            storage: storage(&spec.redis.storage),
            version: spec.redis.version.clone(),
            max_memory_bytes: spec.redis.max_memory.units().unwrap_or_default(),
        },
        nexus: nexus::nexus(
            &spec.nexus,
            workload(
                counts.nexus,
                &("spec.nexus.image", &spec.nexus.image, &images.nexus),
                ("spec.nexus.resources", &spec.nexus.resources),
                defaults.nexus,
            ),
        ),
    }
}

fn choose_image(refusals: &mut Refusals, image: &(&'static str, &String, &String)) -> String {
    let (field, given, default) = *image;
    let chosen = if given.is_empty() { default } else { given };
    let message = "must be given: the operator was installed without a default for it";
    refusals.unless(!chosen.is_empty(), "ImageMissing", field, message);
    let plain = !chosen.contains(char::is_whitespace);
    refusals.unless(plain, "ImageInvalid", field, "must be an image reference without white space");
    chosen.clone()
}

fn storage(spec: &StorageSpec) -> Storage {
    let class = (!spec.class_name.is_empty()).then(|| spec.class_name.clone());
    Storage { size: spec.size.clone(), class }
}
