//! What is due for a session, whatever its transport: while it is live, what the hub brings; while it is behind,
//! stretches of the log. A front asks for it whenever its client can take more, and so sets the pace.

use std::task::Waker;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::close::Close;
use super::command::{Command, Frame, Publish};
use super::delivery::Stretch;
use super::encode::{self, Encoding};
use super::hub::Member;
use super::inbox::Taken;
use super::presence::Entered;
use super::session::{Identity, Refusal, Session};
use super::wire::text_message;
use crate::chain::Chain;
use crate::position::Position;

/// Least pause before the log is read again after it could not be; up to twice as long, so that not all do it at once.
const RETRY: Duration = Duration::from_secs(1);

/// Where the next pushes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The hub has brought something: `take`.
    Inbox,
    /// The log has to be read: `read_log`.
    Log,
}

/// A session and its place in the hub.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) session: Session,
    member: Member,
    /// The changes of the session that its place in the hub knows of.
    followed: u64,
    /// Whether the log has to be read; else what is new comes into the inbox.
    behind: bool,
    /// Whether it was live before it was woken for what is read now.
    live: bool,
    retry_at: Option<Instant>,
    /// The rooms that it is in.
    rooms: Vec<(Box<str>, Entered)>,
}

impl Feed {
    pub(super) fn new(session: Session) -> Self {
        let member = session.state.hub.join();
        let mut feed =
            Self { member, followed: 0, behind: false, live: true, retry_at: None, rooms: Vec::new(), session };
        feed.follow();
        feed
    }

    /// Executes the command in one text message of a WebSocket; appends what was due before it, then the answer.
    pub(super) async fn execute(&mut self, text: &str, out: &mut Vec<u8>) -> Option<Close> {
        if self.session.encoding == Encoding::CloudEvents {
            self.publish(text, out).await;
            return None;
        }
        let Frame { id, command } = match Frame::parse(text) {
            Ok(frame) => frame,
            Err(error) => {
                let refusal = self.session.refuse("malformed_frame", error.message).await;
                text_message(&encode::error(error.id, &refusal.told()), out);
                return None;
            }
        };
        match self.command(command, out).await {
            Ok(result) => {
                text_message(&encode::result(id, &result), out);
                None
            }
            Err(refusal) => {
                text_message(&encode::error(Some(id), &refusal.told()), out);
                refusal.close
            }
        }
    }

    /// Publishes the event that one text message is; appends what was due before it, and an answer if it is refused.
    async fn publish(&mut self, text: &str, out: &mut Vec<u8>) {
        let event: Value = match serde_json::from_str(text) {
            Ok(event) => event,
            Err(error) => {
                let refusal = self.session.refuse("malformed_frame", error.to_string()).await;
                return text_message(&encode::refused_event(Uuid::new_v4(), &Value::Null, refusal.told()), out);
            }
        };
        let named = json!({ "id": event["id"], "source": event["source"] });
        if let Err(refusal) = self.command(Command::Publish(Publish { event }), out).await {
            text_message(&encode::refused_event(Uuid::new_v4(), &named, refusal.told()), out);
        }
    }

    /// Executes a command; appends what was due before it.
    pub(super) async fn command(&mut self, command: Command, out: &mut Vec<u8>) -> Result<Value, Refusal> {
        // Before there may be a subscription for which the inbox was not filled.
        self.catch_up_with_inbox(out);
        // In memory of its own, and only while it runs.
        let outcome = Box::pin(self.session.command(command)).await;
        self.follow();
        outcome
    }

    /// Takes its place in the hub for what it is subscribed to now, if that has changed, and begins with the log.
    pub(super) fn follow(&mut self) {
        if self.take_place() {
            self.live = self.session.position() >= self.session.state.tail.position();
            self.begin_to_read();
        }
    }

    /// Takes its place in the hub, if what it follows or may see has changed; whether it has.
    fn take_place(&mut self) -> bool {
        let changed = self.followed != self.session.subscriptions_changed;
        if changed {
            self.followed = self.session.subscriptions_changed;
            let filters = self.session.subscriptions.iter().map(|subscription| &subscription.filter);
            self.member.follow(filters, &self.session.access);
            self.enter_rooms();
        }
        changed
    }

    /// Is in the rooms that its subscriptions name and it has a right to, and in no other.
    fn enter_rooms(&mut self) {
        let Session { subscriptions, identity, state, access, .. } = &self.session;
        // A later token of the same person may open less.
        let named = || {
            let rooms = subscriptions.iter().filter_map(|subscription| subscription.filter.room());
            rooms.filter(|room| access.is_in(room))
        };
        self.rooms.retain(|(room, _)| named().any(|named| *named == **room));
        let Some(Identity { claims }) = identity else { return };
        for room in named() {
            if !self.rooms.iter().any(|(entered, _)| **entered == *room) {
                self.rooms.push((room.into(), state.presence.enter(room, &claims.sub)));
            }
        }
    }

    /// Whom to wake when something is due, or when the pod leaves.
    pub(super) fn register(&self, waker: &Waker) {
        self.member.register(waker);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.member.is_draining()
    }

    /// What there is to do.
    pub(super) fn due(&self) -> Option<Due> {
        if self.behind {
            self.retry_at.is_none().then_some(Due::Log)
        } else {
            self.member.is_due().then_some(Due::Inbox)
        }
    }

    /// When the log is to be read again, after it could not be.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// The pause is over once its time has come.
    pub(super) fn look_at_the_clock(&mut self, now: Instant) {
        self.retry_at = self.retry_at.filter(|at| now < *at);
    }

    /// Appends what the hub has brought.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        match self.member.take() {
            (Taken::Entries(entries), dispatched) => {
                let Stretch { contents, caught_up } = self.session.push_live(&entries, dispatched, out);
                self.session.state.metrics.stream.sent(&contents);
                self.take_place();
                if !caught_up {
                    self.begin_to_read();
                }
            }
            // It stays live: how late it gets what it was too slow for is a latency like any other.
            (Taken::Behind(after), _) => {
                self.session.state.metrics.stream.demoted();
                self.session.has_all_up_to(after);
                self.begin_to_read();
            }
        }
    }

    /// Appends what the hub has brought, unless the log has to be read first.
    pub(super) fn catch_up_with_inbox(&mut self, out: &mut Vec<u8>) {
        if !self.behind {
            self.take(out);
        }
    }

    /// Appends the next stretch of the log.
    pub(super) async fn read_log(&mut self, out: &mut Vec<u8>) {
        // A connection with much to catch up on lets others have their turn.
        tokio::task::consume_budget().await;
        match Box::pin(self.session.next_stretch(self.live, out)).await {
            Ok(Stretch { contents, caught_up }) => {
                self.session.state.metrics.stream.sent(&contents);
                self.session.end_after_gap(&contents);
                self.take_place();
                if caught_up {
                    // What comes between the last look at the log and this is found by one more look.
                    self.member.open();
                    self.behind = !self.session.is_at_head();
                    self.live = true;
                }
            }
            Err(error) => {
                // Nothing is skipped: the same stretch is read again. The tail says it to people, once for all.
                tracing::debug!(error = %Chain(&error), "a connection cannot read the log");
                self.retry_at = Some(Instant::now() + RETRY + RETRY.mul_f64(rand::random()));
            }
        }
    }

    /// Everything that matches up to here was appended.
    pub(super) fn position(&self) -> Position {
        self.session.position()
    }

    fn begin_to_read(&mut self) {
        self.member.close();
        self.behind = true;
    }
}
