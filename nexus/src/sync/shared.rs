//! The second tier: Redis, shared by all pods. One hash per key: `value`, `as_of` and
//! `read_at` of the newest value that a reader put there, and `changed`, the newest position
//! at which a follower saw the key change.
//!
//! Two scripts keep it from going backwards, whoever is slow: a fill is taken only when it
//! is newer than what is there and not older than the marker; a change removes what is
//! older than it. This saves work. It is not what correctness rests on (`view` judges every
//! value once more when it is served), so the markers may be lost with everything else in
//! Redis, at any moment.

use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use redis::{RedisResult, Script};

use super::value::Held;
use crate::position::Position;
use crate::store::circuit::Circuit;
use crate::store::redis::Connection;

/// How long Redis may take. Postgres answers a read by key in a few milliseconds, so
/// waiting longer for a cache is worse than not asking it.
const DEADLINE: Duration = Duration::from_millis(20);

/// How long the invalidation of one batch may take; readers do not wait for it.
const CHANGE_DEADLINE: Duration = Duration::from_millis(100);

/// How long Redis keeps a value and its marker. Much longer than any reader is slow.
const KEPT_FOR: Duration = Duration::from_mins(10);

const FILL: &str = r"
local changed = tonumber(redis.call('HGET', KEYS[1], 'changed') or '-1')
local held = tonumber(redis.call('HGET', KEYS[1], 'as_of') or '-1')
local as_of = tonumber(ARGV[1])
if as_of < changed or as_of <= held then return 0 end
redis.call('HSET', KEYS[1], 'as_of', ARGV[1], 'value', ARGV[2], 'read_at', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1";

const CHANGE: &str = r"
local changed = tonumber(redis.call('HGET', KEYS[1], 'changed') or '-1')
local position = tonumber(ARGV[1])
if position > changed then redis.call('HSET', KEYS[1], 'changed', ARGV[1]) end
local held = tonumber(redis.call('HGET', KEYS[1], 'as_of') or '-1')
if held < position then redis.call('HDEL', KEYS[1], 'as_of', 'value', 'read_at') end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1";

/// The shared tier. Every failure is a miss: the database has the value.
pub(super) struct Shared {
    redis: Connection,
    prefix: String,
    circuit: Circuit,
    fill: Script,
    change: Script,
}

impl Shared {
    pub(super) fn new(redis: Connection, prefix: &str) -> Self {
        Self {
            redis,
            prefix: format!("{prefix}cache:"),
            circuit: Circuit::default(),
            fill: Script::new(FILL),
            change: Script::new(CHANGE),
        }
    }

    /// The value of `key`, if Redis has one and answers in time. Its `kept_for` is zero:
    /// the pod decides how long it keeps it.
    pub(super) async fn get(&self, epoch: i32, key: &str) -> Option<Held> {
        let mut redis = self.redis.clone();
        let mut command = redis::cmd("HMGET");
        command.arg(self.name(epoch, key)).arg("as_of").arg("value").arg("read_at");
        let answer: (Option<i64>, Option<Vec<u8>>, Option<i64>) =
            self.attempt(DEADLINE, command.query_async(&mut redis)).await?;
        let (Some(seq), Some(value), Some(read_at)) = answer else {
            return None;
        };
        Some(Held {
            body: (!value.is_empty()).then(|| Bytes::from(value)),
            as_of: Position { epoch, seq },
            read_at: Timestamp::from_millisecond(read_at).ok()?,
            kept_for: Duration::ZERO,
        })
    }

    /// Offers a value that was read from the database. Redis may refuse it as too old.
    pub(super) async fn fill(&self, key: &str, held: &Held) {
        let mut redis = self.redis.clone();
        let mut invocation = self.fill.key(self.name(held.as_of.epoch, key));
        // No record is an empty text; a record is a JSON object and never empty.
        let body = held.body.as_deref().unwrap_or_default();
        invocation.arg(held.as_of.seq).arg(body).arg(held.read_at.as_millisecond()).arg(milliseconds(KEPT_FOR));
        let _taken: Option<i64> = self.attempt(DEADLINE, invocation.invoke_async(&mut redis)).await;
    }

    /// Marks keys as changed, each at its position, in one round trip. A mark that is lost
    /// costs a later reader a value that is refused, and nothing else.
    pub(super) async fn change(&self, epoch: i32, changes: &[(Box<str>, i64)]) {
        let mut redis = self.redis.clone();
        let mut marks = redis::pipe();
        marks.load_script(&self.change).ignore();
        for (key, position) in changes {
            let mut invocation = self.change.key(self.name(epoch, key));
            invocation.arg(*position).arg(milliseconds(KEPT_FOR));
            marks.invoke_script(&invocation).ignore();
        }
        let _marked: Option<()> = self.attempt(CHANGE_DEADLINE, marks.query_async(&mut redis)).await;
    }

    fn name(&self, epoch: i32, key: &str) -> String {
        format!("{}{epoch}:{key}", self.prefix)
    }

    /// Waits for Redis within the deadline, unless it has just failed.
    async fn attempt<T>(&self, deadline: Duration, answer: impl Future<Output = RedisResult<T>>) -> Option<T> {
        if !self.circuit.allows(Instant::now()) {
            return None;
        }
        let failure = match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(value)) => {
                if self.circuit.succeeded() {
                    tracing::info!("Redis answers again; reads use the shared cache");
                }
                return Some(value);
            }
            Ok(Err(error)) => error.category().to_owned(),
            Err(_late) => "no answer within the deadline".to_owned(),
        };
        if self.circuit.failed(Instant::now()) {
            tracing::warn!(reason = failure, "Redis does not answer; reads go to the database");
        }
        None
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
