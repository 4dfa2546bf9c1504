//! The newest entries of the log, kept in the pod: contiguous, bounded in entries and in bytes.
//! Pure: it never reads the log itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::event::{Entry, place_of_unqueued};

/// Most entries kept, enough for a client that was away for a moment under full load.
const ENTRIES_MAX: usize = 8_192;
/// Most bytes of encoded events kept; a pod at rest must stay small.
const BYTES_MAX: usize = 8 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Ring {
    entries: VecDeque<Arc<Entry>>,
    seq_of_outbox: HashMap<i64, i64>,
    bytes: usize,
}

impl Ring {
    /// Adds the entry that follows the newest one. An entry that leaves a hole empties the ring first.
    pub(super) fn push(&mut self, entry: Arc<Entry>) {
        if self.entries.back().is_some_and(|newest| newest.seq + 1 != entry.seq) {
            self.clear();
        }
        self.bytes += entry.bytes();
        if place_of_unqueued(entry.outbox_id).is_none() {
            self.seq_of_outbox.insert(entry.outbox_id, entry.seq);
        }
        self.entries.push_back(entry);
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.seq_of_outbox.remove(&oldest.outbox_id);
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// Up to `limit` entries after `seq`, or nothing when the first of them is no longer here.
    pub(super) fn after(&self, seq: i64, limit: usize) -> Option<Vec<Arc<Entry>>> {
        let oldest = self.entries.front()?.seq;
        let start = usize::try_from(seq.checked_add(1)?.checked_sub(oldest)?).ok()?;
        (start < self.entries.len()).then(|| self.entries.iter().skip(start).take(limit).cloned().collect())
    }

    /// The number that the event of the outbox got.
    pub(super) fn seq_of_outbox(&self, outbox_id: i64) -> Option<i64> {
        self.seq_of_outbox.get(&outbox_id).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn entry(seq: i64, bytes: usize) -> Arc<Entry> {
        let encoded = Bytes::from(vec![b' '; bytes]);
        Arc::new(Entry {
            seq,
            outbox_id: seq * 10,
            event_type: "a".into(),
            subject: "b".into(),
            type_number: 0,
            audience: crate::events::Audience::default(),
            recorded_at: jiff::Timestamp::UNIX_EPOCH,
            encoded,
            published: None,
            attributes: crate::log::event::Attributes::default(),
            delivery: crate::traces::Delivery::default(),
        })
    }

    fn numbers(ring: &Ring, after: i64, limit: usize) -> Option<Vec<i64>> {
        ring.after(after, limit).map(|entries| entries.iter().map(|entry| entry.seq).collect())
    }

    proptest! {
        #[test]
        fn what_is_read_follows_without_a_hole(count in 1..200_i64, after in -5..210_i64, limit in 1..50_usize) {
            let mut ring = Ring::default();
            (1..=count).for_each(|seq| ring.push(entry(seq, 10)));
            let wanted: Vec<i64> = (after + 1..=count).take(limit).collect();
            let inside = (0..count).contains(&after);
            prop_assert_eq!(numbers(&ring, after, limit), inside.then_some(wanted));
        }
    }

    #[test]
    fn the_ring_stays_within_both_bounds() {
        let mut ring = Ring::default();
        (1..=10_000).for_each(|seq| ring.push(entry(seq, 1)));
        assert_eq!(ring.len(), ENTRIES_MAX);
        assert_eq!(ring.seq_of_outbox.len(), ENTRIES_MAX);
        assert_eq!(numbers(&ring, 1, 1), None);
        assert_eq!(numbers(&ring, 9_999, 1), Some(vec![10_000]));
        (10_001..=10_040).for_each(|seq| ring.push(entry(seq, BYTES_MAX / 8)));
        assert_eq!(ring.len(), 8);
        assert_eq!(ring.seq_of_outbox(100_400), Some(10_040));
        assert_eq!(ring.seq_of_outbox(10), None);
    }

    #[test]
    fn a_hole_empties_the_ring() {
        let mut ring = Ring::default();
        for seq in [1, 2, 5] {
            ring.push(entry(seq, 1));
        }
        assert_eq!(numbers(&ring, 1, 9), None);
        assert_eq!(numbers(&ring, 4, 9), Some(vec![5]));
    }
}
