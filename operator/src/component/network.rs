//! Who may open connections to a layer's pods, and to whom they may. Closed but for what the layer itself needs;
//! the kubelet's probes are not subject to it. Pure.

use crate::component::metadata;
use crate::layer::Layer;
use crate::names::{self, Component, MONGO_PORT, NEXUS_PORT, PATRONI_PORT, POSTGRES_PORT, REDIS_PORT};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// Ports on which API servers listen: the Service's, and the one behind it, which is what a policy sees.
const API_SERVER_PORTS: [i32; 2] = [443, 6443];

/// The port of webhooks.
const HTTPS_PORT: i32 = 443;

/// Where clusters and what is around them have their addresses (RFC 1918, 3927, 6598), and this machine.
const NOT_PUBLIC_V4: [&str; 6] =
    ["10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"];

/// One policy per component, or none where they are switched off.
pub fn desired(layer: &Layer) -> Vec<NetworkPolicy> {
    if !layer.network_enforced {
        return Vec::new();
    }
    Component::ALL.into_iter().map(|component| policy(layer, component)).collect()
}

fn policy(layer: &Layer, component: Component) -> NetworkPolicy {
    NetworkPolicy {
        metadata: metadata(layer, component, names::of(layer, component)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(names::selector(layer, component))),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress(layer, component)),
            egress: Some(egress(layer, component)),
        }),
    }
}

fn ingress(layer: &Layer, component: Component) -> Vec<NetworkPolicyIngressRule> {
    let from = |peers: Option<Vec<NetworkPolicyPeer>>, numbers: &[i32]| NetworkPolicyIngressRule {
        from: peers,
        ports: Some(numbers.iter().map(|number| tcp(*number)).collect()),
    };
    let clients = || Some(vec![peer(layer, Component::Nexus), operator(layer)]);
    let members = || Some(vec![peer(layer, component)]);
    match component {
        Component::Postgres => vec![from(clients(), &[POSTGRES_PORT]), from(members(), &[POSTGRES_PORT, PATRONI_PORT])],
        Component::Mongo => vec![from(clients(), &[MONGO_PORT]), from(members(), &[MONGO_PORT])],
        Component::Redis => vec![from(clients(), &[REDIS_PORT]), from(members(), &[REDIS_PORT])],
        // The platform's front door: who may do what is decided by tokens.
        Component::Nexus => vec![from(None, &[NEXUS_PORT])],
    }
}

fn egress(layer: &Layer, component: Component) -> Vec<NetworkPolicyEgressRule> {
    let to = |peers: Option<Vec<NetworkPolicyPeer>>, ports: Vec<NetworkPolicyPort>| NetworkPolicyEgressRule {
        to: peers,
        ports: Some(ports),
    };
    let names = to(None, vec![tcp(53), NetworkPolicyPort { protocol: Some("UDP".to_owned()), ..tcp(53) }]);
    let one = |component, numbers: &[i32]| {
        to(Some(vec![peer(layer, component)]), numbers.iter().map(|number| tcp(*number)).collect())
    };
    let mut rules = vec![names];
    rules.extend(match component {
        Component::Postgres => vec![
            one(component, &[POSTGRES_PORT, PATRONI_PORT]),
            // Patroni keeps its lock in the API server, whose address no selector names.
            to(None, API_SERVER_PORTS.map(tcp).to_vec()),
        ],
        Component::Mongo => vec![one(component, &[MONGO_PORT])],
        Component::Redis => vec![one(component, &[REDIS_PORT])],
        Component::Nexus => {
            let mut rules = vec![
                one(Component::Postgres, &[POSTGRES_PORT]),
                one(Component::Mongo, &[MONGO_PORT]),
                one(Component::Redis, &[REDIS_PORT]),
                // A client that polls reaches any pod, and that the one that holds its session.
                one(component, &[NEXUS_PORT]),
                to(Some(public_addresses()), vec![tcp(HTTPS_PORT)]),
            ];
            if let Some(address) = &layer.nexus.jwks_url {
                rules.push(to(None, vec![tcp(port_of(address))]));
            }
            if !layer.nexus.traces.otlp_endpoint.is_empty() {
                rules.push(to(None, vec![tcp(port_of(&layer.nexus.traces.otlp_endpoint))]));
            }
            let networks = &layer.nexus.webhooks.allow_networks;
            if !networks.is_empty() {
                rules.push(to(Some(networks.iter().map(|network| block(network, None)).collect()), Vec::new()));
            }
            rules
        }
    });
    rules
}

/// Where webhooks are delivered. Nexus looks at each address itself, and closer.
fn public_addresses() -> Vec<NetworkPolicyPeer> {
    let not_public = NOT_PUBLIC_V4.map(str::to_owned).to_vec();
    vec![block("0.0.0.0/0", Some(not_public)), block("2000::/3", None)]
}

fn block(cidr: &str, except: Option<Vec<String>>) -> NetworkPolicyPeer {
    NetworkPolicyPeer { ip_block: Some(IPBlock { cidr: cidr.to_owned(), except }), ..NetworkPolicyPeer::default() }
}

/// The port in an address, or the one that its scheme implies.
fn port_of(address: &str) -> i32 {
    let (scheme, rest) = address.split_once("://").unwrap_or(("https", address));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let implied = if scheme == "http" { 80 } else { 443 };
    authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(implied)
}

fn tcp(number: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(number)),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    }
}

fn peer(layer: &Layer, component: Component) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(selector(names::selector(layer, component))),
        ..NetworkPolicyPeer::default()
    }
}

fn operator(layer: &Layer) -> NetworkPolicyPeer {
    let one = |key: &str, value: &str| selector(BTreeMap::from([(key.to_owned(), value.to_owned())]));
    NetworkPolicyPeer {
        namespace_selector: Some(one("kubernetes.io/metadata.name", &layer.operator_namespace)),
        pod_selector: Some(one("app.kubernetes.io/name", "azora-operator")),
        ..NetworkPolicyPeer::default()
    }
}

fn selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

#[cfg(test)]
mod tests {
    use super::port_of;

    #[test]
    fn the_port_of_an_address_is_the_one_in_it_or_that_of_its_scheme() {
        assert_eq!(port_of("https://id.example.org/keys"), 443);
        assert_eq!(port_of("http://dex.auth:5556/keys"), 5556);
        assert_eq!(port_of("http://dex/keys:1"), 80);
    }
}
