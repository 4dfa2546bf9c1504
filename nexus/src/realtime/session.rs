//! The session core: who the client is and what it follows. Commands in, frames out; knows
//! no transport.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::time::Instant;

use super::close::Close;
use super::command::{Command, Connect};
use super::encode::Encoding;
use super::limits::Limits;
use super::presence::Entered;
use super::subscription::Subscription;
use crate::auth::{Access, Claims, EventsReadOwn, Scope, VerifyToken};
use crate::chain::Chain;
use crate::http::AppState;
use crate::http::admission::{self, ClientAddress};
use crate::log::ReadLog;
use crate::metrics::Throttled;
use crate::problem::ApiError;
use crate::throttle::{Bucket, Policy, Rate, Standing};

/// A token that lasts longer than this is looked at again after it.
const LOOKED_AT_AGAIN: Duration = Duration::from_hours(24);

/// What every reader of events needs.
pub(super) const READ: &str = EventsReadOwn::NAME;

/// What one client may do and follows.
#[derive(Debug)]
pub struct Session {
    pub(super) state: AppState,
    pub(super) limits: Limits,
    pub(super) encoding: Encoding,
    pub(super) identity: Option<Identity>,
    /// Where its commands come from.
    address: ClientAddress,
    /// What the client may see; as it is now, while it follows anything.
    pub(super) access: Access,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) subscriptions_made: u64,
    /// Counts changes of the subscriptions and of what they may see.
    pub(super) subscriptions_changed: u64,
    /// Why the session goes no further, if it has come to that.
    pub(super) ends: Option<Close>,
    /// The revocations that were looked at.
    revocations_seen: u64,
    /// Its place among the connections of the same person.
    own: Option<Entered>,
    /// How many commands it may send.
    commands: Bucket,
    /// Until when the session may go on as it is: the end of the token, or the end of the
    /// time to authenticate.
    deadline: Instant,
}

/// A client whose token was verified.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) claims: Claims,
}

/// Why a command is refused: a stable code and a sentence for the client.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
    /// In how long it may be worth another try, if the client is told.
    pub(super) retry_after: Option<Duration>,
    pub(super) close: Option<Close>,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, close: None }
    }

    /// What the client is told.
    pub(super) fn told(&self) -> serde_json::Value {
        let mut told = json!({ "code": self.code, "message": self.message });
        if let Some(wait) = self.retry_after {
            // Up to the next whole one: before that it would be refused again.
            told["retry_after_ms"] = json!(wait.as_millis() + 1);
        }
        told
    }
}

/// A refusal over HTTP and over a socket has the same code. Its cause is logged here, for no
/// answer passes on the way that would log it.
impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        if let ApiError::Unavailable(cause) | ApiError::Internal(cause) = &error {
            tracing::warn!(error = %Chain(&**cause), "a command could not be served");
        }
        let problem = error.problem();
        let mut message = problem.detail.unwrap_or(problem.title);
        for violation in problem.violations {
            message = format!("{message}; {} {}", violation.path, violation.message);
        }
        Self { code: error.kind().1, message, retry_after: error.retry_after(), close: None }
    }
}

impl Session {
    /// A session of a client that has not said who it is, or whom the upgrade has authenticated.
    pub fn new(state: AppState, encoding: Encoding, claims: Option<Claims>, address: ClientAddress) -> Self {
        let limits = Limits::of(&state.config);
        let deadline = match &claims {
            Some(claims) => end_of(claims),
            None => Instant::now() + limits.authentication,
        };
        let identity = claims.map(|claims| Identity { claims });
        Self {
            access: Access::none(),
            state,
            limits,
            encoding,
            identity,
            address,
            subscriptions: Vec::new(),
            subscriptions_made: 0,
            subscriptions_changed: 0,
            ends: None,
            revocations_seen: 0,
            own: None,
            commands: Bucket::default(),
            deadline,
        }
    }

    /// Until when the session may go on as it is.
    pub fn deadline(&self) -> Instant {
        if self.ends.is_some() { Instant::now() } else { self.deadline }
    }

    /// Why the session is over, if it is.
    pub(super) fn is_over(&mut self, now: Instant) -> Option<Close> {
        if self.ends.is_some() || now < self.deadline {
            return self.ends;
        }
        match &self.identity {
            None => Some(Close::AuthenticationLate),
            Some(identity) => match left_of(&identity.claims, SystemTime::now()) {
                Duration::ZERO => Some(Close::Unauthenticated),
                left => {
                    self.deadline = now + left;
                    None
                }
            },
        }
    }

    /// Whether there are revocations that were not looked at.
    pub(super) fn may_be_revoked(&self) -> bool {
        self.revocations_seen != self.state.verifier.revocations().revision()
    }

    /// Looks at the revocations; whether they concern this client.
    pub(super) fn is_revoked(&mut self) -> bool {
        let revocations = self.state.verifier.revocations();
        self.revocations_seen = revocations.revision();
        self.identity.as_ref().is_some_and(|identity| revocations.concern(&identity.claims))
    }

