//! Large groups are stamped two at a time. While the transaction of one commits, that of the next is already written, over
//! a second connection and for the places that follow. It moves the head and commits only when the one before has.
//!
//! Moving the head asks for the place that the group was written after. If the head is elsewhere by then, or the outbox
//! has something, which comes first, the transaction is rolled back, and the group is stamped as a small one is.

use std::collections::{HashSet, VecDeque};
use std::mem;
use std::time::{Duration, SystemTime};

use jiff_sqlx::Timestamp;
use sqlx::{Connection, PgConnection};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::queue::Group;
use super::sequencer::{Batch, LeadLog, Leader, Sequencer, step};
use super::stamp::{Columns, Committed};
use crate::chain::Chain;
use crate::position::Position;

/// Smallest group that is written ahead: for a smaller one it pays more to wait until it has grown.
const EVENTS_MIN: usize = 64;
/// How long none is written ahead after one came to nothing: what was in its way may stay there.
const PAUSE: Duration = Duration::from_secs(1);

/// The connection beside the leader's own, and when it may be used.
#[derive(Default)]
pub(super) struct Second {
    connection: Option<PgConnection>,
    not_before: Option<Instant>,
}

/// A connection that writes one group after the other.
struct Hand {
    connection: PgConnection,
    /// Whether it is the leader's own, which holds the lock.
    leads: bool,
}

struct UnderWay {
    written: AbortOnDropHandle<Written>,
    keys: HashSet<Uuid>,
    /// Says that it was committed; ends without a word when it was not. Belongs to the group after it.
    committed: Option<oneshot::Receiver<()>>,
}

/// A group, for the places after a head that there is or will be.
struct Order {
    group: Group,
    after: Position,
    channel: String,
    /// Says when it may move the head; nothing for one that may at once.
    turn: Option<oneshot::Receiver<()>>,
    committed: oneshot::Sender<()>,
}

/// What became of a group.
struct Written {
    group: Group,
    after: Position,
    begun: SystemTime,
    hand: Hand,
    /// The time of its transaction; nothing when that was rolled back.
    recorded_at: Result<Option<Timestamp>, Failure>,
}

/// The connection is of no use any more.
struct Failure {
    error: LeadLog,
    /// Whether the transaction may have been committed all the same.
    is_unknown: bool,
}

impl Sequencer {
    /// Whether this group is to be written ahead.
    pub(super) fn goes_ahead(&self, leader: &Leader, group: &Group) -> bool {
        group.events().len() >= EVENTS_MIN
            && leader.head.is_some()
            && leader.stamper.expects_new()
            && leader.second.not_before.is_none_or(|then| then <= Instant::now())
            && !self.lets_in(group)
    }

    /// Two transactions that let the same person into the same room would wait for one another.
    fn lets_in(&self, group: &Group) -> bool {
        let registry = self.tail.registry();
        group.events().iter().any(|event| registry.get(&event.event_type).is_none_or(|definition| definition.lets_in))
    }

