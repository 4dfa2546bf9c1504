//! Stretches of the log that were read a moment ago: clients that were away come back together, and read the same. A page
//! holds only what can no longer change, and who reads from Postgres for clients leaves it to the others at most times.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::Semaphore;

use super::event::Entry;
use super::read::{Batch, ReadLog, bounded};

/// Entries of a page: as many as a connection looks at in one stretch, or, where those are too large for one reading, so
/// few that the largest events fit.
const PAGE_ENTRIES: [usize; 2] = [256, 16];
/// Bytes of all pages.
const BYTES_MAX: u64 = 8 * 1024 * 1024;
/// What an entry takes beside its text, in bytes.
const ENTRY_BYTES: usize = 256;
/// A page that nobody has read for so long goes: a pod at rest is small.
const KEPT: Duration = Duration::from_secs(30);
/// Readings from Postgres at a time. The pool's other connections are for writes, and for following the log.
const READINGS_MAX: usize = 4;

/// Epoch, and number of an entry.
type Place = (i32, i64);

/// Pages by the places of their first entries and by their entries; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    /// One that is too large is empty.
    pages: Cache<(Place, usize), Arc<[Arc<Entry>]>>,
    readings: Arc<Semaphore>,
}

impl Pages {
    pub(super) fn new() -> Self {
        let bytes = |entries: &Arc<[Arc<Entry>]>| {
            ENTRY_BYTES + entries.iter().map(|entry| entry.bytes() + ENTRY_BYTES).sum::<usize>()
        };
        let pages = Cache::builder()
            .max_capacity(BYTES_MAX)
            .weigher(move |_, entries| u32::try_from(bytes(entries)).unwrap_or(u32::MAX))
            .time_to_idle(KEPT)
            .build();
        Self { pages, readings: Arc::new(Semaphore::new(READINGS_MAX)) }
    }

    /// Up to `limit` entries after `seq` of a log that has more than those. `read` reads what follows a number, up to so
    /// many, and fewer where their events are large.
    pub(super) async fn after<Reading: Future<Output = Result<Batch, ReadLog>>>(
        &self,
        (epoch, seq): Place,
        head: i64,
        limit: usize,
        read: impl Fn(i64, usize) -> Reading,
    ) -> Result<Batch, ReadLog> {
        for entries in PAGE_ENTRIES {
            let size = i64::try_from(entries).expect("a page is small");
            let first = seq - seq.rem_euclid(size) + 1;
            // The page at the head grows. What lies so near to it and is not in memory is large, so a small page will do.
            if first + size - 1 > head {
                continue;
            }
            let whole = self.whole(entries, read(first - 1, entries));
            let Some(page) = self.pages.optionally_get_with(((epoch, first), entries), whole).await else { break };
            if !page.is_empty() {
                let begin = usize::try_from(seq + 1 - first).expect("it is in the page");
                return Ok(Batch::Entries(page.iter().skip(begin).take(limit).cloned().collect()));
            }
        }
        self.read(read(seq, limit)).await
    }

    /// A page of so many entries; empty when they are too large for it.
    async fn whole(
        &self,
        entries: usize,
        reading: impl Future<Output = Result<Batch, ReadLog>>,
    ) -> Option<Arc<[Arc<Entry>]>> {
        match self.read(reading).await {
            Ok(Batch::Entries(page)) if page.len() == entries => Some(page.into()),
            Ok(Batch::Entries(page)) if !page.is_empty() => Some(Arc::new([])),
            // Retention has its beginning, or Postgres is away: whoever asks is told by a reading of its own.
            _ => None,
        }
    }

