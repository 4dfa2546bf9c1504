//! An event published over HTTP comes out of a WebSocket, the history and the log; what the spec bounds is bounded.
use std::time::Duration;

use anyhow::Context as _;
use azora_tests::event::{self, Position};
use azora_tests::layer::Layer;
use azora_tests::socket::{Follow, Follower};
use azora_tests::trial::{Company, trial};
use serde_json::{Value, json};

const ARRIVAL: Duration = Duration::from_secs(20);
/// Above the heartbeat's 25 s, so that a quiet connection is not taken for a broken one.
const SILENCE_MAX: Duration = Duration::from_mins(1);
const SOURCE: &str = "/e2e/publish";

#[tokio::test]
async fn an_event_of_each_type_is_on_the_socket_in_the_history_and_in_the_log() -> anyhow::Result<()> {
    trial("publish", Company::Shared, async |trial| {
        let bounds = json!({ "limits": { "serviceRequestsPerSecond": 2000 } });
        let layer = Layer::start(trial, "publish", json!({ "nexus": bounds })).await?;
        let nexus = layer.nexus().await?;
        assert_eq!(nexus.rate_limit_policy().await?, "\"service\";q=4000;w=2", "the bound of the spec counts");
        let follow = Follow { types: vec!["**".to_owned()], after: None, silence_max: SILENCE_MAX };
        let follower = Follower::start(&nexus, follow).await?;

        let mut positions = Vec::new();
        for event in event::one_of_each(SOURCE) {
            let published = nexus.publish(&event).await.with_context(|| format!("publish {event}"))?;
            assert_eq!((Some(published.id.as_str()), published.duplicate), (event["id"].as_str(), false));
            positions.push((published.id, published.position));
        }
        let (last, _) = positions.last().context("nothing was published")?;
        follower.received(last, ARRIVAL).await?;
        let record = follower.record();
        let delivered = record.deliveries.iter().map(|delivery| (delivery.id.clone(), delivery.position));
        assert_eq!(delivered.collect::<Vec<_>>(), positions, "the socket brings what was published, once and in order");

        let start = positions[0].1;
        let start = Position { seq: start.seq - 1, ..start }.to_string();
        let history = nexus.whole_history(&[("after", &start), ("limit", "5")]).await?;
        assert_eq!(history.iter().map(key).collect::<anyhow::Result<Vec<_>>>()?, positions, "so does the history");
        let expected = positions.iter().map(|(id, position)| (id.clone(), position.seq)).collect::<Vec<_>>();
        assert_eq!(layer.log(SOURCE).await?, expected, "and the log itself");

        let again = nexus.publish(&event::one_of_each(SOURCE)[0]).await?;
        assert_eq!((again.position, again.duplicate), (positions[0].1, true), "publishing once more changes nothing");
        assert_eq!(layer.log(SOURCE).await?, expected);
        assert_eq!(nexus.status_without_token("/v1/events").await?, 401, "nobody reads the history without a token");
        Ok(())
    })
    .await
}

/// Id and position of an event of the history.
fn key(event: &Value) -> anyhow::Result<(String, Position)> {
    let id = event["id"].as_str().context("an event of the history has no id")?;
    Ok((id.to_owned(), event["position"].as_str().context("an event of the history has no position")?.parse()?))
}
