//! The state of a failed test, as files that outlive its namespace: the data layer, pods, events and logs.
//! Must never read a Secret, and never fail: what cannot be read is written down as such.
use std::any::Any;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use azora_operator::api::AzoraDataLayer;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Service};
use kube::api::{Api, ListParams, LogParams};
use serde::Serialize;

use crate::cluster::OPERATOR_NAMESPACE;
use crate::trial::Trial;

/// The end of a log tells how it came to the failure; the start of a long one does not.
const LOG_LINES_MAX: i64 = 2000;

/// In words, how the test failed.
pub fn cause(outcome: &Result<anyhow::Result<()>, Box<dyn Any + Send>>) -> String {
    match outcome {
        Ok(Ok(())) => "did not fail".to_owned(),
        Ok(Err(error)) => format!("{error:?}"),
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
            .unwrap_or_else(|| "panicked without a message".to_owned()),
    }
}

/// Writes the state into `target/e2e-failures/NAMESPACE` and says where that is.
pub async fn write(trial: &Trial, cause: &str) {
    let folder = folder().join(&trial.namespace);
    if let Err(error) = std::fs::create_dir_all(&folder) {
        eprintln!("cannot dump the state of the failed test into {}: {error}", folder.display());
        return;
    }
    put(&folder, "cause.txt", Ok::<_, String>(cause.to_owned()));
    put_list::<AzoraDataLayer>(&folder, "data-layers.yaml", trial.api()).await;
    put_list::<Pod>(&folder, "pods.yaml", trial.api()).await;
    put_list::<Service>(&folder, "services.yaml", trial.api()).await;
    put_list::<PersistentVolumeClaim>(&folder, "volume-claims.yaml", trial.api()).await;
    put_list::<Event>(&folder, "events.yaml", trial.api()).await;
    put_logs(&folder, trial.api()).await;
    put_logs(&folder, Api::namespaced(trial.cluster.client.clone(), OPERATOR_NAMESPACE)).await;
    eprintln!("the state of the failed test is in {}", folder.display());
}

/// Beside the build products: the test binary lives in `TARGET/PROFILE/deps/`.
fn folder() -> PathBuf {
    let binary = std::env::current_exe().unwrap_or_default();
    binary.ancestors().nth(3).unwrap_or(Path::new("target")).join("e2e-failures")
}

async fn put_list<K>(folder: &Path, file: &str, api: Api<K>)
where
    K: kube::Resource + Clone + Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let text = match api.list(&ListParams::default()).await {
        Ok(list) => serde_norway::to_string(&list.items).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    put(folder, file, text);
}

/// The log of every container of every pod, and of the run before it where a container has restarted.
async fn put_logs(folder: &Path, pods: Api<Pod>) {
    let Ok(list) = pods.list(&ListParams::default()).await else { return };
    for pod in list {
        let name = pod.metadata.name.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let containers = status.init_container_statuses.into_iter().flatten();
        for container in containers.chain(status.container_statuses.into_iter().flatten()) {
            for previous in [false, true] {
                if previous && container.restart_count == 0 {
                    continue;
                }
                let suffix = if previous { ".previous" } else { "" };
                let parameters = LogParams {
                    container: Some(container.name.clone()),
                    previous,
                    tail_lines: Some(LOG_LINES_MAX),
                    timestamps: true,
                    ..LogParams::default()
                };
                let text = pods.logs(&name, &parameters).await;
                put(folder, &format!("{name}.{}{suffix}.log", container.name), text);
            }
        }
    }
}

fn put(folder: &Path, file: &str, text: Result<String, impl Display>) {
    let text = text.unwrap_or_else(|error| format!("could not be read: {error}\n"));
    if let Err(error) = std::fs::write(folder.join(file), text) {
        eprintln!("cannot write {file} of the dump: {error}");
    }
}