    /// A reading, when there is a place for it: a connection serves nothing else while it waits, so it does not wait for long.
    async fn read(&self, reading: impl Future<Output = Result<Batch, ReadLog>>) -> Result<Batch, ReadLog> {
        let place = async { Ok(self.readings.acquire().await.expect("the semaphore is never closed")) };
        let _place = bounded(place).await?;
        reading.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::events::Audience;
    use crate::log::event::Attributes;
    use crate::traces::Delivery;

    fn entry(seq: i64) -> Arc<Entry> {
        Arc::new(Entry {
            seq,
            outbox_id: seq,
            event_type: "a.b".into(),
            type_number: 0,
            subject: "a/1".into(),
            audience: Audience::default(),
            recorded_at: Timestamp::UNIX_EPOCH,
            encoded: Bytes::from_static(b"{}"),
            published: None,
            attributes: Attributes::default(),
            delivery: Delivery::default(),
        })
    }

    /// A log from `oldest` to 1,000, of which so many entries fit into a reading, and how often it was read.
    struct Log {
        oldest: i64,
        fitting: usize,
        reads: AtomicUsize,
        pages: Pages,
    }

    impl Log {
        fn from(oldest: i64) -> Self {
            Self { oldest, fitting: usize::MAX, reads: AtomicUsize::new(0), pages: Pages::new() }
        }

        async fn after(&self, seq: i64, limit: usize) -> Result<Vec<i64>, i64> {
            let read = |seq: i64, limit: usize| async move {
                self.reads.fetch_add(1, Ordering::Relaxed);
                if seq + 1 < self.oldest {
                    return Ok(Batch::Gap { oldest: self.oldest });
                }
                Ok(Batch::Entries((seq + 1..=1_000).take(limit.min(self.fitting)).map(entry).collect()))
            };
            match self.pages.after((1, seq), 1_000, limit, read).await.expect("it can be read") {
                Batch::Entries(entries) => Ok(entries.iter().map(|entry| entry.seq).collect()),
                Batch::Gap { oldest } => Err(oldest),
            }
        }

        fn reads(&self) -> usize {
            self.reads.swap(0, Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn whoever_reads_the_same_is_given_what_another_has_read() {
        let log = Log::from(1);
        for seq in [0, 1, 100, 255] {
            assert_eq!(log.after(seq, 300).await, Ok((seq + 1..=256).collect()), "{seq}");
        }
        assert_eq!(log.after(10, 3).await, Ok(vec![11, 12, 13]));
        assert_eq!(log.reads(), 1);
        assert_eq!(log.after(256, 256).await, Ok((257..=512).collect()));
        assert_eq!(log.reads(), 1);
    }

    #[tokio::test]
    async fn whoever_reads_the_same_large_events_is_given_what_another_has_read() {
        let log = Log { fitting: 20, ..Log::from(1) };
        for seq in [96, 100, 111] {
            assert_eq!(log.after(seq, 256).await, Ok((seq + 1..=112).collect()), "{seq}");
        }
        assert_eq!(log.reads(), 2, "one finds that they are large");
        assert_eq!(log.after(112, 256).await, Ok((113..=128).collect()));
        assert_eq!(log.reads(), 1);
        let log = Log { fitting: 5, ..Log::from(1) };
        assert_eq!(log.after(100, 256).await, Ok((101..=105).collect()), "so large are none, and nothing is left out");
    }

    #[tokio::test]
    async fn what_may_grow_is_read_anew() {
        let log = Log::from(1);
        for _ in 0..2 {
            assert_eq!(log.after(995, 300).await, Ok((996..=1_000).collect()));
        }
        assert_eq!(log.reads(), 2);
    }

    #[tokio::test]
    async fn who_finds_no_place_for_a_reading_is_told_after_a_while() {
        let pages = Pages::new();
        let _held = pages.readings.acquire_many(u32::try_from(READINGS_MAX).expect("few")).await.expect("it is open");
        let read = |_, _| async { Ok(Batch::Entries(Vec::new())) };
        let waited = tokio::time::timeout(Duration::from_mins(1), pages.after((1, 800), 1_000, 10, read)).await;
        assert!(matches!(waited, Ok(Err(ReadLog::QueryLog(_)))), "{waited:?}");
    }

    #[tokio::test]
    async fn a_page_whose_beginning_is_gone_is_told_as_it_is() {
        let log = Log::from(100);
        assert_eq!(log.after(50, 256).await, Err(100));
        assert_eq!(log.after(99, 256).await, Ok((100..=355).collect()));
        assert_eq!(log.after(256, 256).await, Ok((257..=512).collect()));
    }
}
