//! Large groups are stamped two at a time. While the transaction of one commits, that of the next is already written, over
//! a second connection and for the places that follow. It moves the head and commits only when the one before has.
//!
//! Moving the head asks for the place that the group was written after. If the head is elsewhere by then, or the outbox
//! has something, which comes first, the transaction is rolled back, and the group is stamped as a small one is.

use std::collections::{HashSet, VecDeque};
use std::mem;
use std::time::{Duration, SystemTime};

use jiff_sqlx::Timestamp;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use sqlx::{Connection, PgConnection};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::queue::Group;
use super::sequencer::{Batch, LeadLog, Leader, Sequencer, connect, step};
use super::stamp::{Columns, Committed, UNIQUE_VIOLATION};
use crate::chain::Chain;
use crate::position::Position;

/// Smallest group that is written ahead: for a smaller one it pays more to wait until it has grown.
const EVENTS_MIN: usize = 64;
/// How long none is written ahead after one came to nothing: what was in its way may stay there.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a group waits for the one before it. Nobody's transaction is open for longer than its server has patience.
const TURN_DEADLINE: Duration = Duration::from_secs(1);
/// How long a roll-back may take before the connection is given up, which rolls back as well.
const ROLLBACK_DEADLINE: Duration = Duration::from_millis(500);

/// The connection beside the leader's own, and when it may be used.
#[derive(Default)]
pub(super) struct Second {
    connection: Option<PgConnection>,
    /// One that is being opened: nothing waits for that.
    opening: Option<AbortOnDropHandle<Result<PgConnection, LeadLog>>>,
    not_before: Option<Instant>,
}

/// A connection that writes one group after the other.
struct Hand {
    connection: PgConnection,
    /// Whether it is the leader's own, which holds the lock.
    leads: bool,
}

/// Groups that are stamped two at a time, from the first to the last.
struct Run {
    free: Vec<Hand>,
    /// In the order of their places.
    line: VecDeque<UnderWay>,
    /// What is sent next; empty when nothing was taken yet.
    next: Group,
    /// Where the log ends with all that was sent; nothing when one of them came to nothing.
    head: Option<Position>,
    /// Whether another group may be sent.
    goes_on: bool,
    /// Groups that are still to be stamped.
    left: VecDeque<Group>,
    /// Why the lead is lost.
    lost: Option<LeadLog>,
}

struct UnderWay {
    written: AbortOnDropHandle<Written>,
    /// Whether it was sent while another was under way.
    is_ahead: bool,
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
    outcome: Outcome,
}

enum Outcome {
    /// Its transaction has this time.
    Committed(Timestamp),
    /// It can be stamped otherwise.
    RolledBack,
    /// One of its events was there before.
    Repeats,
    /// The database took it not, for what an event holds or for a key that another transaction holds.
    Refused,
    /// The connection is of no use any more.
    Failed {
        error: LeadLog,
        /// Whether the transaction may have been committed all the same.
        is_unknown: bool,
    },
}

impl Sequencer {
    /// Whether this group is to be written ahead.
    pub(super) async fn goes_ahead(&self, leader: &mut Leader, group: &Group) -> bool {
        group.events().len() >= EVENTS_MIN
            && leader.head.is_some()
            && leader.stamper.expects_new()
            && leader.second.not_before.is_none_or(|then| then <= Instant::now())
            && !self.lets_in(group)
            && self.has_second(&mut leader.second).await
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
        let second = leader.second.connection.take().map(|connection| Hand { connection, leads: false });
        let free = second.into_iter().chain([Hand { connection: own, leads: true }]).collect();
        let (line, left, head) = (VecDeque::new(), VecDeque::new(), leader.head.take());
        let mut run = Run { free, line, next: first, head, goes_on: true, left, lost: None };
        let mut untold = before;
        loop {
            self.send(leader, &mut run);
            // Postgres works at them meanwhile.
            self.tell(mem::take(&mut untold)).await;
            let Some(oldest) = run.line.front_mut() else { break };
            tokio::select! {
                written = &mut oldest.written => {
                    untold = self.settle(leader, &mut run, written.expect("it does not panic"));
                }
                () = self.groups.grew(), if run.goes_on && !run.free.is_empty() => {}
            }
        }
        if !run.next.is_empty() {
            run.left.push_back(run.next);
        }
        if let Some(lost) = run.lost {
            for group in run.left {
                self.groups.answer_unknown(group).await;
            }
            return Err(lost);
        }
        leader.head = run.head;
        let (own, second): (Vec<_>, Vec<_>) = run.free.into_iter().partition(|hand| hand.leads);
        leader.second.connection = second.into_iter().next().map(|hand| hand.connection);
        let own = own.into_iter().next().expect("without it the lead is lost");
        Ok((own.connection, run.left))
    }

    /// Gives a large group to each connection that is free, unless something is in its way.
    fn send(&self, leader: &Leader, run: &mut Run) {
        // What has come to an end is looked at first: nothing follows what came to nothing.
        while run.goes_on && !run.free.is_empty() && !run.line.iter().any(|one| one.written.is_finished()) {
            if run.next.is_empty() {
                run.next = self.groups.take_large(EVENTS_MIN);
            }
            let Some(after) = run.head.filter(|_| !run.next.is_empty()) else { break };
            let keys: HashSet<Uuid> = run.next.events().iter().map(|event| event.key).collect();
            run.goes_on = !leader.room.is_short(after.seq, self.partition_entries)
                && !self.lets_in(&run.next)
                && run.line.iter().all(|other| other.keys.is_disjoint(&keys));
            let Some(hand) = run.free.pop_if(|_| run.goes_on) else { break };
            run.head = Some(run.next.end(after));
            let turn = run.line.back_mut().and_then(|last| last.committed.take());
            let (is_ahead, (committed, told)) = (turn.is_some(), oneshot::channel());
            let channel = self.wake.channel().to_owned();
            let order = Order { group: mem::take(&mut run.next), after, channel, turn, committed };
            let written = AbortOnDropHandle::new(tokio::spawn(write(hand, order)));
            run.line.push_back(UnderWay { written, is_ahead, keys, committed: Some(told) });
        }
    }

