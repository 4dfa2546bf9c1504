//! A client of `GET /v1/events` that waits for what comes.

use anyhow::{Context as _, Result, bail};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::Value;

use super::{Field, Follower, PATIENCE};

/// Polls that follow each other by their own positions, before it begins at its last event again.
const POLLS_MAX: u32 = 20;

pub(super) async fn visit(follower: &Follower, field: &Field, rng: &mut StdRng) -> Result<()> {
    let mut after = follower.position();
    for _ in 0..rng.random_range(1..POLLS_MAX) {
        let (types, limit) = (follower.wants.types.join(","), rng.random_range(1..200));
        let query = format!("type={types}&after={after}&limit={limit}&wait=3");
        let request = field.http.get(format!("http://{}/v1/events?{query}", field.any_pod(rng)));
        let request = request.bearer_auth(follower.token()).timeout(PATIENCE);
        let answer = request.send().await.context("ask")?;
        if answer.status() != 200 {
            bail!("refused with {}: {}", answer.status(), answer.text().await.unwrap_or_default());
        }
        let page: Value = answer.json().await.context("read")?;
        if page.get("gap").is_some() {
            follower.must_not(format!("was told of a gap: {page}"));
        }
        let events = page["events"].as_array().context("a page has events")?;
        for event in events {
            follower.apply(event)?;
        }
        // The event's own position, and the head where there was none.
        let place = events.last().map_or(&page["head"], |event| &event["position"]);
        place.as_str().context("a page names the head")?.clone_into(&mut after);
    }
    Ok(())
}
