//! A client of `/v1/stream/sse`.

use anyhow::{Context as _, Result, bail};
use rand::rngs::StdRng;
use tokio::time::timeout;

use super::{Field, Follower, PATIENCE, SILENCE};

pub(super) async fn visit(follower: &Follower, field: &Field, rng: &mut StdRng) -> Result<()> {
    let url = format!("http://{}/v1/stream/sse?type={}", field.any_pod(rng), follower.wants.types.join(","));
    let request = field.http.get(url).bearer_auth(follower.token()).header("last-event-id", follower.position());
    let mut answer = timeout(PATIENCE, request.send()).await.context("the pod does not answer")?.context("ask")?;
    if answer.status() != 200 {
        bail!("refused with {}: {}", answer.status(), answer.text().await.unwrap_or_default());
    }
    let mut unread = Vec::new();
    let mut left = Follower::stay(rng);
    while left > 0 {
        let chunk = timeout(SILENCE, answer.chunk()).await.context("the pod says nothing")?.context("read")?;
        let Some(chunk) = chunk else { return Ok(()) };
        unread.extend_from_slice(&chunk);
        while let Some(end) = unread.windows(2).position(|bytes| bytes == b"\n\n") {
            let block: Vec<u8> = unread.drain(..end + 2).collect();
            let block = String::from_utf8(block).context("a block is UTF-8")?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            match (field("event: "), field("data: ")) {
                (Some("gap"), _) => follower.must_not(format!("was told of a gap: {block}")),
                (Some("close"), _) => return Ok(()),
                (_, Some(data)) => {
                    follower.apply(&serde_json::from_str(data).context("an event is JSON")?)?;
                    left = left.saturating_sub(1);
                }
                _ => {}
            }
        }
    }
    Ok(())
}
