//! The example becomes a data layer that keeps, store by store, what the operator promises.
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use azora_tests::layer::{Component, Layer, READY};
use azora_tests::stores::{self, Identity};
use azora_tests::trial::{Company, trial};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use mongodb::bson::doc;
use serde_json::Value;

#[tokio::test]
async fn the_example_is_ready_in_time_and_each_store_keeps_its_promise() -> anyhow::Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/development.yaml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let manifest: Value = serde_norway::from_str(&text).context("parse the example")?;
    // Alone, because the time to Ready is part of the promise and the others load the same cores.
    trial("promises", Company::Alone, async |trial| {
        let layer = Layer::apply_manifest(trial, &manifest).await?;
        let status = layer.ready(READY).await?.status.context("a ready data layer has a status")?;
        let ready = [&status.postgres, &status.mongo, &status.redis, &status.nexus];
        let ready = ready.map(|component| component.as_ref().map(|component| component.ready.as_str()));
        assert_eq!(ready, [Some("1/1"); 4]);
        assert_eq!(status.binding, format!("{}-binding", layer.name));

        let binding = layer.binding().await?;
        postgres_keeps_its_promise(&layer, &binding).await?;
        mongo_keeps_its_promise(&layer, &binding).await?;
        redis_keeps_its_promise(&layer, &binding).await?;
        assert_eq!(layer.nexus().await?.status_without_token("/v1/events").await?, 401);
        for component in [Component::Postgres, Component::Mongo, Component::Redis] {
            volume_is_mounted(&layer, component).await?;
        }
        network_policies_are_there(&layer).await
    })
    .await
}

/// The leader, of version 15, with a role for the application that owns its database and is no superuser.
async fn postgres_keeps_its_promise(layer: &Layer<'_>, binding: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let sql = "select pg_is_in_recovery(), current_setting('server_version_num')::int / 10000, current_user, \
               (select rolsuper from pg_roles where rolname = current_user), \
               (select pg_get_userbyid(datdba) from pg_database where datname = current_database())";
    assert_eq!(layer.psql(sql).await?, "f|15|nexus|f|nexus", "through the Service, with the binding's credentials");
    let pids = layer.run(Component::Postgres, &["cat", "/var/lib/postgresql/data/pgdata/postmaster.pid"]).await?;
    assert_eq!(
        pids.lines().nth(1),
        Some("/var/lib/postgresql/data/pgdata"),
        "the server's own word on its data directory"
    );

    let address = layer.open(Component::Postgres).await?;
    stores::postgres(address, Identity::Application(binding)).await.context("connect as the application")?;
    for stranger in [Identity::Nobody, Identity::WrongPassword(binding)] {
        let refused = stores::postgres(address, stranger).await.err().context("a stranger got into Postgres")?;
        let code = refused.downcast_ref::<sqlx::Error>().and_then(|error| error.as_database_error()?.code());
        assert_eq!(code.as_deref(), Some("28P01"), "invalid_password is the answer, not {refused:#}");
    }
    Ok(())
}

/// The primary of a replica set of one, with authorization on.
async fn mongo_keeps_its_promise(layer: &Layer<'_>, binding: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let address = layer.open(Component::Mongo).await?;
    let application = stores::mongo(address, Identity::Application(binding))?;
    let hello = application.run_command(doc! {"hello": 1}).await.context("say hello to Mongo")?;
    assert_eq!(hello.get_bool("isWritablePrimary").ok(), Some(true), "{hello}");
    assert!(binding["mongo.uri"].contains(&format!("replicaSet={}", hello.get_str("setName")?)), "{hello}");
    let lock = layer.run(Component::Mongo, &["cat", "/data/db/mongod.lock"]).await?;
    assert!(!lock.trim().is_empty(), "the server that runs has locked its data directory");

    let nobody = stores::mongo(address, Identity::Nobody)?.run_command(doc! {"listCollections": 1}).await;
    assert_eq!(mongo_code(nobody), Some(13), "Unauthorized is the answer to nobody");
    let wrong = stores::mongo(address, Identity::WrongPassword(binding))?.run_command(doc! {"ping": 1}).await;
    assert_eq!(mongo_code(wrong), Some(18), "AuthenticationFailed is the answer to a wrong password");
    Ok(())
}

