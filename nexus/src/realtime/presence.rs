//! Who is in which room, over all pods. A pod counts its own connections and tells Redis how many each person has in
//! each room. What it has told ends by itself unless it is told again, so the people of a pod that died are gone soon;
//! and nothing rests on it but answers to the question who is there, and bounds on connections.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::chain::Chain;
use crate::store::redis::Connection;

mod scripts;

/// How long Redis believes what a pod has told it.
const KEPT: Duration = Duration::from_secs(30);

/// When a pod tells everything again: two may be lost.
const TOLD_AGAIN: Duration = Duration::from_secs(10);

/// Changes gather for so long before they are told: a page that is reloaded is one, and ten thousand clients that come
/// at once are a few round trips.
const GATHERED: Duration = Duration::from_millis(50);

/// Pause before Redis is told after it could not be.
const RETRY: Duration = Duration::from_secs(1);

/// How many are told with one round trip.
const TOLD_AT_A_TIME: usize = 500;

/// Stands between a room and a person; neither has a control character.
const SEPARATOR: char = '\x1f';

/// Longest list of people in an answer.
pub const LIST_MAX: usize = 100;

/// Who is in a room.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Present {
    /// The room.
    pub room: String,
    /// How many people are in it, each once however many connections they have.
    pub people: usize,
    /// Some of them, by what their tokens call them; at most 100, and of `everyone` none.
    pub list: Vec<String>,
    /// Whether the list names all of them.
    pub complete: bool,
}

/// What this pod knows, and the way to Redis; cheap to clone.
#[derive(Clone, Debug)]
pub struct Presence {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    redis: Connection,
    prefix: Box<str>,
    /// The name of this pod among the others, made up at start.
    pod: Box<str>,
    here: Mutex<Here>,
    changed: Notify,
    /// One tells at a time, so that what is told last is what is true.
    telling: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Here {
    /// Connections of each person in each room.
    connections: HashMap<Box<str>, u32>,
    /// Those that Redis does not know yet as they are.
    untold: HashSet<Box<str>>,
}

/// One connection of a person in a room, until this is dropped.
#[derive(Debug)]
pub struct Entered {
    presence: Presence,
    key: Box<str>,
}

impl Presence {
    /// Of a pod that nobody is connected to.
    pub fn new(redis: Connection, prefix: &str) -> Self {
        let pod = Uuid::new_v4().simple().to_string().into_boxed_str();
        let (here, changed, telling) = (Mutex::default(), Notify::new(), tokio::sync::Mutex::default());
        let shared = Shared { redis, prefix: format!("{prefix}presence:").into(), pod, here, changed, telling };
        Self { shared: Arc::new(shared) }
    }

    /// One more connection of the person is in the room.
    pub(crate) fn enter(&self, room: &str, person: &str) -> Entered {
        let key = format!("{room}{SEPARATOR}{person}").into_boxed_str();
        self.change(&key, |count| count.saturating_add(1));
        Entered { presence: self.clone(), key }
    }

    /// The same, unless the person has as many connections in the room as allowed. Without Redis this pod counts alone.
    pub(crate) async fn enter_at_most(&self, room: &str, person: &str, connections_max: u32) -> Option<Entered> {
        let entered = self.enter(room, person);
        let count = self.count(&entered.key);
        let told = scripts::tell(&self.place(&entered.key), count, connections_max);
        let total: i64 = match told.invoke_async(&mut self.shared.redis.clone()).await {
            Ok(total) => total,
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "connections are counted by this pod alone");
                i64::from(count)
            }
        };
        if self.count(&entered.key) != count {
            // What was told meanwhile may have come before this.
            self.change(&entered.key, |count| count);
        }
        (1..=i64::from(connections_max)).contains(&total).then_some(entered)
    }

    /// Who is in the room now.
    pub(crate) async fn look(&self, room: &str, list_max: usize) -> redis::RedisResult<Present> {
        // Whoever has just come in sees oneself.
        self.tell().await?;
        let redis = &mut self.shared.redis.clone();
        let looked = scripts::look(&self.shared.prefix, room, list_max);
        let (people, mut list): (usize, Vec<String>) = looked.invoke_async(redis).await?;
        list.sort_unstable();
        Ok(Present { room: room.to_owned(), people, complete: list.len() == people, list })
    }

    /// Tells Redis of every change, and everything from time to time, until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut told_again = Instant::now();
        while !shutdown.is_cancelled() {
            tokio::select! {
                changed = timeout_at(told_again + TOLD_AGAIN, self.shared.changed.notified()) => {
                    if changed.is_ok() {
                        sleep(GATHERED).await;
                    }
                }
                () = shutdown.cancelled() => break,
            }
            // Also where changes never cease: what is not told again is forgotten.
            if Instant::now() >= told_again + TOLD_AGAIN {
                told_again = Instant::now();
                let mut here = self.here();
                let all: Vec<_> = here.connections.keys().cloned().collect();
                here.untold.extend(all);
            }
            if let Err(error) = self.tell().await {
                tracing::debug!(error = %Chain(&error), "who is here could not be told");
                sleep(RETRY).await;
                self.shared.changed.notify_one();
            }
        }
        // Its connections have ended: the people are elsewhere soon.
        let _ = self.tell().await;
    }

    async fn tell(&self) -> redis::RedisResult<()> {
        let _alone = self.shared.telling.lock().await;
        // What changes meanwhile is told the next time: who looks does not wait for changes to cease.
        let parts = self.here().untold.len().div_ceil(TOLD_AT_A_TIME);
        for _ in 0..parts {
            let changes = self.take_untold();
            let mut pipeline = redis::pipe();
            scripts::load(&mut pipeline);
            for (key, count) in &changes {
                pipeline.invoke_script(&scripts::tell(&self.place(key), *count, 0)).ignore();
            }
            let told: redis::RedisResult<()> = pipeline.query_async(&mut self.shared.redis.clone()).await;
            if let Err(error) = told {
                self.here().untold.extend(changes.into_iter().map(|(key, _)| key));
                return Err(error);
            }
        }
        Ok(())
    }

    /// What Redis does not know yet: as much of it as is told at a time, with how many connections there are now.
    fn take_untold(&self) -> Vec<(Box<str>, u32)> {
        let mut here = self.here();
        let keys: Vec<_> = here.untold.iter().take(TOLD_AT_A_TIME).cloned().collect();
        let mut taken = Vec::with_capacity(keys.len());
        for key in keys {
            here.untold.remove(&key);
            let count = here.connections.get(&key).copied().unwrap_or_default();
            taken.push((key, count));
        }
        taken
    }

    fn change(&self, key: &str, change: impl FnOnce(u32) -> u32) {
        let mut here = self.here();
        let before = here.connections.get(key).copied().unwrap_or_default();
        match change(before) {
            0 => drop(here.connections.remove(key)),
            after => drop(here.connections.insert(key.into(), after)),
        }
        here.untold.insert(key.into());
        drop(here);
        self.shared.changed.notify_one();
    }

    fn count(&self, key: &str) -> u32 {
        self.here().connections.get(key).copied().unwrap_or_default()
    }

    fn place<'a>(&'a self, key: &'a str) -> scripts::Place<'a> {
        let (room, person) = key.split_once(SEPARATOR).unwrap_or((key, ""));
        scripts::Place { prefix: &self.shared.prefix, room, person, pod: &self.shared.pod }
    }

    fn here(&self) -> MutexGuard<'_, Here> {
        self.shared.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.presence.change(&self.key, |count| count.saturating_sub(1));
    }
}
