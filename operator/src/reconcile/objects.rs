//! Everything that a layer is made of, one list per kind. Whoever takes it apart does so without `..`, so that a kind
//! that nobody applies does not compile.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde::Serialize;

/// Objects by kind. Volume claims and credentials are no kind of it: they are never applied over nor pruned.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Objects {
    /// Identities of pods that call the API server.
    pub service_accounts: Vec<ServiceAccount>,
    /// What those may do.
    pub roles: Vec<Role>,
    /// Who may do it.
    pub role_bindings: Vec<RoleBinding>,
    /// Configuration files.
    pub config_maps: Vec<ConfigMap>,
    /// Secrets that follow from the credentials and can be made again.
    pub secrets: Vec<Secret>,
    /// Stable addresses.
    pub services: Vec<Service>,
    /// Who may open connections.
    pub network_policies: Vec<NetworkPolicy>,
    /// How many pods may be evicted at a time.
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    /// The stores.
    pub stateful_sets: Vec<StatefulSet>,
    /// Nexus.
    pub deployments: Vec<Deployment>,
}

impl Objects {
    /// Adds all of another.
    pub fn extend(&mut self, other: Self) {
        let Self {
            service_accounts,
            roles,
            role_bindings,
            config_maps,
            secrets,
            services,
            network_policies,
            disruption_budgets,
            stateful_sets,
            deployments,
        } = other;
        self.service_accounts.extend(service_accounts);
        self.roles.extend(roles);
        self.role_bindings.extend(role_bindings);
        self.config_maps.extend(config_maps);
        self.secrets.extend(secrets);
        self.services.extend(services);
        self.network_policies.extend(network_policies);
        self.disruption_budgets.extend(disruption_budgets);
        self.stateful_sets.extend(stateful_sets);
        self.deployments.extend(deployments);
    }
}
