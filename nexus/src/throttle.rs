//! How often a caller may ask, counted over all pods. Redis holds a token bucket per caller; a pod takes a few tokens at a
//! time, so that a busy caller costs few round trips. It never keeps a caller waiting: it answers when to come back. Without
//! Redis each pod counts alone.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Script;
use tokio::time::Instant;

mod bucket;

pub use bucket::{Bucket, Rate};

use crate::store::circuit::Circuit;
use crate::store::redis::Connection;

/// How long tokens that a pod has taken are good: what a caller leaves is lost to it.
const PURSE_AGE_MAX: Duration = Duration::from_secs(1);

/// A pod takes as many tokens at a time as a caller may spend in this part of a second.
const PARTS_OF_A_SECOND: u32 = 20;

/// Callers that are remembered before those who have gone are looked for.
const CALLERS_KEPT: usize = 1_024;

/// Who has asked nothing for so long has gone: longer than any bucket takes to be full.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// Redis may take so long. A caller that is let through while it is slow is no harm.
const DEADLINE: Duration = Duration::from_millis(50);

/// Takes up to so many tokens from the bucket, which is kept as the time at which it will be full, in microseconds. Answers how
/// many were taken, how many are left, and in how many microseconds there will be one.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local left = math.floor((now + burst * interval - full_at) / interval)
local taken = math.max(0, math.min(wanted, left))
if taken > 0 then
  full_at = full_at + taken * interval
  redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
end
local wait = 0
if taken == 0 then wait = full_at + interval - burst * interval - now end
return {taken, math.max(0, left - taken), wait}",
    )
});

/// Whose bucket it is, in headers and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Of a person, by `sub`.
    Person,
    /// Of a service, by `sub`.
    Service,
    /// Of an address.
    Address,
    /// Of one connection, which this pod counts alone.
    Connection,
}

impl Policy {
    /// Its name in headers, keys and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Service => "service",
            Self::Address => "address",
            Self::Connection => "connection",
        }
    }
}

/// How a caller stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which bound.
    pub policy: Policy,
    /// What it allows.
    pub rate: Rate,
    /// How many requests are left at once.
    pub left: u32,
    /// When to come back; none when the request may pass.
    pub wait: Option<Duration>,
}

/// The buckets of all callers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Throttle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    redis: Connection,
    prefix: Box<str>,
    circuit: Circuit,
    purses: Mutex<Purses>,
}

#[derive(Debug, Default)]
struct Purses {
    by_caller: HashMap<Box<str>, Purse>,
    /// How many there may be before those who have gone are looked for.
    look_at: usize,
}

/// What this pod knows of one caller.
#[derive(Debug)]
struct Purse {
    /// Tokens that were taken from the bucket and not spent.
    tokens: u32,
    /// Those that were left in it then.
    left: u32,
    good_until: Instant,
    /// There is no token before.
    empty_until: Instant,
    /// The bucket while Redis is away.
    own: Bucket,
    used_at: Instant,
}

impl Throttle {
    /// With all buckets full.
    pub fn new(redis: Connection, prefix: &str) -> Self {
        let (circuit, purses) = (Circuit::default(), Mutex::default());
        Self { shared: Arc::new(Shared { redis, prefix: format!("{prefix}throttle:").into(), circuit, purses }) }
    }

    /// Counts one request of the caller.
    pub async fn admit(&self, policy: Policy, caller: &str, rate: Rate) -> Standing {
        let key = format!("{}:{caller}", policy.name());
        let standing = |left, wait| Standing { policy, rate, left, wait };
        if let Some((left, wait)) = self.spend(&key, Instant::now()) {
            return standing(left, wait);
        }
        let wanted = (rate.per_second / PARTS_OF_A_SECOND).clamp(1, rate.burst.max(1));
        let taken = self.take(&key, rate, wanted).await;
        let now = Instant::now();
        let mut purses = self.purses();
        let purse = purses.of(&key, now);
        match taken {
            Some((0, _, wait)) => {
                purse.empty_until = now + wait;
                standing(0, Some(wait))
            }
            Some((taken, left, _)) => {
                // What another request has just taken is not lost.
                purse.tokens = purse.tokens.saturating_add(taken - 1);
                (purse.left, purse.good_until) = (left, now + PURSE_AGE_MAX);
                standing(left.saturating_add(purse.tokens), None)
            }
            None => match purse.own.take(rate, now) {
                Ok(()) => standing(rate.burst, None),
                Err(wait) => standing(0, Some(wait)),
            },
        }
    }

    /// Spends a token that this pod has, or knows that there is none.
    fn spend(&self, key: &str, now: Instant) -> Option<(u32, Option<Duration>)> {
        let mut purses = self.purses();
        let purse = purses.of(key, now);
        if purse.empty_until > now {
            return Some((0, Some(purse.empty_until - now)));
        }
        if purse.good_until <= now {
            purse.tokens = 0;
        }
        purse.tokens = purse.tokens.checked_sub(1)?;
        Some((purse.tokens.saturating_add(purse.left), None))
    }

    /// Takes tokens from the bucket; nothing when Redis does not answer.
    async fn take(&self, key: &str, rate: Rate, wanted: u32) -> Option<(u32, u32, Duration)> {
        let Shared { redis, prefix, circuit, .. } = &*self.shared;
        if !circuit.allows(std::time::Instant::now()) {
            return None;
        }
        let interval = u64::try_from(rate.interval().as_micros()).unwrap_or(u64::MAX);
        let mut invocation = TAKE.key(format!("{prefix}{key}"));
        invocation.arg(interval.max(1)).arg(rate.burst.max(1)).arg(wanted);
        let mut redis = redis.clone();
        let answer = tokio::time::timeout(DEADLINE, invocation.invoke_async::<(u32, u32, u64)>(&mut redis)).await;
        if let Ok(Ok((taken, left, wait))) = answer {
            circuit.succeeded();
            return Some((taken, left, Duration::from_micros(wait)));
        }
        if circuit.failed(std::time::Instant::now()) {
            tracing::warn!("Redis does not answer; each pod counts requests alone");
        }
        None
    }

    fn purses(&self) -> MutexGuard<'_, Purses> {
        self.shared.purses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Purses {
    fn of(&mut self, key: &str, now: Instant) -> &mut Purse {
        if self.by_caller.len() > self.look_at.max(CALLERS_KEPT) {
            self.by_caller.retain(|_, purse| purse.used_at + GONE_AFTER > now);
            self.look_at = self.by_caller.len() * 2;
        }
        let new =
            || Purse { tokens: 0, left: 0, good_until: now, empty_until: now, own: Bucket::default(), used_at: now };
        let purse = self.by_caller.entry(key.into()).or_insert_with(new);
        purse.used_at = now;
        purse
    }
}