    /// Stamps this group, and large ones that come meanwhile, and tells of the batch before. Answers the leader's
    /// connection, and the groups that are still to be stamped, in their order.
    pub(super) async fn stamp_ahead(
        &self,
        own: PgConnection,
        leader: &mut Leader,
        first: Group,
        before: Batch,
    ) -> Result<(PgConnection, VecDeque<Group>), LeadLog> {
        let mut free = Vec::from_iter(self.second(leader).await.map(|connection| Hand { connection, leads: false }));
        free.push(Hand { connection: own, leads: true });
        let (mut line, mut left) = (VecDeque::<UnderWay>::new(), VecDeque::new());
        let (mut next, mut untold) = (first, before);
        let (mut goes_on, mut failed, mut lost) = (true, false, None);
        let mut head = leader.head.take();
        loop {
            while goes_on && !free.is_empty() {
                if next.is_empty() {
                    next = self.groups.take_large(EVENTS_MIN);
                }
                let Some(after) = head.filter(|_| !next.is_empty()) else { break };
                let keys: HashSet<Uuid> = next.events().iter().map(|event| event.key).collect();
                goes_on = !leader.room.is_short(after.seq, self.partition_entries)
                    && !self.lets_in(&next)
                    && line.iter().all(|other| other.keys.is_disjoint(&keys));
                let Some(hand) = free.pop_if(|_| goes_on) else { break };
                head = Some(next.end(after));
                let turn = line.back_mut().and_then(|last| last.committed.take());
                if turn.is_some() {
                    self.metrics.ahead_batches.inc();
                }
                let (committed, told) = oneshot::channel();
                let channel = self.wake.channel().to_owned();
                let order = Order { group: mem::take(&mut next), after, channel, turn, committed };
                let written = AbortOnDropHandle::new(tokio::spawn(write(hand, order)));
                line.push_back(UnderWay { written, keys, committed: Some(told) });
            }
            // Postgres works at them meanwhile.
            self.tell(mem::take(&mut untold)).await;
            let Some(oldest) = line.front_mut() else { break };
            let Written { group, after, begun, hand, recorded_at } = tokio::select! {
                written = &mut oldest.written => written.expect("it does not panic"),
                () = self.groups.grew(), if goes_on && !free.is_empty() => continue,
            };
            line.pop_front();
            match recorded_at {
                Ok(Some(recorded_at)) => {
                    let committed = Committed::New { head: after, recorded_at };
                    untold = Batch { head: committed.head(&group), committed: Some((committed, begun)), group };
                    free.push(hand);
                    continue;
                }
                Ok(None) => free.push(hand),
                Err(Failure { error, is_unknown }) => {
                    tracing::debug!(error = %Chain(&error), "a group could not be written ahead");
                    if hand.leads || is_unknown {
                        lost.get_or_insert(error);
                    }
                }
            }
            left.push_back(group);
            (goes_on, failed) = (false, true);
        }
        if !next.is_empty() {
            left.push_back(next);
        }
        if let Some(lost) = lost {
            for group in left {
                self.groups.answer_unknown(group).await;
            }
            return Err(lost);
        }
        if failed {
            leader.second.not_before = Some(Instant::now() + PAUSE);
        } else {
            leader.head = head;
        }
        let (own, second): (Vec<_>, Vec<_>) = free.into_iter().partition(|hand| hand.leads);
        leader.second.connection = second.into_iter().next().map(|hand| hand.connection);
        let own = own.into_iter().next().expect("without it the lead is lost");
        Ok((own.connection, left))
    }

    /// The second connection, if there can be one.
    async fn second(&self, leader: &mut Leader) -> Option<PgConnection> {
        if let Some(connection) = leader.second.connection.take() {
            return Some(connection);
        }
        match asked(PgConnection::connect_with(&self.options())).await {
            Ok(connection) => Some(connection),
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "the sequencer has no second connection");
                None
            }
        }
    }
}

async fn write(mut hand: Hand, order: Order) -> Written {
    let begun = SystemTime::now();
    let Order { group, after, channel, turn, committed } = order;
    let recorded_at = commit(&mut hand.connection, &group, after, &channel, turn).await;
    if let Ok(Some(_)) = recorded_at {
        let _ = committed.send(());
    }
    Written { group, after, begun, hand, recorded_at }
}

async fn commit(
    connection: &mut PgConnection,
    group: &Group,
    after: Position,
    channel: &str,
    turn: Option<oneshot::Receiver<()>>,
) -> Result<Option<Timestamp>, Failure> {
    let known = |error| Failure { error, is_unknown: false };
    let mut transaction = asked(connection.begin()).await.map_err(known)?;
    let recorded_at = match asked(Columns::of(group.events()).write(&mut transaction, after)).await {
        Ok(recorded_at) => Some(recorded_at),
        Err(LeadLog::StampEvents(sqlx::Error::Database(refusal))) => {
            tracing::debug!(error = %Chain(&*refusal), "a group that was written ahead was refused");
            None
        }
        Err(error) => return Err(known(error)),
    };
    let is_its_turn = match turn {
        Some(turn) if recorded_at.is_some() => turn.await.is_ok(),
        _ => recorded_at.is_some(),
    };
    if is_its_turn && asked(move_head(&mut transaction, after, group.end(after), channel)).await.map_err(known)? {
        asked(transaction.commit()).await.map_err(|error| Failure { error, is_unknown: true })?;
        return Ok(recorded_at);
    }
    asked(transaction.rollback()).await.map_err(known)?;
    Ok(None)
}

/// Whether the head was at `from` and nothing waits in the outbox: it is moved then.
async fn move_head(
    connection: &mut PgConnection,
    from: Position,
    to: Position,
    channel: &str,
) -> Result<bool, sqlx::Error> {
    const MOVE: &str = "UPDATE head SET seq = $3
        WHERE epoch = $1 AND seq = $2 AND NOT EXISTS (SELECT FROM outbox) RETURNING pg_notify($4, '')";
    let moved = sqlx::query(MOVE).bind(from.epoch).bind(from.seq).bind(to.seq).bind(channel);
    Ok(moved.execute(connection).await?.rows_affected() > 0)
}

async fn asked<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, LeadLog> {
    step(async { answer.await.map_err(LeadLog::StampEvents) }).await
}
