//! The commands of an authenticated client that touch the log: subscribe and publish.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::command::Subscribe;
use super::limits::SUBSCRIPTIONS_MAX;
use super::session::{READ, Refusal, Session};
use super::subscription::{Asked, Filter, Subscription};
use crate::auth::{Claims, EventsWriteOwn, Scope};
use crate::http::events::{self, Author};
use crate::position::Position;
use crate::problem::ApiError;

/// How long a subscription waits for this pod to reach its position: the client may come
/// from a pod that was a little ahead.
const REACH_DEADLINE: Duration = Duration::from_secs(2);

impl Session {
    pub(super) async fn subscribe(&mut self, subscribe: Subscribe) -> Result<Value, Refusal> {
        let Subscribe { types, subjects, attributes, room, after, versions } = subscribe;
        let added = self.add(Asked { types, subjects, attributes, room }, &versions, after).await?;
        Ok(json!({ "subscription": added.name(), "position": added.position }))
    }

    /// Adds a subscription to what the client asks for.
    pub(super) async fn add(
        &mut self,
        asked: Asked,
        versions: &BTreeMap<String, u16>,
        after: Option<Position>,
    ) -> Result<&Subscription, Refusal> {
        self.claims(READ)?;
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            let message = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(Refusal::new("too_many_subscriptions", message));
        }
        let filter = Filter::read(&self.state.registry, asked).map_err(|refused| invalid(refused.to_string()))?;
        let filter = filter.in_versions(versions).map_err(|refused| invalid(refused.to_string()))?;
        Ok(self.begin(filter, after).await?)
    }

    /// Begins with a subscription: after the position, or from now on.
    pub(crate) async fn begin(&mut self, filter: Filter, after: Option<Position>) -> Result<&Subscription, ApiError> {
        let position = self.begin_at(after).await?;
        // After the position: what lets the client in after it is read on the way. Also for a further subscription, for
        // the one that stands before the entry may be taken away before it has got there.
        self.look_up_access().await?;
        if filter.room().is_some_and(|room| !self.access.is_in(room)) {
            return Err(ApiError::RefuseRoom);
        }
        Ok(self.follow(filter, position))
    }

    /// Where a new subscription begins: after the position, or at the head.
    pub(super) async fn begin_at(&self, after: Option<Position>) -> Result<Position, ApiError> {
        match after {
            Some(after) => self.reach(after).await,
            None => self.loaded_position(),
        }
    }

    /// Adds a subscription.
    pub(super) fn follow(&mut self, filter: Filter, position: Position) -> &Subscription {
        self.subscriptions_made += 1;
        self.subscriptions_changed += 1;
        // Few have as many as a list would grow to.
        self.subscriptions.reserve_exact(1);
        self.subscriptions.push_mut(Subscription { number: self.subscriptions_made, filter, position })
    }

    /// Goes on with the subscriptions of a connection before this one, which made so many.
    pub(super) fn resume(&mut self, subscriptions: Vec<Subscription>, made: u64) {
        self.subscriptions = subscriptions;
        self.subscriptions_made = made;
        self.subscriptions_changed += 1;
    }

    pub(super) fn unsubscribe(&mut self, name: &str) -> Result<Value, Refusal> {
        self.drop_subscriptions(|subscription| subscription.name() == name)
            .ok_or_else(|| Refusal::new("subscription_unknown", "the connection has no such subscription"))
    }

    /// Ends those subscriptions; the answer, if there was any.
    pub(super) fn drop_subscriptions(&mut self, which: impl Fn(&Subscription) -> bool) -> Option<Value> {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|subscription| !which(subscription));
        if self.subscriptions.len() == before {
            return None;
        }
        self.subscriptions_changed += 1;
        Some(json!({}))
    }

    pub(super) async fn publish(&self, event: Value) -> Result<Value, Refusal> {
        let claims = self.claims(EventsWriteOwn::NAME)?;
        let author = Author::of(&self.state, claims).await?;
        let publish = async {
            let accepted = events::accept(&self.state.registry, &author, vec![event], true)?;
            events::publish_all(&self.state, accepted).await
        };
        let receipts = match self.state.traces.begin("publish".to_owned(), None) {
            Some(work) => work.run(publish).await?,
            None => publish.await?,
        };
        Ok(json!(receipts.first()))
    }

    /// The claims, if they allow the scope.
    pub(super) fn claims(&self, scope: &'static str) -> Result<&Claims, Refusal> {
        let claims = self.identity.as_ref().map(|identity| &identity.claims);
        claims.filter(|claims| claims.allows(scope)).ok_or_else(|| ApiError::LackScope { scope }.into())
    }

    /// The head, once this pod has read the log at all.
    fn loaded_position(&self) -> Result<Position, ApiError> {
        if self.state.tail.is_loaded() {
            Ok(self.state.tail.position())
        } else {
            Err(ApiError::unavailable("the log has not been read yet"))
        }
    }

    /// A position to resume from. One of another epoch is taken: its gap is told first.
    async fn reach(&self, after: Position) -> Result<Position, ApiError> {
        let here = self.loaded_position()?;
        if after.epoch > here.epoch {
            return Err(ApiError::UnknownPosition { head: here });
        }
        let mut head = self.state.tail.subscribe();
        let reached = head.wait_for(|head| after.epoch != here.epoch || *head >= after.seq);
        match tokio::time::timeout(REACH_DEADLINE, reached).await {
            Ok(Ok(_)) => Ok(after),
            Ok(Err(_)) | Err(_) => Err(ApiError::UnknownPosition { head: self.state.tail.position() }),
        }
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("invalid_parameter", message)
}
