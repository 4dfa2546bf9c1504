//! Delivers what is due: woken by the tail and by a period, every pod takes what no other has taken, tries it, and settles
//! it. What is under way is bounded; what a pod leaves behind is due again when its lease ends.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::attempt::Outcome;
use super::message::Message;
use super::places::{Place, Places};
use super::store::{self, Disabled, Ready, Webhook};
use crate::auth::VerifyToken;
use crate::chain::Chain;
use crate::consumers::Delivery;
use crate::consumers::delivery::Lease;
use crate::consumers::fill::{self, Asker, Filled};
use crate::consumers::lease::{self, Delay, Failure, Settled};
use crate::consumers::metrics::Kind;
use crate::consumers::store::AccessConsumers;
use crate::http::AppState;
use crate::store::postgres::in_time;

/// How soon is found what no entry of the log announces: a wait that is over, a webhook that was enabled.
const PERIOD: Duration = Duration::from_millis(500);
/// Shortest time between two looks, however much is written.
const PAUSE: Duration = Duration::from_millis(20);
/// How much longer than an attempt its lease lasts: time to settle it.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// Why webhooks could not be served for the moment.
#[derive(Debug, thiserror::Error)]
enum Push {
    /// What is due could not be taken.
    #[error("take what is due")]
    TakeDue(#[source] sqlx::Error),
    /// What came of an attempt could not be written down.
    #[error("settle a delivery")]
    SettleDelivery(#[source] sqlx::Error),
    /// A webhook could not be disabled.
    #[error("disable a webhook")]
    DisableWebhook(#[source] AccessConsumers),
}

/// Runs until the pod is asked to leave; then it takes no more, and ends what is under way.
pub(crate) async fn run(state: AppState) {
    let places = Places::new(state.config.webhooks.attempts_max);
    let mut attempts = JoinSet::new();
    let mut moved = state.tail.subscribe();
    let mut away = false;
    while !state.draining.is_cancelled() {
        // Before the look: what comes after that is noticed.
        moved.mark_unchanged();
        let begun = tokio::time::Instant::now();
        let turn = turn(&state, &places, &mut attempts).await;
        let (count, more) = match turn {
            Ok(turned) => turned,
            Err(ref error) if !away => {
                tracing::warn!(error = %Chain(error), "webhooks cannot be served");
                (0, false)
            }
            Err(_) => (0, false),
        };
        away = turn.is_err();
        // Where looking takes long, as much time is left to others.
        tokio::time::sleep(PAUSE.max(begun.elapsed())).await;
        if more {
            continue;
        }
        tokio::select! {
            () = state.draining.cancelled() => {}
            Some(_) = attempts.join_next() => while attempts.try_join_next().is_some() {},
            Ok(()) = moved.changed(), if count > 0 && !away => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    while attempts.join_next().await.is_some() {}
}

/// Takes what is due of every webhook, and begins to deliver it. How many webhooks there are, and whether there is more to
/// take at once.
async fn turn(state: &AppState, places: &Places, attempts: &mut JoinSet<()>) -> Result<(usize, bool), Push> {
    let ready = store::ready(&state.postgres).await.map_err(Push::TakeDue)?;
    let count = ready.len();
    let mut more = false;
    for Ready { consumer, owner, is_failing, failing_since, is_behind, is_due } in ready {
        if state.draining.is_cancelled() {
            return Ok((count, false));
        }
        if failing_since.is_some() && is_due.is_none() {
            store::rest(&state.postgres, consumer).await.map_err(Push::TakeDue)?;
        }
        let share = places.share(&owner, is_failing);
        // Also who has no place takes from the log: retention waits for nobody.
        if !is_behind && (is_due != Some(true) || share == 0) {
            continue;
        }
        let Some((webhook, deliveries, filled)) = take(state, consumer, share).await? else { continue };
        more |= filled == Filled::More && deliveries.is_empty();
        for delivery in deliveries {
            let place = places.take(&owner, is_failing);
            attempts.spawn(deliver(state.clone(), Arc::clone(&webhook), delivery, place));
        }
    }
    Ok((count, more))
}

/// Takes the webhook's next entries from the log, and leases what is due: no more than its share is out then. Nothing if
/// another pod is about it.
async fn take(
    state: &AppState,
    consumer: i64,
    share: usize,
) -> Result<Option<(Arc<Webhook>, Vec<Delivery>, Filled)>, Push> {
    // All that is out, of every pod: who takes has the consumer's row for itself.
    const OUT: &str = "SELECT count(*) FROM delivery
        WHERE consumer_id = $1 AND dead_at IS NULL AND leased_until > statement_timestamp()";
    let config = &state.config.webhooks;
    let take = async {
        let mut transaction = state.postgres.begin().await?;
        let Some(mut webhook) = store::lock(&mut transaction, consumer).await? else { return Ok(None) };
        if let Err(VerifyToken::Revoked) = state.verifier.check(&webhook.claims()) {
            return Ok(Some((webhook, Vec::new(), None)));
        }
        let bounds = &state.config.consumers;
        let filled = fill::step(&mut transaction, &mut webhook.consumer, bounds, Asker::Taker).await?;
        let out: i64 = sqlx::query_scalar(OUT).bind(consumer).fetch_one(&mut *transaction).await?;
        let most = share.min(usize::from(config.attempts_per_webhook_max));
        let count = (i64::try_from(most).unwrap_or(i64::MAX) - out).max(0);
        let duration = Duration::from_secs(config.attempt_seconds) + LEASE_MARGIN;
        let retry = webhook.consumer.retry_seconds(&config.retry_seconds);
        let deliveries = lease::lease_within(&mut transaction, &webhook.consumer, count, duration, retry).await?;
        transaction.commit().await?;
        Ok(Some((webhook, deliveries, Some(filled))))
    };
    match in_time(take).await.map_err(Push::TakeDue)? {
        Some((webhook, deliveries, Some(filled))) => Ok(Some((Arc::new(webhook), deliveries, filled))),
        Some((webhook, _, None)) => {
            disable(state, &webhook, Disabled::Revoked).await.map_err(Push::DisableWebhook)?;
            Ok(None)
        }
        None => Ok(None),
    }
}

async fn disable(state: &AppState, webhook: &Webhook, reason: Disabled) -> Result<(), AccessConsumers> {
    if store::disable(&state.postgres, webhook.id, reason).await? {
        tracing::warn!(webhook.id = %webhook.id, reason = reason.as_str(), "a webhook was disabled");
    }
    Ok(())
}

/// Tries one delivery and settles it. When the pod stops before the receiver has answered, it is as if the attempt had not
/// been; the receiver may get it twice.
async fn deliver(state: AppState, webhook: Arc<Webhook>, delivery: Delivery, _place: Place) {
    let Some(lease) = delivery.lease else { return };
    let message = Message::of(&state.registry, &webhook.consumer, delivery, Timestamp::now());
    let deadline = Duration::from_secs(state.config.webhooks.attempt_seconds);
    let settled = tokio::select! {
        outcome = state.receivers.attempt(&webhook, &message, deadline) => settle(&state, &webhook, lease, outcome).await,
        () = state.stopping.cancelled() => {
            lease::release(&state.postgres, webhook.consumer.id, lease).await.map_err(Push::SettleDelivery)
        }
    };
    if let Err(error) = settled {
        tracing::warn!(error = %Chain(&error), webhook.id = %webhook.id, "a delivery will be made once more");
    }
}

async fn settle(state: &AppState, webhook: &Webhook, lease: Lease, outcome: Outcome) -> Result<(), Push> {
    let pool = &state.postgres;
    let count = |outcome, deliveries| state.metrics.deliveries.count(Kind::Webhook, outcome, deliveries);
    match outcome {
        Outcome::Delivered { .. } => {
            lease::acknowledge(pool, webhook.consumer.id, &[lease]).await.map_err(Push::SettleDelivery)?;
            count("delivered", 1);
            store::succeeded(pool, webhook.id).await.map_err(Push::SettleDelivery)
        }
        Outcome::Gone => {
            let settled = fail(state, webhook, lease, "the receiver answered 410", None).await?;
            count("gone", settled.done.len());
            disable(state, webhook, Disabled::Gone).await.map_err(Push::DisableWebhook)
        }
        Outcome::Failed { reason, retry_after, .. } => {
            // Before the delivery is given up: when nothing is left that waits, the time of failing is forgotten.
            let patience = Duration::from_secs(state.config.webhooks.disable_seconds);
            let is_enough = store::failed(pool, webhook.id, &reason, patience).await.map_err(Push::SettleDelivery)?;
            let settled = fail(state, webhook, lease, &reason, retry_after).await?;
            count("failed", settled.done.len() - settled.dead.len());
            count("dead", settled.dead.len());
            if is_enough {
                disable(state, webhook, Disabled::Failing).await.map_err(Push::DisableWebhook)?;
            }
            Ok(())
        }
    }
}

async fn fail(
    state: &AppState,
    webhook: &Webhook,
    lease: Lease,
    reason: &str,
    retry_after: Option<Duration>,
) -> Result<Settled, Push> {
    let retry = webhook.consumer.retry_seconds(&state.config.webhooks.retry_seconds);
    let failure = Failure { reason, delay: retry_after.map_or(Delay::Scheduled, Delay::AtLeast) };
    lease::fail(&state.postgres, &webhook.consumer, &[lease], retry, failure).await.map_err(Push::SettleDelivery)
}
