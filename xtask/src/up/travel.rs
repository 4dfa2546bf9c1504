//! Publishes one event over HTTP and follows it until it stands in the history that every client reads.

use super::demo::address;
use crate::run;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the event may take to be readable: milliseconds normally.
const ARRIVAL_SECONDS_MAX: u64 = 10;

/// The event's way, for a person: its type, its position and its times.
pub(super) fn show(token: &str) -> Result<String> {
    let number = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_nanos();
    let wallet = format!("wallet/up-{number}");
    let event = json!({
        "specversion": "1.0",
        "id": number.to_string(),
        "source": "/xtask/up",
        "type": "mining.reward",
        "subject": wallet,
        "data": {
            "wallet_id": format!("up-{number}"),
            "money": {"amount_minor": 250, "currency": "AZR"},
            "block_height": 1,
        },
    });
    let started = Instant::now();
    let receipt = post(token, &event)?;
    let published = started.elapsed();
    let position = receipt["position"].as_str().context("Nexus answered without a position")?;

    let history = format!("{}/v1/events?subject={wallet}", address());
    let deadline = started + Duration::from_secs(ARRIVAL_SECONDS_MAX);
    loop {
        let page = ask(curl(token).arg(&history)).context("read the history")?;
        if contains(&page, position, &event) {
            let arrived = started.elapsed();
            return Ok(format!(
                "mining.reward on {wallet} got position {position} in {} ms and was read from the history after {} ms",
                published.as_millis(),
                arrived.as_millis()
            ));
        }
        if Instant::now() > deadline {
            bail!(
                "the event published at position {position} is not in the history after {ARRIVAL_SECONDS_MAX} s: {page}"
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the page holds the event with its data at the position.
fn contains(page: &Value, position: &str, event: &Value) -> bool {
    let events = page["events"].as_array().map_or(&[][..], Vec::as_slice);
    let same = |name: &str, found: &Value| found[name] == event[name];
    events.iter().any(|found| {
        found["position"] == position
            && ["id", "source", "type", "subject", "data"].iter().all(|name| same(name, found))
    })
}

fn post(token: &str, event: &Value) -> Result<Value> {
    let mut post = curl(token);
    post.args(["--header", "Content-Type: application/cloudevents+json", "--data-binary", &event.to_string()]);
    ask(post.arg(format!("{}/v1/events", address()))).context("publish an event")
}

/// A `curl` that carries the token through its environment: an error names the arguments of what failed,
/// and a token has no place in it.
fn curl(token: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec curl --header "Authorization: Bearer $NEXUS_TOKEN" "$@""#, "curl"]);
    // Fails on an error status but keeps the body, which is a problem document that says why.
    command.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "10", "--noproxy", "*"]);
    command.env("NEXUS_TOKEN", token);
    command
}

fn ask(command: &mut Command) -> Result<Value> {
    let text = run::text(command)?;
    serde_json::from_str(&text).with_context(|| format!("read the answer {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_event_at_its_position_has_arrived() {
        let event = json!({"id": "7", "source": "/s", "type": "t", "subject": "wallet/1", "data": {"a": 1}});
        let mut stored = event.clone();
        stored["position"] = json!("1.5");
        let page = |stored: &Value| json!({"events": [stored]});
        assert!(contains(&page(&stored), "1.5", &event));
        assert!(!contains(&page(&stored), "1.6", &event));
        stored["data"]["a"] = json!(2);
        assert!(!contains(&page(&stored), "1.5", &event));
        assert!(!contains(&json!({}), "1.5", &event));
    }
}
