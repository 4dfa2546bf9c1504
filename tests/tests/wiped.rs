//! Redis and Mongo are wiped: nothing is lost, and both come back from the log.
use std::time::Duration;

use anyhow::Context as _;
use azora_tests::event;
use azora_tests::layer::{Component, Layer};
use azora_tests::socket::{Follow, Follower};
use azora_tests::stores::{self, Identity};
use azora_tests::trial::{Company, trial};
use azora_tests::wait::{Look, wait_for};
use mongodb::Database;
use mongodb::bson::{Document, doc, serialize_to_document};
use serde_json::json;

const RECOVERY: Duration = Duration::from_mins(1);
/// Above the heartbeat's 25 s, so that a quiet connection is not taken for a broken one.
const SILENCE_MAX: Duration = Duration::from_mins(1);
const SOURCE: &str = "/e2e/wiped";

#[tokio::test]
async fn nothing_is_lost_when_redis_is_flushed_and_mongo_dropped() -> anyhow::Result<()> {
    trial("wiped", Company::Shared, async |trial| {
        let layer = Layer::start(trial, "wiped", json!({})).await?;
        let nexus = layer.nexus().await?;
        let binding = layer.binding().await?;
        let application = Identity::Application(&binding);
        let mongo = stores::mongo(layer.open(Component::Mongo).await?, application)?;
        let mut redis = stores::redis(layer.open(Component::Redis).await?, application).await?;

        let profile = json!({"city": "Lagos", "languages": ["yo", "en"]});
        let user = json!({"email": "ada@example.org", "display_name": "Ada", "profile": profile});
        let (user, position) = nexus.create_user(&user).await?;
        let id = user["id"].as_str().context("the user has no id")?;
        let stored = stored_profile(&mongo, id).await?;
        assert_eq!(stored.get_document("attributes")?, &serialize_to_document(&profile)?, "the profile is in Mongo");
        let follow = Follow { types: vec!["wallet.*".to_owned()], after: Some(position), silence_max: SILENCE_MAX };
        let follower = Follower::start(&nexus, follow).await?;
        let before = nexus.publish(&event::wallet_created(SOURCE, "before", "1")).await?;
        nexus.user(id, Some(position)).await?;

        redis::cmd("FLUSHALL").exec_async(&mut redis).await.context("flush Redis")?;
        let collections = mongo.list_collection_names().await.context("list Mongo's collections")?;
        assert!(!collections.is_empty(), "there is something in Mongo to drop");
        for collection in &collections {
            mongo.collection::<Document>(collection).drop().await.with_context(|| format!("drop {collection}"))?;
        }

        let after = nexus.publish(&event::wallet_created(SOURCE, "after", "1")).await?;
        follower.received("after", RECOVERY).await?;
        let record = follower.record();
        let ids = record.deliveries.iter().map(|delivery| delivery.id.as_str()).collect::<Vec<_>>();
        assert_eq!((ids, record.gaps.len()), (vec!["before", "after"], 0), "the socket has missed nothing");
        let expected = vec![("before".to_owned(), before.position.seq), ("after".to_owned(), after.position.seq)];
        assert_eq!(layer.log(SOURCE).await?, expected);
        assert_eq!(nexus.user(id, Some(after.position)).await?.user, user, "the user is as before");

        assert_eq!(stored_profile(&mongo, id).await?, stored, "the document is back, as it was");
        assert_eq!(nexus.profile(id).await?["attributes"], profile);
        wait_for("Redis to hold what is cached again", RECOVERY, async || {
            // A read is what fills the shared cache.
            nexus.user(id, None).await?;
            let keys: i64 = redis::cmd("DBSIZE").query_async(&mut redis).await?;
            Ok(Look::when(keys > 0, (), || "no key".to_owned()))
        })
        .await
    })
    .await
}

/// The profile as Mongo itself has it: Nexus would answer from Postgres where Mongo has nothing.
async fn stored_profile(mongo: &Database, user: &str) -> anyhow::Result<Document> {
    let profiles = mongo.collection::<Document>("profiles");
    wait_for("the profile in Mongo", RECOVERY, async || {
        let found = profiles.find_one(doc! {"_id": user}).await?;
        Ok(match found {
            Some(document) => Look::Done(document.get_document("profile")?.clone()),
            None => Look::Not("no document of that id".to_owned()),
        })
    })
    .await
}
