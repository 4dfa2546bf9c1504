//! Compute resources: what suits a profile, what the user asks for, and whether the two go together. Pure.

use super::{Amount, Profile, Refusals};
use crate::api::ResourcesSpec;
use crate::layer::Resources;
use std::collections::BTreeMap;

/// Compute resources of each component where the user says nothing.
pub(super) struct Defaults {
    pub(super) postgres: Resources,
    pub(super) mongo: Resources,
    pub(super) redis: Resources,
    pub(super) nexus: Resources,
}

impl Defaults {
    /// What suits a profile. Development requests little, so that the whole stack fits a laptop; its limits leave
    /// room for a `WiredTiger` cache of 256 MiB, the smallest there is, and for Postgres' 128 MiB of shared buffers.
    pub(super) fn of(profile: Profile, redis_bytes: u128) -> Self {
        // Half as much again for fragmentation and the copy that a rewrite of the append-only file makes.
        let redis_limit = format!("{}Mi", redis_bytes * 3 / 2 / (1 << 20) + 64);
        match profile {
            Profile::Production => Self {
                postgres: resources("500m", "1Gi", "2Gi"),
                mongo: resources("500m", "1Gi", "2Gi"),
                redis: resources("200m", &format!("{}Mi", redis_bytes / (1 << 20) + 32), &redis_limit),
                nexus: resources("250m", "128Mi", "512Mi"),
            },
            Profile::Development => Self {
                postgres: resources("50m", "128Mi", "768Mi"),
                mongo: resources("50m", "160Mi", "768Mi"),
                redis: resources("20m", "32Mi", &redis_limit),
                nexus: resources("50m", "64Mi", "256Mi"),
            },
        }
    }
}

fn resources(cpu: &str, memory: &str, memory_limit: &str) -> Resources {
    let entry = |name: &str, amount: &str| (name.to_owned(), Amount::new(amount));
    Resources {
        requests: BTreeMap::from([entry("cpu", cpu), entry("memory", memory)]),
        limits: BTreeMap::from([entry("memory", memory_limit)]),
    }
}

/// The defaults with the user's words over them.
pub(super) fn resolve(
    refusals: &mut Refusals,
    (field, given): (&'static str, &ResourcesSpec),
    defaults: Resources,
) -> Resources {
    for (name, amount) in given.requests.iter().chain(&given.limits) {
        let message = format!("{name}: {:?} is no quantity, such as 500m or 1Gi", amount.text());
        refusals.unless(amount.thousandths().is_some(), "QuantityInvalid", field, message);
        let message = format!("{name} is none of cpu, memory and ephemeral-storage");
        let known = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str());
        refusals.unless(known, "ResourceUnknown", field, message);
    }
    let mut resolved = defaults;
    resolved.requests.extend(given.requests.clone());
    resolved.limits.extend(given.limits.clone());
    for (name, limit) in &resolved.limits {
        // A request of the user above a default limit, or a limit below a default request, moves the default.
        let Some(request) = resolved.requests.get_mut(name) else { continue };
        if request.thousandths() <= limit.thousandths() {
            continue;
        }
        let both = given.requests.contains_key(name) && given.limits.contains_key(name);
        let message = format!("the request of {name} is above its limit");
        refusals.unless(!both, "RequestAboveLimit", field, message);
        if given.limits.contains_key(name) {
            request.clone_from(limit);
        }
    }
    let raised: Vec<(String, Amount)> = resolved
        .limits
        .iter()
        .filter_map(|(name, limit)| {
            let request = resolved.requests.get(name)?;
            (request.thousandths() > limit.thousandths()).then(|| (name.clone(), request.clone()))
        })
        .collect();
    resolved.limits.extend(raised);
    resolved
}
