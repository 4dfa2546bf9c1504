//! Those that are given each event at least once: the workers of a durable consumer, and the receiver of a webhook. Each
//! handles an event once, by its id.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Field, Follower, PATIENCE};
use crate::chaos::chance;
use crate::support::receiver::{Receiver, Reply};

const CONSUMER: &str = "/v1/consumers/chaos";
/// Leases of one visit at most.
const LEASES_MAX: u32 = 20;

/// Makes the consumer, before anything fails.
pub(in super::super) async fn make_consumer(follower: &Follower, field: &Field, rng: &mut StdRng) -> Result<()> {
    let settings = json!({
        "types": follower.wants.types, "after": "1.0", "ordered": true, "lease_seconds": 2, "retry_seconds": vec![0; 99],
    });
    ask(follower, field, rng, (Method::PUT, CONSUMER), &settings).await.map(drop)
}

/// Makes the webhook and its receiver, which fails at times, before anything else does.
pub(in super::super) async fn make_webhook(follower: &Arc<Follower>, field: &Field, rng: &mut StdRng) -> Result<()> {
    let (taker, luck) = (Arc::clone(follower), Mutex::new(chance(rng)));
    let receiver = Receiver::start(move |got, _| {
        match luck.lock().expect("nobody has panicked").random_range(0..40) {
            // Refused before it was handled, and after.
            0 => Reply::Status(500),
            1 => {
                taker.apply_once(&got.event());
                Reply::Status(503)
            }
            _ => {
                taker.apply_once(&got.event());
                Reply::Status(204)
            }
        }
    })
    .await;
    let settings = json!({
        "url": receiver.url(), "types": follower.wants.types, "after": "1.0", "retry_seconds": vec![0; 99],
    });
    ask(follower, field, rng, (Method::POST, "/v1/webhooks"), &settings).await.map(drop)
}

/// Takes events for a while, and settles most of them.
pub(super) async fn visit(follower: &Follower, field: &Field, rng: &mut StdRng) -> Result<()> {
    for _ in 0..rng.random_range(1..LEASES_MAX) {
        let count = rng.random_range(1..50);
        let asked = json!({"count": count, "wait_seconds": 2});
        let answer = ask(follower, field, rng, (Method::POST, &format!("{CONSUMER}/lease")), &asked).await?;
        let deliveries = answer["deliveries"].as_array().context("an answer has deliveries")?;
        for delivery in deliveries {
            match delivery.get("gap") {
                Some(gap) => follower.must_not(format!("was told of a gap: {gap}")),
                None => follower.apply_once(&delivery["event"]),
            }
        }
        let leases: Vec<&Value> = deliveries.iter().map(|delivery| &delivery["lease"]).collect();
        let settle = match rng.random_range(0..40) {
            // As one that died.
            0 => return Ok(()),
            1 => "nack",
            _ => "ack",
        };
        if !leases.is_empty() {
            let path = format!("{CONSUMER}/{settle}");
            ask(follower, field, rng, (Method::POST, &path), &json!({"leases": leases})).await?;
        }
    }
    Ok(())
}

async fn ask(
    follower: &Follower,
    field: &Field,
    rng: &mut StdRng,
    (method, path): (Method, &str),
    body: &Value,
) -> Result<Value> {
    let request = field.http.request(method, format!("http://{}{path}", field.any_pod(rng)));
    let answer = request.bearer_auth(follower.token()).json(body).timeout(PATIENCE).send().await.context("ask")?;
    let status = answer.status();
    let text = answer.text().await.context("read")?;
    ensure!(status.is_success(), "{path} was refused with {status}: {text}");
    serde_json::from_str(&text).context("an answer is JSON")
}