    /// What is to be told of the oldest group under way, now that it has come to an end. If that is nothing, no further
    /// one is sent.
    fn settle(&self, leader: &mut Leader, run: &mut Run, written: Written) -> Batch {
        let is_ahead = run.line.pop_front().is_some_and(|oldest| oldest.is_ahead);
        let Written { group, after, begun, hand, outcome } = written;
        match outcome {
            Outcome::Committed(recorded_at) => {
                self.metrics.ahead_batches.inc_by(is_ahead.into());
                run.free.push(hand);
                let committed = Committed::New { head: after, recorded_at };
                return Batch { head: committed.head(&group), committed: Some((committed, begun)), group };
            }
            Outcome::Refused => {
                run.free.push(hand);
                self.groups.commit_apart(group);
            }
            Outcome::Repeats => {
                run.free.push(hand);
                run.left.push_back(group);
                leader.stamper.expect_duplicates();
            }
            Outcome::RolledBack => {
                run.free.push(hand);
                run.left.push_back(group);
            }
            Outcome::Failed { error, is_unknown } => {
                tracing::debug!(error = %Chain(&error), "a group could not be written ahead");
                run.left.push_back(group);
                if hand.leads || is_unknown {
                    run.lost.get_or_insert(error);
                }
            }
        }
        (run.goes_on, run.head) = (false, None);
        leader.second.not_before = Some(Instant::now() + PAUSE);
        Batch::default()
    }

    /// Whether there is a second connection. Where there is none, one is opened for the groups to come.
    async fn has_second(&self, second: &mut Second) -> bool {
        if second.connection.is_none() {
            let options = self.options();
            let opening = second
                .opening
                .get_or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(async move { connect(&options).await })));
            if opening.is_finished() {
                match opening.await.expect("it does not panic") {
                    Ok(connection) => second.connection = Some(connection),
                    Err(error) => {
                        tracing::debug!(error = %Chain(&error), "the sequencer has no second connection");
                        second.not_before = Some(Instant::now() + PAUSE);
                    }
                }
                second.opening = None;
            }
        }
        second.connection.is_some()
    }
}

async fn write(mut hand: Hand, order: Order) -> Written {
    let begun = SystemTime::now();
    let Order { group, after, channel, turn, committed } = order;
    let outcome = commit(&mut hand.connection, &group, after, &channel, turn).await;
    if let Outcome::Committed(_) = outcome {
        let _ = committed.send(());
    }
    Written { group, after, begun, hand, outcome }
}

async fn commit(
    connection: &mut PgConnection,
    group: &Group,
    after: Position,
    channel: &str,
    turn: Option<oneshot::Receiver<()>>,
) -> Outcome {
    let failed = |error| Outcome::Failed { error, is_unknown: false };
    // As of each statement: the head moves while this one is open.
    let mut transaction = match asked(connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")).await {
        Ok(transaction) => transaction,
        Err(error) => return failed(error),
    };
    let written = match asked(Columns::of(group.events()).write(&mut transaction, after)).await {
        Ok(recorded_at) => Ok(recorded_at),
        Err(error) => match refusal(&error) {
            Some(refusal) if refusal.code() == UNIQUE_VIOLATION => Err(Outcome::Repeats),
            Some(_) => Err(Outcome::Refused),
            None => return failed(error),
        },
    };
    let is_its_turn = match turn {
        Some(turn) if written.is_ok() => matches!(timeout(TURN_DEADLINE, turn).await, Ok(Ok(()))),
        _ => written.is_ok(),
    };
    let moved = if is_its_turn {
        asked(move_head(&mut transaction, after, group.end(after), channel)).await
    } else {
        Ok(false)
    };
    match moved {
        Ok(true) => match asked(transaction.commit()).await {
            Ok(()) => written.map_or_else(|other| other, Outcome::Committed),
            Err(error) if refusal(&error).is_some() => Outcome::RolledBack,
            Err(error) => Outcome::Failed { error, is_unknown: true },
        },
        Err(error) if refusal(&error).is_none() => failed(error),
        Ok(false) | Err(_) => match timeout(ROLLBACK_DEADLINE, transaction.rollback()).await {
            Ok(Ok(())) => written.err().unwrap_or(Outcome::RolledBack),
            Ok(Err(error)) => failed(LeadLog::StampEvents(error)),
            Err(_) => failed(LeadLog::MissDeadline),
        },
    }
}

/// What Postgres answered, if it lives and has rolled back what it was asked for.
fn refusal(error: &LeadLog) -> Option<&PgDatabaseError> {
    let LeadLog::StampEvents(sqlx::Error::Database(refusal)) = error else { return None };
    let refusal = refusal.try_downcast_ref::<PgDatabaseError>()?;
    matches!(refusal.severity(), PgSeverity::Error).then_some(refusal)
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
