//! A data layer that is deleted and applied again has its data; with `deletionPolicy: Delete` nothing is left.
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use anyhow::Context as _;
use azora_operator::api::AzoraDataLayer;
use azora_tests::event;
use azora_tests::layer::Layer;
use azora_tests::trial::{Company, Trial, trial};
use azora_tests::wait::{Look, wait_for};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Secret};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

const REMOVAL: Duration = Duration::from_mins(2);
const SOURCE: &str = "/e2e/lifecycle";
const NAME: &str = "kept";

#[tokio::test]
async fn data_survives_the_resource_unless_its_policy_is_delete() -> anyhow::Result<()> {
    trial("lifecycle", Company::Shared, async |trial| {
        let layer = Layer::start(trial, NAME, json!({})).await?;
        let mut nexus = layer.nexus().await?;
        let profile = json!({"city": "Accra"});
        let user = json!({"email": "kofi@example.org", "display_name": "Kofi", "profile": profile});
        let (user, position) = nexus.create_user(&user).await?;
        let id = user["id"].as_str().context("the user has no id")?;
        for number in 0..3 {
            nexus.publish(&event::mining_reward(SOURCE, &format!("kept-{number}"), "1", number)).await?;
        }
        let history = nexus.whole_history(&[]).await?;
        let claims = claims(trial).await?;
        let secrets = credentials(trial).await?;
        assert_eq!(claims.len(), 3, "one volume for each store: {claims:?}");

        layer.delete().await?;
        assert_eq!(self::claims(trial).await?, claims, "the volumes stay");
        assert_eq!(credentials(trial).await?, secrets, "and so do the credentials");

        let layer = Layer::start(trial, NAME, json!({})).await?;
        assert_eq!(self::claims(trial).await?, claims, "the same volumes are in use again");
        assert_eq!(credentials(trial).await?, secrets);
        // The old token is still good: the key that signed it is among the credentials.
        nexus = nexus.at(nexus.address).await?;
        assert_eq!(nexus.user(id, Some(position)).await?.user, user, "the user is there");
        assert_eq!(nexus.whole_history(&[]).await?, history, "every event has its position still");
        assert_eq!(nexus.profile(id).await?["attributes"], profile);
        let next = nexus.publish(&event::mining_reward(SOURCE, "kept-3", "1", 3)).await?;
        assert_eq!(layer.log(SOURCE).await?.last(), Some(&("kept-3".to_owned(), next.position.seq)));

        delete_with_data(&layer, &claims).await
    })
    .await
}

/// Turns the policy to `Delete`, deletes, and waits until volumes and Secrets are gone too.
async fn delete_with_data(layer: &Layer<'_>, claims: &[(String, String)]) -> anyhow::Result<()> {
    let trial = layer.trial;
    let policy = Patch::Merge(json!({"spec": {"deletionPolicy": "Delete"}}));
    let layers = trial.api::<AzoraDataLayer>();
    layers.patch(NAME, &PatchParams::default(), &policy).await.context("turn the policy to Delete")?;
    layer.delete().await?;
    let volumes = Api::<PersistentVolume>::all(trial.cluster.client.clone());
    wait_for("the volumes and Secrets to be gone", REMOVAL, async || {
        let claims_left = self::claims(trial).await?;
        let secrets = trial.api::<Secret>().list(&layer.selector()).await?.items;
        let secrets = secrets.into_iter().filter_map(|secret| secret.metadata.name).collect::<Vec<_>>();
        let mut volumes_left = Vec::new();
        for (_, volume) in claims {
            volumes_left.extend(volumes.get_opt(volume).await?.and_then(|volume| volume.metadata.name));
        }
        let gone = claims_left.is_empty() && secrets.is_empty() && volumes_left.is_empty();
        Ok(Look::when(gone, (), || format!("claims {claims_left:?}, Secrets {secrets:?}, volumes {volumes_left:?}")))
    })
    .await
}

/// Name and volume of each claim.
async fn claims(trial: &Trial) -> anyhow::Result<Vec<(String, String)>> {
    let claims = trial.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.context("list the claims")?;
    let name_and_volume = |claim: PersistentVolumeClaim| {
        let volume = claim.spec.and_then(|spec| spec.volume_name).unwrap_or_default();
        (claim.metadata.name.unwrap_or_default(), volume)
    };
    Ok(claims.into_iter().map(name_and_volume).collect())
}

/// A fingerprint of the generated credentials: enough to compare, and no secret in the message of a failure.
async fn credentials(trial: &Trial) -> anyhow::Result<u64> {
    let secret = trial.api::<Secret>().get(&format!("{NAME}-credentials")).await.context("read the credentials")?;
    let mut hasher = DefaultHasher::new();
    for (key, value) in secret.data.context("the credentials are empty")? {
        (key, value.0).hash(&mut hasher);
    }
    Ok(hasher.finish())
}
