//! What is due for one live connection. Shared between the hub, which fills it, and the connection's task, which empties
//! it. It holds no memory while it is empty, and is bounded: a connection that does not keep up is sent back to the log.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures::task::AtomicWaker;

use super::hub::BATCH_ENTRIES;
use crate::log::Entry;
use crate::position::Position;

/// Entries after which a connection is behind: two batches of the hub. They are shared with the ring, so most of them
/// cost a pointer each.
const ENTRIES_MAX: usize = 2 * BATCH_ENTRIES;

/// Bytes of entries after which a connection is behind: so much may be kept alive beyond the ring.
const BYTES_MAX: usize = 128 * 1024;

/// The queue of one connection.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    held: Mutex<Held>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
enum Held {
    /// The connection reads the log by itself.
    #[default]
    Closed,
    /// The connection is live: these follow what it has taken.
    Open { entries: Vec<Arc<Entry>>, bytes: usize },
    /// The connection was live and has everything up to here.
    Behind { after: Position },
}

/// What a connection finds in its inbox.
#[derive(Debug)]
pub(super) enum Taken {
    /// Entries that it may want, in order; perhaps none.
    Entries(Vec<Arc<Entry>>),
    /// Nothing more comes here: it has everything up to this place and reads the log.
    Behind(Position),
}

impl Inbox {
    /// From now on the hub puts in what it dispatches.
    pub(super) fn open(&self) {
        *self.held() = Held::Open { entries: Vec::new(), bytes: 0 };
    }

    /// Nothing is put in any more.
    pub(super) fn close(&self) {
        *self.held() = Held::Closed;
    }

    /// Puts an entry of this epoch in; whether the connection has to be woken for it.
    pub(super) fn put(&self, entry: &Arc<Entry>, epoch: i32) -> bool {
        let mut held = self.held();
        let Held::Open { entries, bytes } = &mut *held else { return false };
        // One connection may be found by type and by subject.
        if entries.last().is_some_and(|last| last.seq == entry.seq) {
            return false;
        }
        if entries.len() >= ENTRIES_MAX || *bytes >= BYTES_MAX {
            let seq = entries.first().map_or(entry.seq, |first| first.seq) - 1;
            *held = Held::Behind { after: Position { epoch, seq } };
            return true;
        }
        *bytes += entry.encoded.len();
        entries.push(Arc::clone(entry));
        entries.len() == 1
    }

    /// The hub dispatches nothing after `dispatched` for now: a live connection reads the log from there.
    pub(super) fn fall_behind(&self, dispatched: Position) {
        let mut held = self.held();
        if let Held::Open { entries, .. } = &*held {
            let seq = entries.first().map_or(dispatched.seq, |first| first.seq - 1);
            let after = Position { seq, ..dispatched };
            *held = Held::Behind { after };
            drop(held);
            self.wake();
        }
    }

    /// Whether `take` has something to say.
    pub(super) fn is_due(&self) -> bool {
        match &*self.held() {
            Held::Closed => false,
            Held::Open { entries, .. } => !entries.is_empty(),
            Held::Behind { .. } => true,
        }
    }

    /// Takes what is there.
    pub(super) fn take(&self) -> Taken {
        let mut held = self.held();
        match &mut *held {
            Held::Closed => Taken::Entries(Vec::new()),
            Held::Open { entries, bytes } => {
                *bytes = 0;
                Taken::Entries(mem::take(entries))
            }
            Held::Behind { after } => {
                let after = *after;
                *held = Held::Closed;
                Taken::Behind(after)
            }
        }
    }

    /// Whom to wake when something is put in.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(seq: i64, bytes: usize) -> Arc<Entry> {
        Arc::new(Entry {
            seq,
            outbox_id: seq,
            event_type: "a".into(),
            subject: "b".into(),
            type_number: 0,
            audience: crate::events::Audience::default(),
            recorded_at: jiff::Timestamp::UNIX_EPOCH,
            encoded: Bytes::from(vec![b' '; bytes]),
            published: None,
            attributes: crate::log::event::Attributes::default(),
            delivery: crate::traces::Delivery::default(),
        })
    }

    fn numbers(taken: Taken) -> Vec<i64> {
        match taken {
            Taken::Entries(entries) => entries.iter().map(|entry| entry.seq).collect(),
            Taken::Behind(after) => panic!("behind after {after:?}"),
        }
    }

    fn behind(taken: &Taken) -> Option<i64> {
        match taken {
            Taken::Entries(_) => None,
            Taken::Behind(after) => Some(after.seq),
        }
    }

    #[test]
    fn only_the_first_entry_wakes_and_none_is_put_in_twice() {
        let inbox = Inbox::default();
        assert!(!inbox.put(&entry(1, 1), 1), "it is closed");
        inbox.open();
        assert_eq!([2, 2, 3].map(|seq| inbox.put(&entry(seq, 1), 1)), [true, false, false]);
        assert_eq!(numbers(inbox.take()), [2, 3]);
        assert!(inbox.put(&entry(4, 1), 1));
        assert_eq!(numbers(inbox.take()), [4]);
        assert!(!inbox.is_due());
    }

    #[test]
    fn a_full_inbox_sends_the_connection_back_to_the_log_and_keeps_nothing() {
        for (bytes, count) in [(1, ENTRIES_MAX), (BYTES_MAX / 4, 4)] {
            let inbox = Inbox::default();
            inbox.open();
            for seq in 0..count {
                inbox.put(&entry(10 + i64::try_from(seq).expect("small"), bytes), 1);
            }
            assert!(inbox.put(&entry(1_000, 1), 1), "it is told");
            assert!(!inbox.put(&entry(1_001, 1), 1));
            assert_eq!(behind(&inbox.take()), Some(9));
            assert_eq!(numbers(inbox.take()), [0; 0]);
        }
    }

    #[test]
    fn a_pause_of_the_hub_loses_nothing_of_what_was_put_in() {
        let inbox = Inbox::default();
        inbox.open();
        inbox.fall_behind(Position { epoch: 1, seq: 7 });
        assert_eq!(behind(&inbox.take()), Some(7));
        inbox.open();
        inbox.put(&entry(8, 1), 1);
        inbox.put(&entry(9, 1), 1);
        inbox.fall_behind(Position { epoch: 1, seq: 9 });
        assert_eq!(behind(&inbox.take()), Some(7));
    }
}