/// The primary, append-only, in its data directory.
async fn redis_keeps_its_promise(layer: &Layer<'_>, binding: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let address = layer.open(Component::Redis).await?;
    let mut redis = stores::redis(address, Identity::Application(binding)).await?;
    let settings: BTreeMap<String, String> =
        redis::cmd("CONFIG").arg("GET").arg("dir").arg("appendonly").query_async(&mut redis).await?;
    let expected = [("appendonly", "yes"), ("dir", "/data")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(settings, BTreeMap::from(expected));
    let replication: String = redis::cmd("INFO").arg("replication").query_async(&mut redis).await?;
    assert!(replication.contains("role:master"), "{replication}");

    let nobody = stores::redis(address, Identity::Nobody).await;
    let nobody = match nobody {
        Ok(mut nobody) => redis::cmd("PING").exec_async(&mut nobody).await.err().context("nobody got into Redis")?,
        Err(error) => error.downcast().context("connect to Redis as nobody")?,
    };
    assert_eq!(nobody.code(), Some("NOAUTH"), "{nobody}");
    let wrong = stores::redis(address, Identity::WrongPassword(binding)).await.err();
    let wrong: redis::RedisError = wrong.context("a wrong password got into Redis")?.downcast()?;
    assert_eq!(wrong.kind(), redis::ErrorKind::AuthenticationFailed, "{wrong}");
    Ok(())
}

fn mongo_code(answer: mongodb::error::Result<mongodb::bson::Document>) -> Option<i32> {
    match *answer.err()?.kind {
        mongodb::error::ErrorKind::Command(error) => Some(error.code),
        mongodb::error::ErrorKind::Authentication { .. } => Some(18),
        _ => None,
    }
}

/// The data directory is the mount point of the component's own claim, in the pod's spec and in the running container.
async fn volume_is_mounted(layer: &Layer<'_>, component: Component) -> anyhow::Result<()> {
    let path = match component {
        Component::Postgres => "/var/lib/postgresql/data",
        Component::Mongo => "/data/db",
        Component::Redis | Component::Nexus => "/data",
    };
    let pods = layer.pods(component).await?;
    let claim = pods.first().and_then(|pod| claim_at(pod, component.word(), path));
    assert_eq!(claim, Some(format!("data-{}-{}-0", layer.name, component.word())));
    let mounts = layer.run(component, &["cat", "/proc/self/mounts"]).await?;
    let mounted = mounts.lines().any(|mount| mount.split(' ').nth(1) == Some(path));
    assert!(mounted, "{path} is no mount point of {}: {mounts}", component.word());
    Ok(())
}

/// The claim of the volume that a container mounts at `path`.
fn claim_at(pod: &Pod, container: &str, path: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let container = spec.containers.iter().find(|found| found.name == container)?;
    let mount = container.volume_mounts.iter().flatten().find(|mount| mount.mount_path == path)?;
    let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name)?;
    Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone())
}

/// The policies are there and select the pods. Whether traffic is stopped is not checked: the network plug-in of the
/// local cluster does not enforce policies.
async fn network_policies_are_there(layer: &Layer<'_>) -> anyhow::Result<()> {
    let policies = layer.trial.api::<NetworkPolicy>().list(&layer.selector()).await.context("list the policies")?;
    for component in Component::ALL {
        let labels = layer.labels(component);
        let policy = policies.iter().find_map(|policy| {
            let spec = policy.spec.as_ref()?;
            let selected = spec.pod_selector.as_ref()?.match_labels.as_ref()?;
            labels.iter().all(|(key, value)| selected.get(key) == Some(value)).then_some(spec)
        });
        let policy = policy.with_context(|| format!("no NetworkPolicy selects the pods of {}", component.word()))?;
        assert!(policy.policy_types.iter().flatten().any(|kind| kind == "Ingress"), "{policy:?}");
        let open = policy.ingress.iter().flatten().any(|rule| rule.from.as_ref().is_none_or(Vec::is_empty));
        assert_eq!(open, component == Component::Nexus, "only Nexus is open to all: {policy:?}");
    }
    eprintln!("not checked: that the network enforces these policies; the local cluster's plug-in does not");
    Ok(())
}
