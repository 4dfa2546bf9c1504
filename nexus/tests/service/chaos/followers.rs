//! Followers: a client of each way in, which comes back to any pod where it left off, and keeps what it was given. It leaves
//! of itself too, in the middle of anything.

mod event_stream;
mod long_poll;
mod socket_io;
mod web_socket;
mod workers;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::time::sleep;

use super::Field;
use super::check::{Recorded, Seen, Wants, Whom, difference, difference_in_effect, expected, without_conflated};
use crate::support::people::{ANN, BOB, token_of_person};
use crate::support::token;

pub(super) use workers::{make_consumer, make_webhook};

/// A client that hears nothing for so long, no heartbeat either, connects anew.
const SILENCE: Duration = Duration::from_secs(6);
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// Longest pause before another connection, in milliseconds.
const PAUSE_MS: u64 = 400;
/// Most events after which a client leaves by itself.
const STAY_EVENTS_MAX: u32 = 400;

/// How a follower is connected.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    WebSocket,
    /// One that at times reads nothing for a while.
    SlowWebSocket,
    EventStream,
    LongPoll,
    SocketIo,
    SocketIoPolling,
    /// One of the workers of a durable consumer.
    Worker,
    /// The receiver of a webhook: it is called, and follows nothing by itself.
    Receiver,
}

/// A follower, and what it was given.
pub(super) struct Follower {
    pub(super) name: &'static str,
    pub(super) way: Way,
    whom: Whom,
    wants: Wants,
    given: Mutex<Given>,
}

#[derive(Default)]
struct Given {
    events: Vec<Seen>,
    /// Positions, for those that may be given an event more than once.
    handled: HashSet<String>,
    visits: u32,
    /// What must not happen.
    faults: Vec<String>,
    /// Why the last connection ended.
    ended: Option<String>,
}

/// All of them. Worker and receiver are two of a kind that handle each event once.
pub(super) fn all() -> Vec<Arc<Follower>> {
    const ALL: Wants = Wants { types: &["**"], subject: None };
    let of = |types| Wants { types, subject: None };
    let made = [
        ("a WebSocket of a service", Way::WebSocket, Whom::Service, ALL),
        ("a WebSocket of types", Way::WebSocket, Whom::Service, of(&["wallet.*", "mining.reward"])),
        ("a WebSocket of a subject", Way::WebSocket, Whom::Service, Wants { subject: Some("wallet/w1"), ..ALL }),
        ("a WebSocket of a person", Way::WebSocket, Whom::Person(ANN), ALL),
        ("a WebSocket that stops to read", Way::SlowWebSocket, Whom::Service, ALL),
        ("an event stream of a service", Way::EventStream, Whom::Service, ALL),
        ("an event stream of a person", Way::EventStream, Whom::Person(BOB), ALL),
        ("a long-poll of a service", Way::LongPoll, Whom::Service, of(&["transaction.completed", "job.posted"])),
        ("a long-poll of a person", Way::LongPoll, Whom::Person(BOB), ALL),
        ("Socket.IO of a service", Way::SocketIo, Whom::Service, ALL),
        ("Socket.IO of a person", Way::SocketIo, Whom::Person(ANN), of(&["lesson.*", "transaction.*"])),
        ("Socket.IO that polls", Way::SocketIoPolling, Whom::Person(BOB), ALL),
        ("a durable consumer", Way::Worker, Whom::Service, ALL),
        ("a webhook", Way::Receiver, Whom::Service, ALL),
    ];
    let follower = |(name, way, whom, wants)| Arc::new(Follower { name, way, whom, wants, given: Mutex::default() });
    made.map(follower).to_vec()
}

impl Follower {
    /// Follows until it is stopped from outside.
    pub(super) async fn follow(self: Arc<Self>, field: Arc<Field>, mut rng: StdRng) {
        let mut socket_io = socket_io::Memory::default();
        loop {
            let visit = match self.way {
                Way::WebSocket | Way::SlowWebSocket => web_socket::visit(&self, &field, &mut rng).await,
                Way::EventStream => event_stream::visit(&self, &field, &mut rng).await,
                Way::LongPoll => long_poll::visit(&self, &field, &mut rng).await,
                Way::SocketIo => socket_io::visit(&self, &field, &mut rng, &mut socket_io).await,
                Way::SocketIoPolling => socket_io::visit_by_polling(&self, &field, &mut rng, &mut socket_io).await,
                Way::Worker => workers::visit(&self, &field, &mut rng).await,
                Way::Receiver => return,
            };
            self.with(|given| {
                given.visits += 1;
                given.ended = visit.err().map(|error| format!("{error:#}"));
            });
            sleep(Duration::from_millis(rng.random_range(0..PAUSE_MS))).await;
        }
    }

    /// Takes an event, as the last one it was given.
    fn apply(&self, event: &Value) -> Result<()> {
        let seen = Seen::of(event);
        if seen.position.is_empty() {
            bail!("no event of the log: {event}");
        }
        self.with(|given| given.events.push(seen));
        Ok(())
    }

    /// Takes an event that it may have been given before.
    fn apply_once(&self, event: &Value) {
        let seen = Seen::of(event);
        self.with(|given| {
            if given.handled.insert(seen.position.clone()) {
                given.events.push(seen);
            }
        });
    }

    fn must_not(&self, what: String) {
        self.with(|given| given.faults.push(what));
    }

    /// The position to go on after.
    fn position(&self) -> String {
        let last = self.with(|given| given.events.last().map(|event| event.position.clone()));
        last.unwrap_or_else(|| "1.0".to_owned())
    }

    fn token(&self) -> String {
        match self.whom {
            Whom::Service => token("events:read consumers:write webhooks:write"),
            Whom::Person(person) => token_of_person(person),
        }
    }

    fn stay(rng: &mut StdRng) -> u32 {
        rng.random_range(1..STAY_EVENTS_MAX)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Given) -> T) -> T {
        act(&mut self.given.lock().expect("nobody has panicked"))
    }

    /// How much it was given.
    pub(super) fn given(&self) -> usize {
        self.with(|given| given.events.len())
    }

    /// Whether it was given what it should be, or what must not happen has happened.
    pub(super) fn is_done(&self, log: &[Recorded]) -> bool {
        let expected = expected(log, self.whom, self.wants);
        self.with(|given| {
            let has_all = match self.way {
                Way::Worker | Way::Receiver => given.events.len() >= expected.len(),
                // With more than there is something is wrong, and waiting for the last mends nothing.
                _ => given.events.last() == expected.last() || given.events.len() > expected.len(),
            };
            has_all || !given.faults.is_empty()
        })
    }

    /// What is wrong with what it was given.
    pub(super) fn faults(&self, log: &[Recorded]) -> Vec<String> {
        let expected = expected(log, self.whom, self.wants);
        self.with(|given| {
            let differs = match self.way {
                Way::Worker | Way::Receiver => difference_in_effect(&expected, &given.events),
                Way::LongPoll => difference(&expected, &given.events),
                _ => difference(&without_conflated(expected, &given.events, log), &given.events),
            };
            let ended = given.ended.as_deref().unwrap_or("by itself");
            let differs = differs.map(|differs| format!("{differs}; its last connection ended: {ended}"));
            given.faults.iter().cloned().chain(differs).map(|fault| format!("{}: {fault}", self.name)).collect()
        })
    }

    /// What it got, for people.
    pub(super) fn tale(&self) -> String {
        self.with(|given| format!("{} events over {} connections: {}", given.events.len(), given.visits, self.name))
    }
}
