//! The rules of the `nexus` block. Pure.

use super::{AzoraDataLayer, Profile, Refusals};
use crate::api::NexusSpec;
use crate::layer::{Nexus, Workload};
use std::net::IpAddr;

/// What a spec of Nexus must be.
pub(super) fn check(refusals: &mut Refusals, azora: &AzoraDataLayer) {
    let nexus = &azora.spec.nexus;
    let signed = azora.spec.profile == Profile::Development || !nexus.auth.jwks_url.is_empty();
    let message =
        "must name the key set that signs tokens when profile is Production; a generated key is for Development";
    refusals.unless(signed, "AuthRequired", "spec.nexus.auth.jwksUrl", message);
    let url = &nexus.auth.jwks_url;
    let address = url.is_empty() || url.starts_with("http://") || url.starts_with("https://");
    refusals.unless(address, "AuthInvalid", "spec.nexus.auth.jwksUrl", "must begin with https:// or http://");
    for (field, value, least, most) in numbers(nexus) {
        let holds = value.is_none_or(|value| (least..=most).contains(&value));
        let message = match most {
            i64::MAX => format!("must be at least {least}"),
            _ => format!("must be from {least} to {most}"),
        };
        refusals.unless(holds, "OutOfRange", field, message);
    }
    let endpoint = &nexus.traces.otlp_endpoint;
    let address = endpoint.is_empty() || endpoint.starts_with("http://") || endpoint.starts_with("https://");
    refusals.unless(address, "AddressInvalid", "spec.nexus.traces.otlpEndpoint", "must begin with https:// or http://");
    for network in &nexus.webhooks.allow_networks {
        let message = format!("{network:?} is no network, such as 10.1.0.0/16");
        refusals.unless(is_network(network), "NetworkInvalid", "spec.nexus.webhooks.allowNetworks", message);
    }
    let map = &nexus.event_types_config_map;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let name = map.len() <= 253 && map.bytes().all(plain) && !map.starts_with(['-', '.']) && !map.ends_with(['-', '.']);
    let message = "must be the name of a ConfigMap: a-z, 0-9, - and .";
    refusals.unless(name, "NameInvalid", "spec.nexus.eventTypesConfigMap", message);
    for origin in &nexus.allowed_origins {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let plain = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ',', ' ', '\t', '\n']));
        let message = format!("{origin:?} is no origin: scheme and host only, such as https://app.example.org");
        refusals.unless(plain, "OriginInvalid", "spec.nexus.allowedOrigins", message);
    }
}

/// The Nexus of an accepted spec.
pub(super) fn nexus(spec: &NexusSpec, workload: Workload) -> Nexus {
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    Nexus {
        workload,
        jwks_url: given(&spec.auth.jwks_url),
        issuer: given(&spec.auth.issuer),
        audience: given(&spec.auth.audience),
        allowed_origins: spec.allowed_origins.clone(),
        event_types: given(&spec.event_types_config_map),
        token_seconds_max: spec.auth.token_seconds_max,
        retention: spec.retention.clone(),
        limits: spec.limits.clone(),
        webhooks: spec.webhooks.clone(),
        traces: spec.traces.clone(),
    }
}

/// Each number with the field that it stands in, and the range that it must be in.
fn numbers(nexus: &NexusSpec) -> [(&'static str, Option<i64>, i64, i64); 14] {
    let (retention, limits) = (&nexus.retention, &nexus.limits);
    [
        ("spec.nexus.retention.eventsMin", Some(retention.events_min), 1000, i64::MAX),
        ("spec.nexus.retention.hoursMax", retention.hours_max, 1, 876_000),
        ("spec.nexus.auth.tokenSecondsMax", nexus.auth.token_seconds_max, 1, 31_536_000),
        ("spec.nexus.limits.bodyBytesMax", Some(limits.body_bytes_max), 1024, 16 << 20),
        ("spec.nexus.limits.frameBytesMax", Some(limits.frame_bytes_max), 1024, 1 << 20),
        ("spec.nexus.limits.connectionsMax", limits.connections_max, 1, 1_000_000),
        ("spec.nexus.limits.personRequestsPerSecond", limits.person_requests_per_second, 0, 1_000_000),
        ("spec.nexus.limits.serviceRequestsPerSecond", limits.service_requests_per_second, 0, 1_000_000),
        ("spec.nexus.limits.addressRequestsPerSecond", limits.address_requests_per_second, 0, 1_000_000),
        ("spec.nexus.limits.connectionCommandsPerSecond", limits.connection_commands_per_second, 0, 1_000_000),
        ("spec.nexus.limits.personConnectionsMax", limits.person_connections_max, 0, 1_000_000),
        ("spec.nexus.limits.addressConnectionsMax", limits.address_connections_max, 0, 1_000_000),
        ("spec.nexus.limits.proxies", limits.proxies, 0, 16),
        ("spec.nexus.traces.samplePercent", nexus.traces.sample_percent, 0, 100),
    ]
}

/// Whether a text is an address, a slash and the length of a prefix.
fn is_network(text: &str) -> bool {
    let parts = text.split_once('/');
    parts.is_some_and(|(address, prefix)| match (address.parse(), prefix.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(prefix)) => prefix <= 32,
        (Ok(IpAddr::V6(_)), Ok(prefix)) => prefix <= 128,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::is_network;

    #[test]
    fn a_network_is_an_address_and_the_length_of_a_prefix() {
        let all = ["10.1.0.0/16", "fd00::/8", "0.0.0.0/0", "10.1.0.0", "10.1.0.0/33", "10.1/16", "fd00::/129", "a/8"];
        assert_eq!(all.map(is_network), [true, true, true, false, false, false, false, false]);
    }
}
