//! What Redis keeps of each room, in two keys: a sorted set of the people by when they are gone unless told of again, and a
//! hash with, for each person, the pods that told of connections, how many, and until when that counts.

use std::sync::LazyLock;

use redis::{Pipeline, Script, ScriptInvocation};

use super::KEPT;

/// Takes note of how many connections a person has in a room on one pod, and answers how many on all of them; or -1, and
/// takes note of nothing, when these are more than allowed.
static TELL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, gone in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[1], gone)
  redis.call('HDEL', KEYS[2], gone)
end
local person, pod, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local kept, max = tonumber(ARGV[4]), tonumber(ARGV[5])
local pods = cjson.decode(redis.call('HGET', KEYS[2], person) or '{}')
local total, ends = count, 0
for other, held in pairs(pods) do
  if other == pod or held[2] <= now then
    pods[other] = nil
  else
    total = total + held[1]
    ends = math.max(ends, held[2])
  end
end
if max > 0 and total > max then return -1 end
if count > 0 then
  pods[pod] = {count, now + kept}
  ends = now + kept
end
if ends == 0 then
  redis.call('ZREM', KEYS[1], person)
  redis.call('HDEL', KEYS[2], person)
else
  redis.call('ZADD', KEYS[1], ends, person)
  redis.call('HSET', KEYS[2], person, cjson.encode(pods))
  redis.call('PEXPIRE', KEYS[1], kept * 2)
  redis.call('PEXPIRE', KEYS[2], kept * 2)
end
return total",
    )
});

/// Answers how many people are in a room, and names some.
static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local after = '(' .. (time[1] * 1000 + math.floor(time[2] / 1000))
local people = redis.call('ZCOUNT', KEYS[1], after, '+inf')
return {people, redis.call('ZRANGE', KEYS[1], after, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[1])}",
    )
});

/// Whom a pod tells of, and where.
pub(super) struct Place<'a> {
    pub(super) prefix: &'a str,
    pub(super) room: &'a str,
    pub(super) person: &'a str,
    pub(super) pod: &'a str,
}

fn people(prefix: &str, room: &str) -> String {
    format!("{prefix}people:{room}")
}

/// Has Redis know the script that a pipeline invokes.
pub(super) fn load(pipeline: &mut Pipeline) {
    pipeline.load_script(&TELL).ignore();
}

/// So many connections of the person are in the room on this pod; at most so many may be on all, if it is not 0.
pub(super) fn tell(place: &Place<'_>, connections: u32, connections_max: u32) -> ScriptInvocation<'static> {
    let Place { prefix, room, person, pod } = place;
    let kept = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
    let mut invocation = TELL.key(people(prefix, room));
    // The kind stands before the room, so that no room has the name of another one's key.
    invocation.key(format!("{prefix}pods:{room}"));
    invocation.arg(*person).arg(*pod).arg(connections).arg(kept).arg(connections_max);
    invocation
}

/// Who is in the room.
pub(super) fn look(prefix: &str, room: &str, list_max: usize) -> ScriptInvocation<'static> {
    let mut invocation = LOOK.key(people(prefix, room));
    invocation.arg(list_max);
    invocation
}
