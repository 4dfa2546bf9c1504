//! The cluster under test: which one, how to reach its API server, and where its node ports answer.
//! Must never start or change a cluster; `cargo xtask test` does that before the tests run.
use std::net::IpAddr;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};

/// The namespace that the operator's Helm release lives in.
pub const OPERATOR_NAMESPACE: &str = "azora-system";
/// The name of the operator's Deployment, Lease and field manager.
pub const OPERATOR_NAME: &str = "azora-operator";
/// The context that `cargo xtask up` makes.
const CONTEXT_DEFAULT: &str = "kind-azora";

/// A cluster that answers.
#[derive(Clone)]
pub struct Cluster {
    /// Talks to the API server with the rights of the kubeconfig's user.
    pub client: Client,
    /// The kubeconfig context in use.
    pub context: String,
    /// Internal address of a node, where every `NodePort` Service answers.
    pub node_address: IpAddr,
}

impl Cluster {
    /// Connects to the context in `AZORA_TEST_CONTEXT`, or to the one that `cargo xtask up` makes.
    pub async fn connect() -> anyhow::Result<Self> {
        let context = std::env::var("AZORA_TEST_CONTEXT").unwrap_or_else(|_| CONTEXT_DEFAULT.to_owned());
        let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
        let config = Config::from_kubeconfig(&options)
            .await
            .with_context(|| format!("read context {context} of the kubeconfig; `cargo xtask up` makes it"))?;
        let client = Client::try_from(config).context("build a client from the kubeconfig")?;
        let node_address = node_address(&client).await?;
        Ok(Self { client, context, node_address })
    }

    /// Whether the nodes are containers on this machine, so that their processes are in this machine's `/proc`.
    pub fn is_local_kind(&self) -> bool {
        self.context.starts_with("kind-")
    }
}

/// The internal address of any node: kube-proxy answers for a node port on each of them.
async fn node_address(client: &Client) -> anyhow::Result<IpAddr> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.context("list the nodes")?;
    nodes
        .into_iter()
        .filter_map(|node| node.status?.addresses)
        .flatten()
        .filter(|address| address.type_ == "InternalIP")
        .find_map(|address| address.address.parse().ok())
        .context("no node has an internal address")
}
