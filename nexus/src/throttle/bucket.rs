//! A token bucket, kept as the one time at which it will be full again (the generic cell rate algorithm). Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How often somebody may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Times a second, for ever; at least 1.
    pub per_second: u32,
    /// Times at once, after a pause.
    pub burst: u32,
}

impl Rate {
    /// The rate of so many a second, with twice as many at once; none when it is 0.
    pub fn of(per_second: u32) -> Option<Self> {
        (per_second > 0).then_some(Self { per_second, burst: per_second.saturating_mul(2) })
    }

    /// In how long one token comes back.
    pub(super) fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }

    /// In how many seconds an empty bucket is full again.
    pub fn window_seconds(self) -> u32 {
        self.burst.div_ceil(self.per_second.max(1))
    }
}

/// The bucket of one connection, or of one caller while Redis is away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes a token; or says in how long there will be one.
    pub fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        let after = full_at + rate.interval();
        let latest = now + rate.interval() * rate.burst.max(1);
        if after > latest {
            return Err(after - latest);
        }
        self.full_at = Some(after);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_token_comes_back_at_a_time() {
        let rate = Rate { per_second: 10, burst: 3 };
        let start = Instant::now();
        let mut bucket = Bucket::default();
        assert_eq!(
            [(); 4].map(|()| bucket.take(rate, start)),
            [Ok(()), Ok(()), Ok(()), Err(Duration::from_millis(100))]
        );
        let later = start + Duration::from_millis(100);
        assert_eq!(bucket.take(rate, later), Ok(()));
        assert_eq!(bucket.take(rate, later), Err(Duration::from_millis(100)));
        let rested = start + Duration::from_mins(1);
        assert_eq!([(); 3].map(|()| bucket.take(rate, rested)), [Ok(()); 3], "a pause is worth a burst, no more");
        assert!(bucket.take(rate, rested).is_err());
    }

    #[test]
    fn a_rate_of_nothing_is_no_bound() {
        assert_eq!(Rate::of(0), None);
        assert_eq!(Rate::of(5), Some(Rate { per_second: 5, burst: 10 }));
    }
}
