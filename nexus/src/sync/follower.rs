//! Keeps the caches at the log: woken by the tail and by a period, it takes in what has
//! changed since its own position and asks the database whether anything is missing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::cache::{CHANGES_REMEMBERED_MAX, Inner};
use super::changes::Changes;
use super::confirmation::{Answer, Confirmation};
use super::view::View;
use crate::chain::Chain;
use crate::log::{Batch, Entry, ReadLog, Tail};
use crate::position::Position;

/// How often the pod asks whether it has every committed write; a quarter of the bound.
const CONFIRM_PERIOD: Duration = Duration::from_millis(500);

/// How long the question may take. Beyond it the answer is too old to be of use.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(1);

/// Entries taken in at a time.
const BATCH_ENTRIES: usize = 500;

/// Entries that a starting pod reads back, so that it can judge what Redis already holds.
const WARM_ENTRIES: i64 = 10_000;

/// The subjects whose records are cached.
const CACHED_SUBJECTS: &str = "user/";

/// Runs until shutdown.
pub(super) async fn run(inner: &Inner, tail: &Tail, pool: &PgPool, shutdown: &CancellationToken) {
    let mut moved = tail.subscribe();
    let mut period = tokio::time::interval(CONFIRM_PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut confirmation = Confirmation::default();
    let mut settled = None;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = period.tick() => {
                if let Some(answer) = ask(pool, tail, &mut confirmation).await {
                    settled = Some(answer);
                }
            }
            // The tail outlives this task; were it gone, the period goes on.
            Ok(()) = moved.changed() => {}
        }
        if let Err(error) = catch_up(inner, tail).await {
            tracing::warn!(error = %Chain(&error), "the caches cannot follow the log");
        }
        if let Some((head, at)) = settled {
            inner.change_view(|view| view.epoch() == head.epoch && view.confirm(head.seq, at));
        }
    }
}

/// Asks the database for its head and what waits before it. Without an answer nothing is
/// confirmed, and after the bound the caches rest.
async fn ask(pool: &PgPool, tail: &Tail, confirmation: &mut Confirmation) -> Option<(Position, Instant)> {
    const ASK: &str = "SELECT epoch, seq, (SELECT max(id) FROM outbox),
        EXISTS (SELECT FROM outbox WHERE id <= $1) FROM head";
    let asked_at = Instant::now();
    let query = sqlx::query_as(ASK).bind(confirmation.waiting_up_to()).fetch_one(pool);
    let (epoch, head, newest_waiting, earlier_waiting): (i32, i64, Option<i64>, bool) =
        tokio::time::timeout(CONFIRM_DEADLINE, query).await.ok()?.ok()?;
    if epoch != tail.epoch() {
        // Restored from a backup, and the tail has not seen it yet: numbers of the two do not compare.
        *confirmation = Confirmation::default();
        return None;
    }
    let answer = Answer { head, newest_waiting, earlier_waiting };
    let (head, at) = confirmation.answer(asked_at, answer)?;
    Some((Position { epoch, seq: head }, at))
}

async fn catch_up(inner: &Inner, tail: &Tail) -> Result<(), ReadLog> {
    loop {
        let at = *inner.applied.borrow();
        if !tail.is_loaded() {
            return Ok(());
        }
        if at.epoch != tail.epoch() || at.seq > tail.head() {
            start_over(inner, tail.position());
            return Ok(());
        }
        match tail.read_after(at.seq, BATCH_ENTRIES).await? {
            Batch::Entries(entries) if entries.is_empty() => return Ok(()),
            Batch::Entries(entries) => apply(inner, at.epoch, &entries).await,
            Batch::Gap { oldest } => inner.change_view(|view| view.changes_mut().skip_to(oldest - 1)),
        }
    }
}

/// First start, or the log was restored from a backup: nothing cached before counts.
fn start_over(inner: &Inner, head: Position) {
    let start = (head.seq - WARM_ENTRIES).max(0);
    inner.local.invalidate_all();
    inner.change_view(|view| *view = View::new(head.epoch, Changes::starting_at(start, CHANGES_REMEMBERED_MAX)));
}

async fn apply<E: AsRef<Entry>>(inner: &Inner, epoch: i32, entries: &[E]) {
    let Some(newest) = entries.last().map(|entry| entry.as_ref().seq) else {
        return;
    };
    let mut latest: HashMap<&str, i64> = HashMap::new();
    for entry in entries.iter().map(AsRef::as_ref) {
        if entry.subject.starts_with(CACHED_SUBJECTS) {
            latest.insert(&entry.subject, entry.seq);
        }
    }
    let mut changes: Vec<(Box<str>, i64)> = latest.into_iter().map(|(key, seq)| (key.into(), seq)).collect();
    changes.sort_by_key(|(_, seq)| *seq);
    // The view first: from here on this pod refuses what is older, wherever it lies.
    inner.change_view(|view| {
        for (key, seq) in &changes {
            view.changes_mut().change(key, *seq);
        }
        view.changes_mut().advance(newest);
    });
    for (key, _) in &changes {
        inner.local.invalidate(&**key).await;
    }
    if !changes.is_empty() {
        inner.shared.change(epoch, &changes).await;
    }
}
