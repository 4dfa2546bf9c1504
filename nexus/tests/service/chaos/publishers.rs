//! Publishers: over HTTP through any pod, and by SQL in transactions of which some are rolled back. Each waits for the answer
//! before it goes on, and repeats what was not acknowledged.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::time::{sleep, timeout};

use super::Field;
use super::check::WALLETS;
use crate::support::people::{ANN, BOB, CAT, named};
use crate::support::token;

/// Begins the id of an event whose transaction is rolled back.
pub(super) const ROLLED_BACK: &str = "rolled-back";
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// After a failure.
const RETRY: Duration = Duration::from_millis(100);
/// Most events of one request.
const BATCH_MAX: usize = 10;
/// How often a publisher sends two large batches at once, of which the second may be stamped ahead.
const LARGE: f64 = 0.003;
/// Events of each of them.
const LARGE_BATCH: usize = 64;
/// Longest pause between two requests of a publisher, in milliseconds.
const PAUSE_MS: u64 = 300;
/// How often an event opens a wallet, which lets its owner see what becomes of it.
const OPENS: f64 = 0.01;
/// Most wallets that a publisher knows: people may be in no more than a thousand rooms.
const WALLETS_MAX: usize = 150;

/// What lets people see their wallets, before anything else.
pub(super) fn first_events() -> Vec<Value> {
    let wallet = |(wallet, owner): (&str, &str)| {
        let data = json!({"wallet_id": wallet, "user_id": owner, "currency": "AZR"});
        sourced("/chaos/first", named(wallet, "wallet.created", &format!("wallet/{wallet}"), &data))
    };
    WALLETS.map(wallet).to_vec()
}

/// Publishes until it is told to stop; what was acknowledged, by source and id.
pub(super) async fn publish(field: Arc<Field>, number: usize, mut rng: StdRng) -> Result<Vec<(String, String)>> {
    let source = format!("/chaos/{number}");
    let mut wallets = first_wallets();
    let mut acknowledged = Vec::new();
    let mut next = 0;
    while field.is_open() {
        let is_large = rng.random_bool(LARGE);
        let count = if is_large { 2 * LARGE_BATCH } else { rng.random_range(1..=BATCH_MAX) };
        let ids = (next..next + count).map(|id| id.to_string());
        let opens = if is_large { 0.0 } else { OPENS };
        let mut events: Vec<Value> = ids.map(|id| event(&source, &id, opens, &mut wallets, &mut rng)).collect();
        next += count;
        if is_large {
            let (one, two) = events.split_at_mut(LARGE_BATCH);
            // Neither waits for the other, so they are of two sources: those of one are in their order.
            for event in &mut *two {
                event["source"] = json!(format!("{source}/beside"));
            }
            // At the same pod, which may be the one that stamps.
            let seed = rng.random();
            let [mut pods, mut same_pods] = [seed, seed].map(StdRng::seed_from_u64);
            let [one, two] = [json!(one), json!(two)];
            tokio::try_join!(put(&field, &one, &mut pods), put(&field, &two, &mut same_pods))?;
        } else {
            put(&field, &json!(events), &mut rng).await?;
        }
        acknowledged.extend(events.iter().map(|event| (text(event, "source"), text(event, "id"))));
        sleep(Duration::from_millis(rng.random_range(0..PAUSE_MS))).await;
    }
    Ok(acknowledged)
}

/// Publishes at any pod until it is acknowledged. Only an answer that says that the request is wrong ends it.
pub(super) async fn put(field: &Field, events: &Value, rng: &mut StdRng) -> Result<()> {
    loop {
        let url = format!("http://{}/v1/events", field.any_pod(rng));
        let request = field.http.post(url).bearer_auth(token("events:write")).json(events).timeout(PATIENCE);
        if let Ok(answer) = request.send().await {
            match answer.status().as_u16() {
                200 | 201 => return Ok(()),
                500.. | 408 | 429 => {}
                status => bail!("an event was refused with {status}: {}", answer.text().await.unwrap_or_default()),
            }
        }
        sleep(RETRY).await;
    }
}

