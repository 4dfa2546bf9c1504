//! The commands of an authenticated client that touch the log: subscribe, publish, history.

use std::time::Duration;

use serde_json::{Value, json};

use super::command::{History, Subscribe};
use super::limits::{SUBJECTS_MAX, SUBSCRIPTIONS_MAX};
use super::session::{Refusal, Session};
use super::subscription::{Filter, Subscription};
use crate::auth::Claims;
use crate::http::events;
use crate::log::read::{self, READ_ENTRIES_MAX, Selection};
use crate::position::Position;
use crate::problem::ApiError;

/// How long a subscription waits for this pod to reach its position: the client may come
/// from a pod that was a little ahead.
const REACH_DEADLINE: Duration = Duration::from_secs(2);

/// Events of one answer to `history` when the client names no limit.
const HISTORY_EVENTS: usize = 100;

impl Session {
    pub(super) async fn subscribe(&mut self, subscribe: Subscribe) -> Result<Value, Refusal> {
        self.claims("events:read")?;
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            let message = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(Refusal::new("too_many_subscriptions", message));
        }
        let filter =
            Filter::read(&subscribe.types, subscribe.subjects).map_err(|refused| invalid(refused.to_string()))?;
        let position = match subscribe.after {
            Some(after) => self.reach(after).await?,
            None => self.loaded_position()?,
        };
        self.subscriptions_made += 1;
        let name = format!("s{}", self.subscriptions_made);
        let result = json!({ "subscription": name, "position": position });
        self.subscriptions.push(Subscription { name, filter, position });
        Ok(result)
    }

    pub(super) fn unsubscribe(&mut self, name: &str) -> Result<Value, Refusal> {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|subscription| subscription.name != name);
        if self.subscriptions.len() == before {
            return Err(Refusal::new("subscription_unknown", "the connection has no such subscription"));
        }
        Ok(json!({}))
    }

    pub(super) async fn publish(&self, event: Value) -> Result<Value, Refusal> {
        let claims = self.claims("events:write")?;
        let accepted = events::accept(self.state.registry, claims, vec![event], true)?;
        let receipts = events::publish_all(&self.state, accepted).await?;
        Ok(json!(receipts.first()))
    }

    pub(super) async fn history(&self, history: History) -> Result<Value, Refusal> {
        self.claims("events:read")?;
        let limit = history.limit.map_or(Ok(HISTORY_EVENTS), usize::try_from).unwrap_or(usize::MAX);
        if !(1..=READ_ENTRIES_MAX).contains(&limit) {
            return Err(invalid(format!("`limit` is a number from 1 to {READ_ENTRIES_MAX}")));
        }
        let filter = history
            .types
            .as_deref()
            .map(|types| Filter::read(types, None))
            .transpose()
            .map_err(|refused| invalid(refused.to_string()))?;
        let subjects = history.subjects.unwrap_or_default();
        if subjects.len() > SUBJECTS_MAX {
            return Err(invalid(format!("`subjects` has at most {SUBJECTS_MAX} subjects")));
        }
        let pool = &self.state.postgres;
        let head = read::head(pool).await.map_err(ApiError::from)?;
        let after = known(history.after, head)?;
        let selection = Selection {
            types: filter.as_ref().map(Filter::types),
            subjects: (!subjects.is_empty()).then_some(&*subjects),
            after: after.unwrap_or(0),
            until: head.seq,
            limit,
        };
        let entries = read::select(pool, head.epoch, &selection).await.map_err(ApiError::from)?;
        let oldest = read::oldest(pool).await.map_err(ApiError::from)?.unwrap_or(head.seq + 1);
        let gap = after.filter(|after| after + 1 < oldest).map(
            |after| json!({ "from": Position { seq: after, ..head }, "to": Position { seq: oldest - 1, ..head } }),
        );
        let full = entries.len() == limit;
        let next = entries.last().filter(|_| full).map(|entry| Position { seq: entry.seq, ..head });
        let parsed = entries.iter().map(|entry| serde_json::from_slice(&entry.encoded));
        let events = parsed.collect::<Result<Vec<Value>, _>>().map_err(ApiError::internal)?;
        Ok(json!({ "events": events, "next": next, "head": head, "gap": gap }))
    }

    /// The claims, if they allow the scope.
    fn claims(&self, scope: &'static str) -> Result<&Claims, Refusal> {
        let claims = self.identity.as_ref().map(|identity| &identity.claims);
        claims.filter(|claims| claims.allows(scope)).ok_or_else(|| ApiError::LackScope { scope }.into())
    }

    /// The head, once this pod has read the log at all.
    fn loaded_position(&self) -> Result<Position, Refusal> {
        if self.state.tail.is_loaded() {
            Ok(self.state.tail.position())
        } else {
            Err(ApiError::unavailable("the log has not been read yet").into())
        }
    }

    /// A position to resume from. One of another epoch is taken: its gap is told first.
    async fn reach(&self, after: Position) -> Result<Position, Refusal> {
        let here = self.loaded_position()?;
        if after.epoch > here.epoch {
            return Err(ApiError::UnknownPosition { head: here }.into());
        }
        let mut head = self.state.tail.subscribe();
        let reached = head.wait_for(|head| after.epoch != here.epoch || *head >= after.seq);
        match tokio::time::timeout(REACH_DEADLINE, reached).await {
            Ok(Ok(_)) => Ok(after),
            Ok(Err(_)) | Err(_) => Err(ApiError::UnknownPosition { head: self.state.tail.position() }.into()),
        }
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("invalid_parameter", message)
}

fn known(after: Option<Position>, head: Position) -> Result<Option<i64>, Refusal> {
    match after {
        Some(after) if after.epoch != head.epoch || after.seq > head.seq => {
            Err(ApiError::UnknownPosition { head }.into())
        }
        after => Ok(after.map(|after| after.seq)),
    }
}
