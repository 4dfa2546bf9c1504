//! When events were sent and how long each took to each client; shared by all clients.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Events of one run at most.
const EVENTS_MAX: usize = 1 << 20;

/// Width of a bucket: fine beside the milliseconds that are told.
const BUCKET: Duration = Duration::from_micros(100);

/// The last bucket holds everything that took longer: 20 s.
const BUCKETS: usize = 200_000;

pub(super) struct Meter {
    /// Events of this series are counted, others not.
    pub(super) series: String,
    begun: Instant,
    begun_at: SystemTime,
    sent: Box<[AtomicU64]>,
    /// When an event last reached a client, 0 for never.
    arrived: Box<[AtomicU64]>,
    buckets: Box<[AtomicU32]>,
    deliveries: AtomicU64,
    wanted: AtomicU64,
    complete: Notify,
}

impl Meter {
    pub(super) fn new(series: impl Into<String>) -> Self {
        Self {
            series: series.into(),
            begun: Instant::now(),
            begun_at: SystemTime::now(),
            sent: (0..EVENTS_MAX).map(|_| AtomicU64::new(0)).collect(),
            arrived: (0..EVENTS_MAX).map(|_| AtomicU64::new(0)).collect(),
            buckets: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
            deliveries: AtomicU64::new(0),
            wanted: AtomicU64::new(u64::MAX),
            complete: Notify::new(),
        }
    }

    /// Forgets what was measured.
    pub(super) fn reset(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
        self.arrived.iter().for_each(|arrived| arrived.store(0, Ordering::Relaxed));
        self.deliveries.store(0, Ordering::Relaxed);
        self.wanted.store(u64::MAX, Ordering::Relaxed);
    }

    /// The event with this number is sent now.
    pub(super) fn sent(&self, number: u32) {
        self.sent[number as usize % EVENTS_MAX].store(self.now(), Ordering::Relaxed);
    }

    /// A client has got the event.
    pub(super) fn arrived(&self, number: u32) {
        let now = self.now();
        let place = number as usize % EVENTS_MAX;
        let took = now.saturating_sub(self.sent[place].load(Ordering::Relaxed));
        self.arrived[place].store(now, Ordering::Relaxed);
        let bucket = usize::try_from(u128::from(took) / BUCKET.as_nanos()).unwrap_or(BUCKETS).min(BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let deliveries = self.deliveries.fetch_add(1, Ordering::Relaxed) + 1;
        if deliveries >= self.wanted.load(Ordering::Relaxed) {
            self.complete.notify_one();
        }
    }

    /// When a client got the event last, in seconds of the system's clock since 1970.
    pub(super) fn arrival(&self, number: u32) -> Option<f64> {
        let arrived = self.arrived[number as usize % EVENTS_MAX].load(Ordering::Relaxed);
        let at = self.begun_at + Duration::from_nanos(arrived);
        (arrived > 0).then(|| at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()))
    }

    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::Relaxed)
    }

    /// Waits for so many deliveries, or until the time is over.
    pub(super) async fn until(&self, wanted: u64, limit: Duration) {
        self.wanted.store(wanted, Ordering::Relaxed);
        if self.deliveries() < wanted {
            let _ = timeout(limit, self.complete.notified()).await;
        }
    }

    /// The upper bound, in milliseconds, of the bucket that holds this percentile.
    pub(super) fn percentile(&self, percent: u64) -> f64 {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed).into()).collect();
        let rank = (counts.iter().sum::<u64>() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let bucket = u32::try_from(bucket.unwrap_or(0) + 1).unwrap_or(u32::MAX);
        (BUCKET * bucket).as_secs_f64() * 1_000.0
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