/// Publishes by SQL until it is told to stop.
pub(super) async fn publish_by_sql(field: Arc<Field>, mut rng: StdRng) -> Result<Vec<(String, String)>> {
    let source = "/chaos/sql";
    let mut wallets = first_wallets();
    let mut acknowledged = Vec::new();
    let mut next = 0;
    while field.is_open() {
        if rng.random_bool(0.2) {
            // A wallet that it opens never is.
            let event = event(source, &format!("{ROLLED_BACK}-{next}"), OPENS, &mut wallets.clone(), &mut rng);
            // Whether it comes so far does not matter.
            let _ = timeout(PATIENCE, insert(&field, &event, false)).await;
        }
        let event = event(source, &next.to_string(), OPENS, &mut wallets, &mut rng);
        next += 1;
        // It may be in the database although its commit was not answered: of the same id it is there once.
        while !matches!(timeout(PATIENCE, insert(&field, &event, true)).await, Ok(Ok(()))) {
            sleep(RETRY).await;
        }
        acknowledged.push((source.to_owned(), text(&event, "id")));
        sleep(Duration::from_millis(rng.random_range(0..PAUSE_MS))).await;
    }
    Ok(acknowledged)
}

async fn insert(field: &Field, event: &Value, commit: bool) -> Result<()> {
    let mut connection = PgConnection::connect(&field.postgres_url()).await.context("connect")?;
    sqlx::query("SET search_path = nexus").execute(&mut connection).await.context("choose the schema")?;
    let mut transaction = connection.begin().await.context("begin")?;
    sqlx::query("SELECT nexus_publish($1, $2, $3, $4, $5::text::json)")
        .bind(text(event, "source"))
        .bind(text(event, "id"))
        .bind(text(event, "type"))
        .bind(text(event, "subject"))
        .bind(event["data"].to_string())
        .execute(&mut *transaction)
        .await
        .context("publish")?;
    if commit {
        transaction.commit().await.context("commit")
    } else {
        transaction.rollback().await.context("roll back")
    }
}

fn text(event: &Value, name: &str) -> String {
    event[name].as_str().unwrap_or_default().to_owned()
}

fn sourced(source: &str, mut event: Value) -> Value {
    event["source"] = json!(source);
    event
}

fn first_wallets() -> Vec<String> {
    WALLETS.map(|(wallet, _)| wallet.to_owned()).to_vec()
}

/// A random event of this id, which opens a wallet with the probability `opens`. About a wallet there is nothing before the event that opens it, so that whoever was let in
/// must be given all of it, and nobody anything else.
fn event(source: &str, id: &str, opens: f64, wallets: &mut Vec<String>, rng: &mut StdRng) -> Value {
    let person = [ANN, BOB, CAT][rng.random_range(0..3)];
    if wallets.len() < WALLETS_MAX && rng.random_bool(opens) {
        let wallet = format!("{}-{id}", source.trim_start_matches("/chaos/"));
        let data = json!({"wallet_id": wallet, "user_id": person, "currency": "AZR"});
        let subject = format!("wallet/{wallet}");
        wallets.push(wallet);
        return sourced(source, named(id, "wallet.created", &subject, &data));
    }
    let mut any_wallet = || &wallets[rng.random_range(0..wallets.len())];
    let (wallet, other) = (any_wallet(), any_wallet());
    let money = json!({"amount_minor": 1, "currency": "AZR"});
    let about = format!("wallet/{wallet}");
    let place = rng.random_range(0..4);
    let (event_type, subject, data) = match rng.random_range(0..6) {
        0 => ("mining.reward", about, json!({"wallet_id": wallet, "money": money, "block_height": 1})),
        1 => {
            let data = json!({"transaction_id": id, "from_wallet_id": wallet, "to_wallet_id": other, "money": money});
            ("transaction.completed", about, data)
        }
        2 => {
            let data = json!({"wallet_id": wallet, "user_id": person, "money": money, "period": "2026-01"});
            ("ubi.distributed", about, data)
        }
        3 => {
            let data = json!({"user_id": person, "course_id": "c1", "lesson_id": "1"});
            ("lesson.completed", format!("lesson/{place}"), data)
        }
        4 => {
            let data = json!({"job_id": place.to_string(), "employer_id": person, "title": "Paint a fence"});
            ("job.posted", format!("job/{place}"), data)
        }
        _ => ("health.check", format!("system/{place}"), json!({"component": "chaos", "status": "healthy"})),
    };
    sourced(source, named(id, event_type, &subject, &data))
}