    /// Executes a command.
    pub(super) async fn command(&mut self, command: Command) -> Result<serde_json::Value, Refusal> {
        self.admit().await?;
        match command {
            Command::Connect(Connect { token: Some(token) }) => self.authenticate(&token).await,
            _ if self.identity.is_none() => Err(Refusal::new("not_authenticated", "send `connect` with a token first")),
            Command::Connect(Connect { token: None }) => Ok(self.describe()),
            Command::Refresh(refresh) => self.authenticate(&refresh.token).await,
            Command::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Command::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe.subscription),
            Command::Join(join) => self.join(join).await,
            Command::Leave(leave) => self.leave(&leave.room),
            Command::Presence(of) => self.presence(&of.room).await,
            Command::Publish(publish) => self.publish(publish.event).await,
            Command::History(history) => self.history(history).await,
            Command::Ping => Ok(json!({ "position": self.state.tail.position() })),
        }
    }

    /// The first token makes the session's identity; a later one must be the same person's,
    /// because what is subscribed was allowed to that person.
    pub(super) async fn authenticate(&mut self, token: &str) -> Result<serde_json::Value, Refusal> {
        let claims = match self.state.verifier.verify(token).await {
            Ok(claims) => claims,
            Err(error) => {
                let close = match error {
                    VerifyToken::FetchKeys(_) | VerifyToken::AwaitRevocations => None,
                    VerifyToken::Expired | VerifyToken::Refuse => Some(Close::Unauthenticated),
                    VerifyToken::Revoked => Some(Close::Revoked),
                };
                return Err(Refusal { close, ..ApiError::from(error).into() });
            }
        };
        if self.identity.as_ref().is_some_and(|identity| identity.claims.sub != claims.sub) {
            return Err(Refusal::new("other_subject", "the token is of another person; open another connection"));
        }
        if !self.subscriptions.is_empty() {
            if !claims.allows(READ) {
                return Err(ApiError::LackScope { scope: READ }.into());
            }
            let access = Access::load(&self.state.postgres, &claims).await.map_err(ApiError::from)?;
            self.see(access);
        }
        if self.own.is_none() {
            self.own = admission::own_place(&self.state, &claims)
                .await
                .map_err(|refused| Refusal { close: Some(Close::TooManyConnections), ..refused.into() })?;
        }
        self.deadline = end_of(&claims);
        self.identity = Some(Identity { claims });
        Ok(self.describe())
    }

    /// Takes a place among the connections of the person whom the upgrade has authenticated.
    pub async fn take_own_place(&mut self) -> Result<(), ApiError> {
        if let Some(Identity { claims }) = &self.identity {
            self.own = admission::own_place(&self.state, claims).await?;
        }
        Ok(())
    }

    /// Counts a command of this connection, from its address, and of whoever sends it.
    pub(super) async fn admit(&mut self) -> Result<(), ApiError> {
        let policy = Policy::Connection;
        if let Some(rate) = Rate::of(self.state.config.throttle.connection_commands_per_second)
            && let Err(wait) = self.commands.take(rate, Instant::now())
        {
            self.state.metrics.throttled.get_or_create(&Throttled { policy: policy.name() }).inc();
            return Err(ApiError::Throttle(Standing { policy, rate, left: 0, wait: Some(wait) }));
        }
        admission::admit_from(&self.state, self.address, None).await?;
        match &self.identity {
            Some(Identity { claims }) => admission::admit(&self.state, claims, None).await,
            None => Ok(()),
        }
    }

    /// Counts what the client sends and is no command like one: reading it is not for nothing.
    pub(super) async fn refuse(&mut self, code: &'static str, message: String) -> Refusal {
        match self.admit().await {
            Ok(()) => Refusal::new(code, message),
            Err(throttled) => throttled.into(),
        }
    }

    /// Looks up what the client may see: for each subscription, and when a part of the log is missing. Else the log tells.
    pub(super) async fn look_up_access(&mut self) -> Result<(), ReadLog> {
        if let Some(identity) = &self.identity {
            let access = Access::load(&self.state.postgres, &identity.claims).await?;
            self.see(access);
        }
        Ok(())
    }

    fn see(&mut self, access: Access) {
        if self.access != access {
            self.access = access;
            self.subscriptions_changed += 1;
        }
    }

    fn describe(&self) -> serde_json::Value {
        let claims = self.identity.as_ref().map(|identity| &identity.claims);
        json!({
            "subject": claims.map(|claims| &claims.sub),
            "expires": claims.map(|claims| claims.exp),
            "heartbeat_seconds": self.limits.heartbeat.as_secs(),
            "position": self.state.tail.position(),
        })
    }
}

/// When a token has to be looked at again, on this process's clock.
fn end_of(claims: &Claims) -> Instant {
    Instant::now() + left_of(claims, SystemTime::now())
}

/// How long a token need not be looked at; nothing is left of one that has ended.
fn left_of(claims: &Claims, now: SystemTime) -> Duration {
    // An issuer may write an end that no clock reaches.
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp));
    let left = end.map_or(Duration::MAX, |end| end.duration_since(now).unwrap_or_default());
    left.min(LOOKED_AT_AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_looked_at_again_each_day_until_it_ends() {
        let begin = UNIX_EPOCH + Duration::from_secs(1_000);
        let left =
            |exp: u64, hours: u64| left_of(&Claims { exp, ..Claims::default() }, begin + Duration::from_hours(hours));
        for exp in [u64::MAX, i64::MAX.unsigned_abs(), 4_102_444_800] {
            assert_eq!(left(exp, 24 * 365), LOOKED_AT_AGAIN, "{exp}");
        }
        let three_days = 1_000 + 3 * 86_400;
        let hours = [0, 24, 48, 71, 72, 73].map(|hours| left(three_days, hours).as_secs() / 3_600);
        assert_eq!(hours, [24, 24, 24, 1, 0, 0]);
    }
}
