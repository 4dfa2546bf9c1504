//! What the operator is started with. Read once by `main`, never again.

use clap::Args;

/// Default images of the components, for resources that name none.
#[derive(Args, Clone, Debug, Default)]
pub struct Images {
    /// Image of Postgres with Patroni.
    #[arg(long = "image-postgres", env = "AZORA_IMAGE_POSTGRES", default_value = "")]
    pub postgres: String,
    /// Image of `MongoDB`.
    #[arg(long = "image-mongo", env = "AZORA_IMAGE_MONGO", default_value = "")]
    pub mongo: String,
    /// Image of Redis.
    #[arg(long = "image-redis", env = "AZORA_IMAGE_REDIS", default_value = "")]
    pub redis: String,
    /// Image of Nexus.
    #[arg(long = "image-nexus", env = "AZORA_IMAGE_NEXUS", default_value = "")]
    pub nexus: String,
}

/// What every plan takes into account beside the resource.
#[derive(Args, Clone, Debug, Default)]
pub struct Surroundings {
    /// Default images.
    #[command(flatten)]
    pub images: Images,
    /// Namespace that the operator runs in; holds its Lease, and NetworkPolicies let pods of it reach the stores.
    #[arg(long, env = "AZORA_OPERATOR_NAMESPACE", default_value = "azora-system")]
    pub operator_namespace: String,
    /// Domain of Services in the cluster.
    #[arg(long, env = "AZORA_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
}

/// How one operator process runs.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// What every plan takes into account beside the resource.
    #[command(flatten)]
    pub surroundings: Surroundings,
    /// Name by which this process holds the Lease; its pod's name.
    #[arg(long, env = "AZORA_OPERATOR_IDENTITY", default_value = "azora-operator")]
    pub identity: String,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    #[arg(long, env = "AZORA_OPERATOR_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: std::net::SocketAddr,
    /// What is logged, as a tracing filter.
    #[arg(long, env = "AZORA_OPERATOR_LOG", default_value = "info")]
    pub log: String,
}
