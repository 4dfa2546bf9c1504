//! A way from the test's process to pods: a `NodePort` Service of the test's own, with the operator's labels as selector.
//! Must never be a port-forward: that would go past kube-proxy, and so past what an application meets.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{ObjectMeta, PostParams};
use tokio::net::TcpStream;

use crate::trial::Trial;
use crate::wait::{Look, wait_for};

/// kube-proxy learns of a new Service within seconds.
const ANSWERS: Duration = Duration::from_mins(1);

/// Opens `port` of the pods that carry `labels` on every node, and returns an address once it answers.
/// A pod that is not ready is left out, as in every Service.
pub async fn open(
    trial: &Trial,
    name: &str,
    labels: BTreeMap<String, String>,
    port: u16,
) -> anyhow::Result<SocketAddr> {
    let object = Service {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(ServiceSpec {
            type_: Some("NodePort".to_owned()),
            selector: Some(labels),
            ports: Some(vec![ServicePort {
                port: i32::from(port),
                target_port: Some(IntOrString::Int(i32::from(port))),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    let made = trial.api::<Service>().create(&PostParams::default(), &object).await;
    let made = made.with_context(|| format!("create Service {name}"))?;
    let node_port = made.spec.and_then(|spec| spec.ports?.first()?.node_port);
    let node_port = node_port.with_context(|| format!("Service {name} got no node port"))?;
    let node_port = u16::try_from(node_port).with_context(|| format!("Service {name} got node port {node_port}"))?;
    let address = SocketAddr::new(trial.cluster.node_address, node_port);
    wait_for(&format!("node port {address} of Service {name} to answer"), ANSWERS, async || {
        TcpStream::connect(address).await?;
        Ok(Look::Done(address))
    })
    .await
}
